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

/// The model with the least mean loss; one that was never judged counts as never wrong.
fn best(standing: &Standing) -> Option<usize> {
    let mean = |arm: usize| standing.arms[arm].mean().unwrap_or(0.0);
    (0..standing.arms.len()).min_by(|a, b| mean(*a).total_cmp(&mean(*b)))
}

impl SelectionPolicy for EpsilonGreedy {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let models = standing.arms.len();
        let Some(best) = best(standing) else { return Picks::new() };
        let mut rng = rng(query.seed);
        let explores = rng.random::<f64>() < self.epsilon;
        let arm = if explores { draw_evenly(&mut rng, models).unwrap_or(best) } else { best };
        let evenly = self.epsilon / models as f64;
        let probability = if arm == best { 1.0 - self.epsilon + evenly } else { evenly };
        smallvec![Pick { arm, probability }]
    }
}
