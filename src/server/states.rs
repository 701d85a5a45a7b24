//! What applications have learnt, between the query frontend and the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use crate::actors::apps::keeping::FeedbackLog;
use crate::actors::plane::learned_states::LearnedStates;
use crate::actors::redis::watcher::RedisMetadata;
use crate::http::management::ports::PolicyStates;
use crate::metrics::Unsaved;
use crate::store::policy_state::{self, DefaultPolicyState, PolicyStateStore, Put};
use clipper_domain::AppName;
use clipper_domain::rollout::progress::LiveProgress;
use clipper_selection::shared::Part;

/// Policy state: the default policy's is `{"y_hat":"<default output>"}`, as in the original.
pub(super) struct States {
    store: PolicyStateStore,
    /// What policies have learned.
    pub(super) learned: Arc<LearnedStates>,
    /// With Redis, where others hear of it.
    shared: Option<RedisMetadata>,
}

impl FeedbackLog for States {
    fn record(&self, app: &AppName, uid: i64, initial: &str) {
        let state = DefaultPolicyState::text(initial);
        match self.store.put_if_absent(app, uid, &state) {
            Ok(Put::Stored) => {
                if let Some(shared) = &self.shared {
                    shared.learnt(policy_state::key(app, uid), state);
                }
            }
            Ok(Put::Present) => {}
            Ok(Put::Full | Put::TooLong) => warn!(%app, uid, "no room for a user's policy state"),
            Err(error) => warn!(%app, uid, %error, "a user's policy state cannot be kept"),
        }
    }

    fn save(&self, app: &AppName, uid: i64, own: &Part) -> Result<(), Unsaved> {
        let text = own.to_text();
        let (why, limit) = match self.store.replace(&policy_state::learned_key(app, uid), &text) {
            Ok(Put::Stored | Put::Present) => return Ok(()),
            Ok(Put::Full) => (Unsaved::Full, "journal.policy_state_max_entries"),
            Ok(Put::TooLong) => (Unsaved::TooLong, "journal.policy_state_max_bytes"),
            Err(error) => {
                warn!(%app, uid, %error, "what feedback has left cannot be kept");
                return Err(Unsaved::Failed);
            }
        };
        let bytes = text.len();
        warn!(%app, uid, bytes, limit, "what feedback has left with a user is not saved");
        Err(why)
    }

    fn load(&self, app: &AppName, uid: i64) -> Option<Part> {
        read(app, uid, &self.store.learned(app, uid)?)
    }

    fn flush(&self) -> bool {
        let flushed = self.store.flush();
        flushed.inspect_err(|error| warn!(%error, "policy state was not flushed")).is_ok()
    }

    fn settle(&self) -> bool {
        let settled = self.store.settle();
        settled.inspect_err(|error| warn!(%error, "policy state stays in its log")).unwrap_or(false)
    }

    fn forget(&self, app: &AppName) {
        if let Err(error) = self.store.forget(app) {
            warn!(%app, %error, "policy state of a deleted application stays");
        }
    }

    fn apps(&self) -> BTreeSet<AppName> {
        let mut names = BTreeSet::new();
        let read = self.store.each(|key, _| {
            if let Some(name) = policy_state::owner_of(key)
                && !names.contains(name)
            {
                names.insert(name.to_owned());
            }
        });
        if let Err(error) = read {
            warn!(%error, "policy state cannot be read");
        }
        names.iter().filter_map(|name| AppName::parse(name).ok()).collect()
    }
}

impl States {
    /// With what an earlier process has kept.
    pub(super) fn restored(
        store: PolicyStateStore,
        learned: &Arc<LearnedStates>,
        shared: Option<&RedisMetadata>,
    ) -> Arc<Self> {
        let states = Self { store, learned: Arc::clone(learned), shared: shared.cloned() };
        states.restore();
        Arc::new(states)
    }

    fn restore(&self) {
        let read = self.store.each(|key, value| {
            let Some((app, uid)) = policy_state::learned_of(key) else { return };
            if let Some(own) = read(&app, uid, value) {
                self.learned.restore(&app, uid, own);
            }
        });
        if let Err(error) = read {
            warn!(%error, "policy state cannot be read");
        }
    }
}

fn read(app: &AppName, uid: i64, text: &str) -> Option<Part> {
    let part = Part::from_text(text);
    part.inspect_err(|error| warn!(%app, uid, %error, "what feedback has left cannot be read")).ok()
}

impl PolicyStates for States {
    fn get(&self, app: &str, uid: i64) -> Option<String> {
        let state = self.store.get(&AppName::parse(app).ok()?, uid)?;
        serde_json::from_str::<DefaultPolicyState>(&state).ok().map(|state| state.y_hat)
    }

    fn learned(&self, app: &str, uid: i64) -> Option<String> {
        let app = AppName::parse(app).ok()?;
        let learned = self.learned.of(&app);
        // Who has left memory is on the disk, and is on the way back now.
        let kept = || {
            let may_be = self.learned.may_know_more();
            may_be.then(|| FeedbackLog::load(self, &app, uid)).flatten().map(|own| own.state)
        };
        let state =
            learned.of_user_alone(uid).or_else(kept).unwrap_or_else(|| learned.of_user(uid));
        serde_json::to_string(&*state).ok()
    }

    fn rollout(&self, app: &str, id: u64) -> Option<LiveProgress> {
        let latest = self.learned.of(&AppName::parse(app).ok()?).latest_rollout()?;
        if latest.id == id { latest.progress() } else { None }
    }
}
