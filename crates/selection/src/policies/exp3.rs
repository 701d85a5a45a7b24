//! `Exp3`: one model for each query, the more often the less it was wrong. Learns from the feedback
//! to that one answer, and assumes nothing of how errors come about.
//!
//! Auer, Cesa-Bianchi, Freund, Schapire, "The nonstochastic multiarmed bandit problem" (2002), in
//! the form of Bubeck and Cesa-Bianchi, "Regret analysis of stochastic and nonstochastic
//! multi-armed bandit problems" (2012), section 3.1: model `i` is asked with probability
//! `exp(-eta L_i)` over the sum of all, where `L_i` adds up its losses over the probabilities with
//! which it was asked, and `eta = sqrt(ln K / (t K))`. Their theorem 3.1: after `n` rounds the
//! expected loss is at most `2 sqrt(n K ln K)` above that of the best model.

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::{ArmSums, Standing};
use crate::weights::{draw, exponential, rng};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "exp3",
    summary: "Asks one model for each query, the more often the less it was wrong, whatever \
              happens to the models. The cheap way to learn which one is best.",
    parameters: &[
        ("explore", "the part of queries drawn evenly, so that none is forgotten; default 0.01"),
        (
            "learning_rate",
            "how strongly a loss counts, above 0 to 10; default: sqrt(ln K / (K t)) after t \
             observations of K models",
        ),
    ],
    build,
};

#[derive(Debug)]
struct Exp3 {
    explore: f64,
    rate: Option<f64>,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    _: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let explore = parameters.number("explore", 0.0, 1.0)?.unwrap_or(0.01);
    let rate = parameters.number("learning_rate", 1e-9, 10.0)?;
    Ok(Box::new(Exp3 { explore, rate }))
}

impl SelectionPolicy for Exp3 {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let weights = &standing.weights;
        let arm = draw(&mut rng(query.seed), weights);
        arm.map(|arm| Pick { arm, probability: weights[arm] }).into_iter().collect()
    }

    fn prepared(&self, standing: &Standing) -> Vec<f64> {
        self.weights(standing)
    }

    fn weights(&self, standing: &Standing) -> Vec<f64> {
        let models = standing.arms.len() as f64;
        let rounds = standing.rounds.max(1) as f64;
        let rate = self.rate.unwrap_or_else(|| (models.max(2.0).ln() / (models * rounds)).sqrt());
        let mut weights = exponential(standing.arms.iter().map(ArmSums::estimate), rate);
        for weight in &mut weights {
            *weight = (1.0 - self.explore) * *weight + self.explore / models;
        }
        weights
    }

    fn needs_probability(&self) -> bool {
        true
    }
}
