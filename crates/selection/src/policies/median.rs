//! The weighted median of what all models say.

use super::majority::Ensemble;
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts};
use crate::policy::{Answered, Combination, Pick, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::value::OutputKind;
use crate::votes::{median, pooled, votes};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "median",
    summary: "Asks all models and answers the median of what they say, element by element: one \
              model that is far off changes nothing. For numbers and vectors.",
    parameters: &[(
        "weights",
        "`equal`, `learned` (from feedback, as `exp4`) or an object of models and weights; default \
         `equal`",
    )],
    build,
};

#[derive(Debug)]
struct Median(Ensemble);

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output == OutputKind::Label {
        let why = "labels have no median; set output to number or vector, or take `majority`";
        return Err(contradicts("output", why.to_owned()));
    }
    let ensemble = Ensemble::read(parameters, binding)?;
    Ok(Box::new(Median(ensemble)))
}

impl SelectionPolicy for Median {
    fn select(&self, standing: &Standing, _: &SelectionQuery) -> Vec<Pick> {
        self.0.select(standing)
    }

    fn combine(&self, standing: &Standing, answered: &Answered<'_>) -> Combination {
        if answered.may_wait() {
            return Combination::Wait;
        }
        let (votes, all) = votes(answered, &self.0.weights(standing));
        pooled(&votes, all, median)
    }

    fn asks_all(&self) -> bool {
        true
    }

    fn has_confidence(&self) -> bool {
        true
    }
}
