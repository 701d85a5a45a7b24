//! The weighted mean of what all models say.

use super::majority::Ensemble;
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts};
use crate::policy::{Answered, Combination, Pick, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::value::OutputKind;
use crate::votes::{mean, pooled, votes};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "average",
    summary: "Asks all models and answers the mean of what they say, element by element. For \
              numbers and vectors.",
    parameters: &[(
        "weights",
        "`equal`, `learned` (from feedback, as `exp4`) or an object of models and weights; default \
         `equal`",
    )],
    build,
};

#[derive(Debug)]
struct Average(Ensemble);

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output == OutputKind::Label {
        let why = "labels have no mean; set output to number or vector, or take `majority`";
        return Err(contradicts("output", why.to_owned()));
    }
    let ensemble = Ensemble::read(parameters, binding)?;
    Ok(Box::new(Average(ensemble)))
}

impl SelectionPolicy for Average {
    fn select(&self, standing: &Standing, _: &SelectionQuery) -> Vec<Pick> {
        self.0.select(standing)
    }

    fn combine(&self, standing: &Standing, answered: &Answered<'_>) -> Combination {
        if answered.may_wait() {
            return Combination::Wait;
        }
        let (votes, all) = votes(answered, &self.0.weights(standing));
        pooled(&votes, all, mean)
    }

    fn asks_all(&self) -> bool {
        true
    }

    fn has_confidence(&self) -> bool {
        true
    }
}
