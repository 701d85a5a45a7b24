//! What applications have learnt, shared through table 1.

use std::collections::BTreeSet;

use tracing::warn;

use crate::store::CatalogView;
use crate::store::policy_state::{PolicyStateStore, app_of};
use crate::store::redis::client::{Link, LinkError};
use crate::store::redis::tables::{Key, Raw, Table};
use crate::store::redis::writes::Write;
use clipper_domain::AppName;

/// A user's policy state that was stored here first: its key and value.
pub(super) type Learnt = (String, String);

/// This server's policy state and the shared one.
pub(super) struct SharedStates {
    states: PolicyStateStore,
    view: CatalogView,
}

impl SharedStates {
    pub(super) fn new(states: PolicyStateStore, view: CatalogView) -> Self {
        Self { states, view }
    }

    /// Takes over what the table has, and shares what it has not: that was stored here while Redis
    /// was away, or the table was lost.
    pub(super) async fn join(&self, link: &mut Link) -> Result<(), LinkError> {
        let there = link.keys(Table::State, None).await?;
        self.look(link, &there).await?;
        let failed = |e| LinkError::Failed(format!("policy state: {e}"));
        let kept = self.states.all().map_err(failed)?;
        let kept = kept.into_iter().map(|(key, value)| (Key::new(Table::State, &key), value));
        let untold = kept.filter(|(key, _)| !there.contains(key) && self.is_ours(key));
        let writes: Vec<Write> =
            untold.map(|(key, value)| Write::one(key, "SETNX", &value)).collect();
        link.write_soft(&writes).await
    }

    /// Whether a key is about an application that there is; the rest is somebody else's.
    pub(super) fn is_ours(&self, key: &Key) -> bool {
        let name = std::str::from_utf8(&key.name).ok();
        name.and_then(app_of).is_some_and(|app| self.view.read().app(app).is_some())
    }

    /// Takes over what others have stored.
    pub(super) async fn look(
        &self,
        link: &mut Link,
        keys: &BTreeSet<Key>,
    ) -> Result<(), LinkError> {
        let ours = keys.iter().filter(|key| self.is_ours(key)).cloned().collect();
        let (entries, _) = link.read(&ours).await?;
        for (key, raw) in entries {
            let value = match &raw {
                Raw::Text(value) => std::str::from_utf8(value).ok(),
                _ => None,
            };
            let Ok(name) = std::str::from_utf8(&key.name) else { continue };
            if let Err(error) = self.states.follow(name, value) {
                warn!(%key, %error, "policy state of others cannot be kept");
            }
        }
        Ok(())
    }

    /// Puts what was stored here first into the shared table.
    pub(super) async fn tell(&self, link: &mut Link, learnt: &[Learnt]) -> Result<(), LinkError> {
        let write = |(key, value): &Learnt| Write::one(Key::new(Table::State, key), "SETNX", value);
        link.write_soft(&learnt.iter().map(write).collect::<Vec<_>>()).await
    }

    /// Removes that of all users of an application.
    pub(super) async fn forget(&self, link: &mut Link, app: &AppName) -> Result<(), LinkError> {
        let escape = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") };
        let pattern: String = app.as_str().chars().map(escape).chain([":*".to_owned()]).collect();
        let keys = link.keys(Table::State, Some(&pattern)).await?;
        let writes: Vec<Write> = keys.into_iter().map(|key| Write::bare(key, "DEL")).collect();
        link.write_soft(&writes).await
    }
}
