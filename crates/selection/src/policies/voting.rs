//! What policies have in common that ask all models and put the answers together by weights.

use clipper_domain::ModelName;

use crate::kind::Binding;
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Answered, Combination, Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::votes::{Vote, votes};
use crate::weights::WeightSource;

/// The parameter of those whose operator says where the weights come from, for their tables.
pub(crate) const WEIGHTS: (&str, &str) = (
    "weights",
    "`equal`, `learned` (from feedback: the log-odds of being right, none for a model that is \
     wrong half of the time) or an object of models and weights; default `equal`",
);

/// One answer from the votes that are in and the weight of all that were asked.
pub(crate) type Combine = fn(&[Vote<'_>], f64) -> Combination;

/// All models with their weights, and how one answer is made of theirs.
#[derive(Debug)]
struct Voting {
    models: Vec<ModelName>,
    weights: WeightSource,
    combine: Combine,
}

/// With [`WEIGHTS`].
pub(crate) fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
    combine: Combine,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    Ok(with(binding, WeightSource::read(parameters)?, combine))
}

/// With the weights that a policy itself gives its models.
pub(crate) fn with(
    binding: &Binding<'_>,
    weights: WeightSource,
    combine: Combine,
) -> Box<dyn SelectionPolicy> {
    Box::new(Voting { models: binding.models.to_vec(), weights, combine })
}

impl SelectionPolicy for Voting {
    /// Everybody who has a weight.
    fn select(&self, standing: &Standing, _: &SelectionQuery) -> Picks {
        match &self.weights {
            WeightSource::Equal | WeightSource::Learned | WeightSource::Exponential(_) => {
                (0..self.models.len()).map(Pick::certain).collect()
            }
            WeightSource::Given(names) => {
                let is_named = |model: &ModelName| names.iter().any(|(name, _)| name == model);
                let weight = |arm: usize| standing.weights.get(arm).copied().unwrap_or(0.0);
                let has_weight = |arm: &usize| weight(*arm) > 0.0 && is_named(&self.models[*arm]);
                (0..self.models.len()).filter(has_weight).map(Pick::certain).collect()
            }
        }
    }

    fn combine(&self, standing: &Standing, answered: &Answered<'_>) -> Combination {
        if answered.may_wait() {
            return Combination::Wait;
        }
        let (votes, all) = votes(answered, &standing.weights);
        (self.combine)(&votes, all)
    }

    fn prepared(&self, standing: &Standing) -> Vec<f64> {
        self.weights(standing)
    }

    fn weights(&self, standing: &Standing) -> Vec<f64> {
        self.weights.of(&self.models, standing)
    }

    fn asks_one(&self) -> bool {
        false
    }

    fn asks_all(&self) -> bool {
        true
    }

    fn has_confidence(&self) -> bool {
        true
    }
}
