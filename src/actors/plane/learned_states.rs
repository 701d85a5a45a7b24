//! What feedback left with each application's policy, in memory.
//!
//! Written by `FeedbackKeeper`, and with Redis by the watcher, which takes over what other
//! frontends were told; read by the applications' actors. Users beyond the bounds are kept by the
//! store alone: the least recently used ones leave memory once they are saved, and come back when
//! they are asked about.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};

use super::rollout_outcomes::RolloutOutcomes;
use clipper_domain::AppName;
use clipper_domain::rollout::Rollout;
use clipper_selection::given::GivenBy;
use clipper_selection::shared::{Part, SharedState};
use clipper_selection::state::{Contribution, SelectionState};
use clipper_selection::window::FeedbackWindow;

/// Whose state: an application's user.
pub type UserOf = (AppName, i64);

/// The user who stands for all.
pub const EVERYBODY: i64 = 0;

/// Users that are asked about and not in memory, until the store is asked for them; more are
/// remembered when they are asked about again.
const WANTED_MAX: usize = 4_096;

/// What leaves memory at once, as a part of the bound: finding the least recently used costs a look
/// at all.
const LEAVING_PART: usize = 64;

/// How much is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct LearnedLimits {
    /// Users of one application.
    pub users: usize,
    /// Users of all applications.
    pub users_in_sum: usize,
    /// Answers of one application that feedback may still be about.
    pub window: usize,
}

#[derive(Debug)]
pub struct LearnedStates {
    apps: RwLock<HashMap<AppName, Arc<AppLearned>>>,
    limits: LearnedLimits,
    in_sum: Arc<InSum>,
}

/// What all applications share.
#[derive(Debug, Default)]
struct InSum {
    /// Users in memory.
    users: AtomicU64,
    /// Counts uses.
    uses: AtomicU64,
    /// The store may know users that are not in memory.
    beyond: AtomicBool,
    /// Asked about, and not in memory.
    wanted: Mutex<BTreeSet<UserOf>>,
    /// Saved, and not yet told to other frontends.
    untold: Mutex<BTreeSet<UserOf>>,
    /// What other frontends told of them is to be asked for.
    unheard: Mutex<BTreeSet<UserOf>>,
    /// The store does not take them, so they stay.
    staying: Mutex<BTreeSet<UserOf>>,
}

#[derive(Debug)]
struct User {
    state: SharedState,
    used: AtomicU64,
}

#[derive(Debug)]
pub struct AppLearned {
    name: AppName,
    /// What all feedback left, whoever gave it.
    everybody: ArcSwap<SelectionState>,
    users: RwLock<HashMap<i64, User>>,
    in_sum: Arc<InSum>,
    /// Answers that feedback may still be about.
    pub window: Mutex<FeedbackWindow>,
    /// What came of its rollout's queries.
    rollout: ArcSwapOption<RolloutOutcomes>,
}

