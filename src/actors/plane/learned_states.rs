//! What feedback left with each application's policy, in memory. Written by `FeedbackKeeper` alone,
//! read by the applications' actors.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};

use super::rollout_outcomes::RolloutOutcomes;
use clipper_domain::AppName;
use clipper_domain::rollout::Rollout;
use clipper_selection::given::GivenBy;
use clipper_selection::state::{Contribution, SelectionState};
use clipper_selection::window::FeedbackWindow;

#[derive(Debug)]
pub struct LearnedStates {
    apps: RwLock<HashMap<AppName, Arc<AppLearned>>>,
    users_max: usize,
    window_max: usize,
}

#[derive(Debug)]
pub struct AppLearned {
    /// What all feedback left, whoever gave it.
    everybody: ArcSwap<SelectionState>,
    users: RwLock<HashMap<i64, Arc<SelectionState>>>,
    /// Answers that feedback may still be about.
    pub window: Mutex<FeedbackWindow>,
    /// What came of its rollout's queries.
    rollout: ArcSwapOption<RolloutOutcomes>,
}

impl LearnedStates {
    /// Nothing yet; room for `users_max` users and `window_max` answers of each application.
    #[must_use]
    pub fn new(users_max: usize, window_max: usize) -> Self {
        Self { apps: RwLock::default(), users_max, window_max }
    }

    /// That of an application; it stays the same object while there is such an application.
    #[must_use]
    pub fn of(&self, app: &AppName) -> Arc<AppLearned> {
        if let Some(learned) = self.apps.read().get(app) {
            return Arc::clone(learned);
        }
        let new = || {
            Arc::new(AppLearned {
                everybody: ArcSwap::default(),
                users: RwLock::default(),
                window: Mutex::new(FeedbackWindow::new(self.window_max)),
                rollout: ArcSwapOption::empty(),
            })
        };
        Arc::clone(self.apps.write().entry(app.clone()).or_insert_with(new))
    }

    /// Adds what one feedback of a user contributes, to that user's state and to everybody's.
    /// Users beyond the bound have none of their own.
    pub fn learn(&self, app: &AppName, uid: i64, contribution: &Contribution) {
        let learned = self.of(app);
        let mut everybody = SelectionState::clone(&learned.everybody.load());
        everybody.learn(contribution);
        learned.everybody.store(Arc::new(everybody));
        if uid != EVERYBODY {
            let mut users = learned.users.write();
            if users.len() < self.users_max || users.contains_key(&uid) {
                Arc::make_mut(users.entry(uid).or_default()).learn(contribution);
            }
        }
    }

    /// Takes over what an earlier process has kept.
    pub fn restore(&self, app: &AppName, uid: i64, state: SelectionState) {
        let learned = self.of(app);
        if uid == EVERYBODY {
            learned.everybody.store(Arc::new(state));
        } else {
            learned.users.write().insert(uid, Arc::new(state));
        }
    }

    /// The application is gone.
    pub fn forget(&self, app: &AppName) {
        // Actors that still hold it hold nothing.
        if let Some(learned) = self.apps.write().remove(app) {
            learned.everybody.store(Arc::default());
            learned.users.write().clear();
            *learned.window.lock() = FeedbackWindow::new(self.window_max);
        }
    }
}

/// The user who stands for all.
pub const EVERYBODY: i64 = 0;

impl AppLearned {
    /// Where what comes of a rollout is counted, the same for all who ask.
    #[must_use]
    pub fn rollout(&self, rollout: &Rollout) -> Arc<RolloutOutcomes> {
        let is_it = |known: &Option<Arc<RolloutOutcomes>>| {
            known.as_ref().is_some_and(|known| known.id == rollout.id)
        };
        let new = Arc::new(RolloutOutcomes::new(rollout));
        let before = self
            .rollout
            .rcu(|known| if is_it(known) { known.clone() } else { Some(Arc::clone(&new)) });
        before.filter(|known| known.id == rollout.id).unwrap_or(new)
    }

    /// What is counted of the rollout that runs, or ran last.
    #[must_use]
    pub fn latest_rollout(&self) -> Option<Arc<RolloutOutcomes>> {
        self.rollout.load_full()
    }

    /// Feedback has judged an answer that a rollout gave.
    pub fn judged(&self, by: GivenBy, taught: &Contribution) {
        let outcomes = self.rollout.load();
        let Some(outcomes) = outcomes.as_ref().filter(|known| known.id == by.rollout) else {
            return;
        };
        if let Some(sums) = taught.arms.get(&outcomes.plan.from.name) {
            outcomes.judged(by.side, sums.loss());
        }
    }

    /// What a user's predictions go by: their own state if their feedback has left one, else
    /// everybody's.
    #[must_use]
    pub fn of_user(&self, uid: i64) -> Arc<SelectionState> {
        self.of_user_alone(uid).unwrap_or_else(|| self.everybody.load_full())
    }

    /// A user's own state.
    #[must_use]
    pub fn of_user_alone(&self, uid: i64) -> Option<Arc<SelectionState>> {
        if uid == EVERYBODY {
            return Some(self.everybody.load_full());
        }
        self.users.read().get(&uid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use clipper_domain::ModelName;
    use clipper_selection::state::ArmSums;

    #[test]
    fn a_users_feedback_counts_for_the_user_and_for_everybody() {
        let states = LearnedStates::new(1, 10);
        let app = AppName::parse("a").unwrap();
        let model = ModelName::parse("m").unwrap();
        let arms = BTreeMap::from([(model, ArmSums::of(1.0, 1.0))]);
        for uid in [7, 7, 8, 0] {
            states.learn(&app, uid, &Contribution { window: None, arms: arms.clone() });
        }
        let learned = states.of(&app);
        let rounds = |uid| learned.of_user(uid).rounds();
        assert_eq!((rounds(0), rounds(7)), (4, 2));
        // Beyond the bound, a user's predictions go by what everybody's feedback left.
        assert_eq!((rounds(8), learned.of_user_alone(8)), (4, None));
        states.forget(&app);
        assert_eq!((rounds(0), rounds(7)), (0, 0));
        assert_eq!(states.of(&app).of_user(0).rounds(), 0);
    }
}
