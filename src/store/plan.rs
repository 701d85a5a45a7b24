//! From the state that is to the state that is wanted: the commands between them. Pure.
//!
//! Keys are no part of it: who may do what does not come back with what is served. Nor is how far a
//! rollout has come: one that runs now and does not in the wanted state is ended, none is begun.

mod back;
mod steps;

use std::collections::BTreeSet;

pub use self::back::back_to;
use self::steps::{PlanDraft, linked};
use super::projection::Catalog;
use clipper_domain::command::{Plan, RefusedStep, Step};
use clipper_domain::{AppName, CommandError, ModelName};

/// Steps in one change: followers have room for so many events. More come one change after the
/// other, each of which leaves a state that the next goes on from.
pub const STEPS_AT_ONCE: usize = 500;

/// What makes `current`, the state after event `base`, equal to `wanted`.
///
/// Steps come in an order in which each is allowed: what is new comes before what relies on it,
/// versions that go away go last. Where rules leave no such order, a link goes for the time of the
/// change.
#[must_use]
pub fn plan(base: u64, current: &Catalog, wanted: &Catalog) -> Plan {
    let steps = PlanDraft { current, wanted }.steps();
    let (steps, refused) = arrange(current, wanted, steps);
    Plan { base, steps, refused }
}

/// The state that some steps lead to, where nobody else changes anything.
#[must_use]
pub fn after(state: &Catalog, steps: &[Step]) -> Catalog {
    let mut state = state.clone();
    for step in steps {
        // One that is refused here is refused where it counts.
        let _ = take(&mut state, step);
    }
    state
}

impl Catalog {
    /// What a plan is about: without keys and without what became of rollouts.
    #[must_use]
    pub fn planned(&self) -> Self {
        self.without_keys_and_rollouts()
    }
}

/// Tries each step after those before it. One that is refused waits for those behind it, and a link
/// that was in the way comes back last.
fn arrange(current: &Catalog, wanted: &Catalog, steps: Vec<Step>) -> (Vec<Step>, Vec<RefusedStep>) {
    let mut state = current.clone();
    let (mut order, mut waiting, mut last) = (Vec::new(), steps, Vec::new());
    let mut loosened = BTreeSet::new();
    loop {
        let mut refused = Vec::new();
        let before = waiting.len();
        for step in waiting {
            match take(&mut state, &step) {
                Ok(changes) => order.extend(changes.then_some(step)),
                Err(why) => refused.push(RefusedStep { step, why }),
            }
        }
        if refused.len() == before || refused.is_empty() {
            let loose = refused.iter().find_map(|refused| {
                let (app, model) = in_the_way(&refused.why)?;
                let pair = (app.clone(), model.clone());
                (state.is_linked(app, model) && !loosened.contains(&pair)).then_some(pair)
            });
            if let Some((app, model)) = loose {
                let unlink = steps::unlinked(&app, vec![model.clone()]);
                if take(&mut state, &unlink) == Ok(true) {
                    order.push(unlink);
                }
                if wanted.is_linked(&app, &model) {
                    last.push(linked(&app, vec![model.clone()], wanted));
                }
                loosened.insert((app, model));
            } else if last.is_empty() {
                return (order, refused);
            } else {
                let last = std::mem::take(&mut last);
                waiting = refused.into_iter().map(|refused| refused.step).chain(last).collect();
                continue;
            }
        }
        waiting = refused.into_iter().map(|refused| refused.step).collect();
    }
}

/// Whether it has changed anything.
fn take(state: &mut Catalog, step: &Step) -> Result<bool, CommandError> {
    let events = state.decide(&step.command)?;
    for event in &events {
        state.fold(event);
    }
    Ok(!events.is_empty())
}

/// The link because of which a version is refused.
fn in_the_way(why: &CommandError) -> Option<(&AppName, &ModelName)> {
    match why {
        CommandError::IncompatibleVersion { model, app, .. } => Some((app, model)),
        CommandError::SignaturesDiffer { app, model, .. } => Some((app, &model.name)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