impl LearnedStates {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: LearnedLimits) -> Self {
        Self { apps: RwLock::default(), limits, in_sum: Arc::default() }
    }

    /// That of an application; it stays the same object while there is such an application.
    #[must_use]
    pub fn of(&self, app: &AppName) -> Arc<AppLearned> {
        if let Some(learned) = self.apps.read().get(app) {
            return Arc::clone(learned);
        }
        let new = || {
            Arc::new(AppLearned {
                name: app.clone(),
                everybody: ArcSwap::default(),
                users: RwLock::default(),
                in_sum: Arc::clone(&self.in_sum),
                window: Mutex::new(FeedbackWindow::new(self.limits.window)),
                rollout: ArcSwapOption::empty(),
            })
        };
        Arc::clone(self.apps.write().entry(app.clone()).or_insert_with(new))
    }

    /// Adds what feedback of users contributes, to each user's state and to everybody's.
    pub fn learn(&self, app: &AppName, feedback: &[(i64, Contribution)]) {
        let learned = self.of(app);
        let is_closed = !self.in_sum.staying.lock().is_empty();
        let mut users = learned.users.write();
        for (uid, contribution) in feedback {
            learned.user(&mut users, EVERYBODY).learn(contribution);
            let is_room = !is_closed || users.contains_key(uid) || !self.is_full(users.len());
            if *uid != EVERYBODY && is_room {
                learned.user(&mut users, *uid).learn(contribution);
            }
        }
        learned.publish(&users);
    }

    /// Takes over what an earlier process has kept, if there is room for it.
    pub fn restore(&self, app: &AppName, uid: i64, own: Part) {
        let learned = self.of(app);
        let mut users = learned.users.write();
        if uid != EVERYBODY && self.is_full(users.len()) {
            self.in_sum.beyond.store(true, Relaxed);
            return;
        }
        let state = learned.user(&mut users, uid);
        // Others may have been heard of first.
        state.hear_own(own);
        learned.publish(&users);
    }

    /// A user's state comes back from the store; somebody else leaves for it.
    pub fn bring_back(&self, app: &AppName, uid: i64, own: Part) {
        let learned = self.of(app);
        let mut users = learned.users.write();
        learned.user(&mut users, uid).hear_own(own);
    }

    /// Takes over parts of a user's state that frontends told of; `me` is this one. True if this
    /// one's was newer than what is known.
    pub fn hear(
        &self,
        app: &AppName,
        uid: i64,
        me: &str,
        parts: impl Iterator<Item = (Arc<str>, Part)>,
    ) -> bool {
        let learned = self.of(app);
        let mut was_set_back = false;
        let mut users = learned.users.write();
        if !users.contains_key(&uid) && uid != EVERYBODY && self.is_full(users.len()) {
            self.in_sum.beyond.store(true, Relaxed);
            return false;
        }
        let state = learned.user(&mut users, uid);
        for (from, part) in parts {
            if *from == *me {
                was_set_back |= state.hear_own(part);
            } else {
                state.hear(&from, part);
            }
        }
        learned.publish(&users);
        was_set_back
    }

    /// Whether an application with so many users, everybody's state included, has no room for
    /// another.
    fn is_full(&self, users: usize) -> bool {
        users > self.limits.users || self.users() > self.limits.users_in_sum
    }

    /// Users in memory, everybody's states included.
    #[must_use]
    pub fn users(&self) -> usize {
        usize::try_from(self.in_sum.users.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// The application is gone.
    pub fn forget(&self, app: &AppName) {
        // Actors that still hold it hold nothing.
        if let Some(learned) = self.apps.write().remove(app) {
            learned.everybody.store(Arc::default());
            let users = std::mem::take(&mut *learned.users.write());
            self.in_sum.users.fetch_sub(users.len() as u64, Relaxed);
            *learned.window.lock() = FeedbackWindow::new(self.limits.window);
        }
        let InSum { wanted, untold, unheard, staying, .. } = &*self.in_sum;
        for users in [wanted, untold, unheard, staying] {
            users.lock().retain(|(name, _)| name != app);
        }
    }

    /// Whether the store may know users that are not in memory.
    #[must_use]
    pub fn may_know_more(&self) -> bool {
        self.in_sum.beyond.load(Relaxed)
    }

    /// Users whose states have to leave memory so that the bounds hold: the least recently used.
    #[must_use]
    pub fn too_many(&self) -> Vec<UserOf> {
        let mut leaving = Vec::new();
        let apps: Vec<Arc<AppLearned>> = self.apps.read().values().cloned().collect();
        for app in &apps {
            let users = app.users.read().len().saturating_sub(1);
            if users > self.limits.users {
                let excess = users - self.limits.users + self.limits.users / LEAVING_PART;
                leaving.extend(oldest(app.uses(), excess).into_iter().map(|(_, user)| user));
            }
        }
        let total = self.users().saturating_sub(apps.len()).saturating_sub(leaving.len());
        if total > self.limits.users_in_sum {
            let excess = total - self.limits.users_in_sum + self.limits.users_in_sum / LEAVING_PART;
            let gone: BTreeSet<UserOf> = leaving.iter().cloned().collect();
            let uses = apps.iter().flat_map(|app| app.uses());
            let uses = uses.filter(|(_, user)| !gone.contains(user)).collect();
            leaving.extend(oldest(uses, excess).into_iter().map(|(_, user)| user));
        }
        leaving
    }

    /// Drops users, but for those whose state the store has not.
    pub fn drop_saved(&self, saved: &[UserOf]) -> usize {
        let mut dropped = 0;
        let staying = self.in_sum.staying.lock();
        for (name, uid) in saved.iter().filter(|user| !staying.contains(*user)) {
            let app = self.apps.read().get(name).cloned();
            if app.is_some_and(|app| app.users.write().remove(uid).is_some()) {
                self.in_sum.users.fetch_sub(1, Relaxed);
                self.in_sum.beyond.store(true, Relaxed);
                dropped += 1;
            }
        }
        dropped
    }

    /// Users who were asked about since this was asked last, and are not in memory.
    #[must_use]
    pub fn take_wanted(&self) -> BTreeSet<UserOf> {
        std::mem::take(&mut *self.in_sum.wanted.lock())
    }

    /// The store does not take a user's state: it stays in memory.
    pub fn stay(&self, user: UserOf) {
        self.in_sum.staying.lock().insert(user);
    }

    /// The store has taken these users' states: they may leave.
    pub fn leave(&self, users: &BTreeSet<UserOf>) {
        let mut staying = self.in_sum.staying.lock();
        if !staying.is_empty() {
            staying.retain(|user| !users.contains(user));
        }
    }

    /// What others told of a user is to be asked for.
    pub fn ask_for(&self, user: UserOf) {
        let mut unheard = self.in_sum.unheard.lock();
        if unheard.len() < WANTED_MAX {
            unheard.insert(user);
        }
    }

    /// Users that others are to be asked about.
    #[must_use]
    pub fn take_unheard(&self) -> BTreeSet<UserOf> {
        std::mem::take(&mut *self.in_sum.unheard.lock())
    }

    /// These have been saved, and others are to hear of them.
    pub fn tell_of(&self, users: impl IntoIterator<Item = UserOf>) {
        self.in_sum.untold.lock().extend(users);
    }

    /// Some of those that others are to hear of, `max` at most.
    #[must_use]
    pub fn take_untold(&self, max: usize) -> Vec<UserOf> {
        let mut untold = self.in_sum.untold.lock();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(user) = untold.pop_first()
        {
            taken.push(user);
        }
        taken
    }
}

/// The `count` least recently used.
fn oldest(mut uses: Vec<(u64, UserOf)>, count: usize) -> Vec<(u64, UserOf)> {
    if count < uses.len() {
        uses.select_nth_unstable_by_key(count, |(used, _)| *used);
        uses.truncate(count);
    }
    uses
}

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

    /// The state to change of a user.
    fn user<'u>(&self, users: &'u mut HashMap<i64, User>, uid: i64) -> &'u mut SharedState {
        let now = self.in_sum.uses.fetch_add(1, Relaxed);
        let user = users.entry(uid).or_insert_with(|| {
            self.in_sum.users.fetch_add(1, Relaxed);
            User { state: SharedState::default(), used: AtomicU64::new(now) }
        });
        *user.used.get_mut() = now;
        &mut user.state
    }

    fn publish(&self, users: &HashMap<i64, User>) {
        if let Some(everybody) = users.get(&EVERYBODY) {
            self.everybody.store(Arc::clone(everybody.state.sum()));
        }
    }

    fn uses(&self) -> Vec<(u64, UserOf)> {
        let users = self.users.read();
        let own = users.iter().filter(|(uid, _)| **uid != EVERYBODY);
        own.map(|(uid, user)| (user.used.load(Relaxed), (self.name.clone(), *uid))).collect()
    }

    /// What a user's predictions go by: their own state if their feedback has left one, else
    /// everybody's.
    #[must_use]
    pub fn of_user(&self, uid: i64) -> Arc<SelectionState> {
        self.of_user_alone(uid).unwrap_or_else(|| self.everybody.load_full())
    }

    /// What goes for all who have no state of their own.
    #[must_use]
    pub fn everybody(&self) -> arc_swap::Guard<Arc<SelectionState>> {
        self.everybody.load()
    }

    /// A user's own state.
    #[must_use]
    pub fn of_user_alone(&self, uid: i64) -> Option<Arc<SelectionState>> {
        if uid == EVERYBODY {
            return Some(self.everybody.load_full());
        }
        if let Some(user) = self.users.read().get(&uid) {
            user.used.store(self.in_sum.uses.fetch_add(1, Relaxed), Relaxed);
            return Some(Arc::clone(user.state.sum()));
        }
        if self.in_sum.beyond.load(Relaxed) {
            let mut wanted = self.in_sum.wanted.lock();
            if wanted.len() < WANTED_MAX {
                wanted.insert((self.name.clone(), uid));
            }
        }
        None
    }

    /// What this server's feedback contributed to a user's state.
    #[must_use]
    pub fn own_part(&self, uid: i64) -> Option<Part> {
        self.users.read().get(&uid).map(|user| user.state.own().clone())
    }

    /// Whether a user's state is in memory.
    #[must_use]
    pub fn knows(&self, uid: i64) -> bool {
        self.users.read().contains_key(&uid)
    }
}

#[cfg(test)]
#[path = "learned_states_tests.rs"]
mod tests;
