//! One model for each query, drawn by weights that its operator sets: A/B tests, and moving
//! queries from one model to another by hand.

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, missing};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::sticky::{STICKY, Sticky};
use crate::weights::{by_name, draw, normalised, rng};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "weighted",
    summary: "Draws one model for each query by weights that its operator sets: A/B tests. Learns \
              nothing; feedback is counted for each model.",
    parameters: &[
        ("weights", "an object of models and weights, such as {\"a\": 9, \"b\": 1}; required"),
        STICKY,
    ],
    build,
};

#[derive(Debug)]
struct Weighted {
    probabilities: Vec<f64>,
    sticky: Sticky,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let weights = parameters.weights("weights")?;
    let weights = weights.ok_or_else(|| missing("weights", "a weight for each model"))?;
    let sticky = Sticky::read(parameters)?;
    let mut probabilities = by_name(&weights, binding.models);
    // Models without a weight get no query, also where no other is linked.
    if probabilities.iter().any(|weight| *weight > 0.0) {
        probabilities = normalised(probabilities);
    } else {
        probabilities.clear();
    }
    Ok(Box::new(Weighted { probabilities, sticky }))
}

impl SelectionPolicy for Weighted {
    fn select(&self, _: &Standing, query: &SelectionQuery) -> Picks {
        let arm = draw(&mut rng(self.sticky.seed(query)), &self.probabilities);
        let pick = arm.map(|arm| Pick { arm, probability: self.probabilities[arm] });
        pick.into_iter().collect()
    }

    fn weights(&self, standing: &Standing) -> Vec<f64> {
        let mut weights = self.probabilities.clone();
        weights.resize(standing.arms.len(), 0.0);
        weights
    }
}
