//! What applications have learnt, between the query frontend and the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use crate::actors::apps::feedback::FeedbackLog;
use crate::actors::plane::learned_states::LearnedStates;
use crate::actors::redis::watcher::RedisMetadata;
use crate::http::management::ports::PolicyStates;
use crate::store::policy_state::{self, PolicyStateStore, Put};
use clipper_domain::AppName;
use clipper_domain::rollout::progress::LiveProgress;
use clipper_selection::state::SelectionState;

/// Policy state: the default policy's is `{"y_hat":"<default output>"}`, as in the original.
pub(super) struct States {
    store: PolicyStateStore,
    /// What policies have learned.
    pub(super) learned: Arc<LearnedStates>,
    /// With Redis, where others hear of it.
    shared: Option<RedisMetadata>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct DefaultPolicyState {
    y_hat: String,
}

impl FeedbackLog for States {
    fn record(&self, app: &AppName, uid: i64, initial: &str) {
        let state = DefaultPolicyState { y_hat: initial.to_owned() };
        let Ok(state) = serde_json::to_string(&state) else { return };
        match self.store.put_if_absent(app, uid, &state) {
            Ok(Put::Stored) => {
                if let Some(shared) = &self.shared {
                    shared.learnt(policy_state::key(app, uid), state);
                }
            }
            Ok(Put::Present) => {}
            Ok(Put::Full) => warn!(%app, uid, "no room for a user's policy state"),
            Err(error) => warn!(%app, uid, %error, "a user's policy state cannot be kept"),
        }
    }

    fn save(&self, app: &AppName, uid: i64, state: &SelectionState) {
        let Ok(text) = serde_json::to_string(state) else { return };
        match self.store.replace(&policy_state::learned_key(app, uid), &text) {
            Ok(Put::Stored | Put::Present) => {}
            Ok(Put::Full) => warn!(%app, uid, "no room for what feedback has left with a user"),
            Err(error) => warn!(%app, uid, %error, "what feedback has left cannot be kept"),
        }
    }

    fn forget(&self, app: &AppName) {
        if let Err(error) = self.store.forget(app) {
            warn!(%app, %error, "policy state of a deleted application stays");
        }
    }

    fn apps(&self) -> BTreeSet<AppName> {
        let keys = self.kept_keys();
        let names = keys.iter().filter_map(|key| policy_state::owner_of(key));
        names.filter_map(|name| AppName::parse(name).ok()).collect()
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
        for (key, value) in self.store.all().unwrap_or_default() {
            let Some((app, uid)) = policy_state::learned_of(&key) else { continue };
            match serde_json::from_str(&value) {
                Ok(state) => self.learned.restore(&app, uid, state),
                Err(error) => warn!(%app, uid, %error, "what feedback has left cannot be read"),
            }
        }
    }

    fn kept_keys(&self) -> Vec<String> {
        let all = self.store.all().unwrap_or_else(|error| {
            warn!(%error, "policy state cannot be read");
            Vec::new()
        });
        all.into_iter().map(|(key, _)| key).collect()
    }
}

impl PolicyStates for States {
    fn get(&self, app: &str, uid: i64) -> Option<String> {
        let state = self.store.get(&AppName::parse(app).ok()?, uid)?;
        serde_json::from_str::<DefaultPolicyState>(&state).ok().map(|state| state.y_hat)
    }

    fn learned(&self, app: &str, uid: i64) -> Option<String> {
        let state = self.learned.of(&AppName::parse(app).ok()?).of_user(uid);
        serde_json::to_string(&*state).ok()
    }

    fn rollout(&self, app: &str, id: u64) -> Option<LiveProgress> {
        let latest = self.learned.of(&AppName::parse(app).ok()?).latest_rollout()?;
        if latest.id == id { latest.progress() } else { None }
    }
}
