//! `Exp4` as Clipper's paper has it: all models are asked, their answers weighted by how little
//! each was wrong. Learns from one feedback about all of them.
//!
//! Every model is an expert whose advice is its answer, and all losses are seen: exponential
//! weights. Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games" (2006), theorem 2.3: with
//! `eta = sqrt(8 ln K / t)` and a convex loss the sum is at most
//! `2 sqrt(n/2 ln K) + sqrt(ln K / 8)` above that of the best model after `n` rounds.

use super::voting;
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::SelectionPolicy;
use crate::votes::{mean, pooled};
use crate::weights::WeightSource;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "exp4",
    summary: "Asks all models and weighs their answers by how little each was wrong: labels by \
              vote, numbers and vectors by the mean. Never much worse than the best model, \
              whatever happens to the models; at the cost of all of them.",
    parameters: &[(
        "learning_rate",
        "how strongly a loss counts, above 0 to 10; default: sqrt(8 ln K / t) after t observations \
         of K models",
    )],
    build,
};

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let rate = parameters.number("learning_rate", 1e-9, 10.0)?;
    let weights = WeightSource::Exponential(rate);
    Ok(voting::with(binding, weights, |votes, all| pooled(votes, all, mean)))
}
