//! Thompson sampling: each model is asked as often as it is likely to be the best.
//!
//! Thompson (1933); Agrawal and Goyal, "Analysis of Thompson sampling for the multi-armed bandit
//! problem" (2012). A model's rate of errors has a beta distribution, even before the first
//! feedback; losses between 0 and 1 count in part as an error and in part as none.

use crate::beta;
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::weights::rng;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "thompson",
    summary: "Asks each model as often as it is likely to be the best. For models whose errors \
              come by chance; bears feedback that comes late.",
    parameters: &[],
    build,
};

#[derive(Debug)]
struct Thompson;

#[allow(clippy::unnecessary_wraps, reason = "the form of the table")]
fn build(
    _: &mut ParameterReader<'_>,
    _: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    Ok(Box::new(Thompson))
}

impl SelectionPolicy for Thompson {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let mut rng = rng(query.seed);
        let mut best: Option<(usize, f64)> = None;
        for (arm, sums) in standing.arms.iter().enumerate() {
            let wrong = sums.loss().max(0.0);
            let right = (sums.judged as f64 - wrong).max(0.0);
            let rate = beta::draw(&mut rng, 1.0 + wrong, 1.0 + right);
            if best.is_none_or(|(_, least)| rate < least) {
                best = Some((arm, rate));
            }
        }
        best.map(|(arm, _)| Pick::certain(arm)).into_iter().collect()
    }
}
