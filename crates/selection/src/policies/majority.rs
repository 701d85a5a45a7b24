//! What most models say.

use clipper_domain::ModelName;

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts};
use crate::policy::{Answered, Combination, Pick, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::value::OutputKind;
use crate::votes::{majority, votes};
use crate::weights::WeightSource;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "majority",
    summary: "Asks all models and answers what most of them say; the confidence is the part that \
              agrees. For labels.",
    parameters: &[(
        "weights",
        "`equal`, `learned` (from feedback, as `exp4`) or an object of models and weights; default \
         `equal`",
    )],
    build,
};

/// The members of an ensemble and their weights.
#[derive(Debug)]
pub(crate) struct Ensemble {
    models: Vec<ModelName>,
    weights: WeightSource,
}

impl Ensemble {
    pub(crate) fn read(
        parameters: &mut ParameterReader<'_>,
        binding: &Binding<'_>,
    ) -> Result<Self, ParameterError> {
        let weights = WeightSource::read(parameters)?;
        Ok(Self { models: binding.models.to_vec(), weights })
    }

    /// Everybody who has a weight.
    pub(crate) fn select(&self, standing: &Standing) -> Vec<Pick> {
        match &self.weights {
            WeightSource::Equal | WeightSource::Learned => {
                (0..self.models.len()).map(Pick::certain).collect()
            }
            given @ WeightSource::Given(names) => {
                let is_named = |model: &ModelName| names.iter().any(|(name, _)| name == model);
                let weights = given.of(&self.models, standing);
                let has_weight = |arm: &usize| weights[*arm] > 0.0 && is_named(&self.models[*arm]);
                (0..self.models.len()).filter(has_weight).map(Pick::certain).collect()
            }
        }
    }

    pub(crate) fn weights(&self, standing: &Standing) -> Vec<f64> {
        self.weights.of(&self.models, standing)
    }
}

#[derive(Debug)]
struct Majority(Ensemble);

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output != OutputKind::Label {
        let why = "`majority` votes on labels; `average` and `median` are for numbers and vectors";
        return Err(contradicts("output", why.to_owned()));
    }
    Ensemble::read(parameters, binding)
        .map(|ensemble| -> Box<dyn SelectionPolicy> { Box::new(Majority(ensemble)) })
}

impl SelectionPolicy for Majority {
    fn select(&self, standing: &Standing, _: &SelectionQuery) -> Vec<Pick> {
        self.0.select(standing)
    }

    fn combine(&self, standing: &Standing, answered: &Answered<'_>) -> Combination {
        if answered.may_wait() {
            return Combination::Wait;
        }
        let (votes, all) = votes(answered, &self.0.weights(standing));
        majority(&votes, all)
    }

    fn asks_all(&self) -> bool {
        true
    }

    fn has_confidence(&self) -> bool {
        true
    }
}
