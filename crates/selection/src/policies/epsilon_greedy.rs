//! The model that was least wrong so far, and now and then another.
//!
//! Sutton and Barto, "Reinforcement Learning" (2018), section 2.2. With a constant `epsilon` what
//! exploring costs grows with every query.

use rand::Rng;
use smallvec::smallvec;

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::weights::{draw_evenly, rng};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "epsilon_greedy",
    summary: "Asks the model that was least wrong so far, and any model now and then. Easy to \
              explain; what exploring costs never ends.",
    parameters: &[("epsilon", "the part of queries that go to any model; default 0.1")],
    build,
};

#[derive(Debug)]
struct EpsilonGreedy {
    epsilon: f64,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    _: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let epsilon = parameters.number("epsilon", 0.0, 1.0)?.unwrap_or(0.1);
    Ok(Box::new(EpsilonGreedy { epsilon }))
}

/// The models with the least mean loss, as a yes or no for each; one that was never judged counts as
/// never wrong.
fn best(standing: &Standing) -> impl Iterator<Item = bool> + Clone {
    let means = standing.arms.iter().map(|arm| arm.mean().unwrap_or(0.0));
    let least = means.clone().fold(f64::INFINITY, f64::min);
    means.map(move |mean| mean <= least)
}

impl SelectionPolicy for EpsilonGreedy {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let models = standing.arms.len();
        let best = best(standing);
        let equals = best.clone().filter(|is_best| *is_best).count();
        let mut rng = rng(query.seed);
        let explores = rng.random::<f64>() < self.epsilon;
        let arm = if explores {
            draw_evenly(&mut rng, models)
        } else {
            // Any of equal ones: at the start, feedback that is slow does not keep all queries on
            // the first.
            let which = draw_evenly(&mut rng, equals);
            which
                .and_then(|n| (0..models).zip(best.clone()).filter(|it| it.1).nth(n))
                .map(|(arm, _)| arm)
        };
        let Some(arm) = arm else { return Picks::new() };
        let evenly = self.epsilon / models as f64;
        let is_best = best.clone().nth(arm).unwrap_or(false);
        let usually = if is_best { (1.0 - self.epsilon) / equals as f64 } else { 0.0 };
        smallvec![Pick { arm, probability: usually + evenly }]
    }
}
