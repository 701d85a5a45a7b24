//! What applications have learnt, shared through table 1.
//!
//! The default policy's state is a text that never changes: whoever is first writes it. What other
//! policies learn is a row of its own for each application and user, a hash: each frontend writes
//! what its own feedback contributed to a field of its own, and reads all fields. So nobody writes
//! what another has written, and a write that is done twice, late or not at all changes no sum.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tracing::{info, warn};

use crate::actors::plane::learned_states::{LearnedStates, UserOf};
use crate::store::CatalogView;
use crate::store::error::StoreError;
use crate::store::policy_state::{PolicyStateStore, app_of, learned_of};
use crate::store::redis::client::{Link, LinkError};
use crate::store::redis::sums::sums_of;
use crate::store::redis::tables::{Key, Raw, Table};
use crate::store::redis::writes::Write;
use clipper_domain::AppName;
use clipper_selection::shared::Part;

/// A user's policy state that was stored here first: its key and value.
pub(super) type Learnt = (String, String);

/// This server's policy state and the shared one.
pub(super) struct SharedStates {
    states: PolicyStateStore,
    learned: Arc<LearnedStates>,
    view: CatalogView,
    /// This frontend's name.
    me: String,
}

/// The versions of this frontend's parts that the table has.
type Told = HashMap<UserOf, u64>;

/// What the store has.
#[derive(Default)]
struct StoredStates {
    /// Of the default policy.
    texts: Vec<Learnt>,
    /// Users whose parts are newer than what the table has of them.
    untold: Vec<UserOf>,
}

fn kept(states: &PolicyStateStore, told: &Told) -> Result<StoredStates, StoreError> {
    let mut kept = StoredStates::default();
    states.each(|key, value| match learned_of(key) {
        None => kept.texts.push((key.to_owned(), value.to_owned())),
        Some(user) => {
            let version = Part::from_text(value).map_or(0, |part| part.version);
            if told.get(&user).is_none_or(|known| *known < version) {
                kept.untold.push(user);
            }
        }
    })?;
    Ok(kept)
}

impl SharedStates {
    pub(super) fn new(
        states: PolicyStateStore,
        learned: Arc<LearnedStates>,
        view: CatalogView,
        me: String,
    ) -> Self {
        Self { states, learned, view, me }
    }

    /// Takes over what the table has, and shares what it has not: that was stored here while Redis
    /// was away, or the table was lost.
    pub(super) async fn join(&self, link: &mut Link) -> Result<(), LinkError> {
        let there = link.keys(Table::State, None, |key| self.is_ours(key)).await?;
        let told = self.look(link, &there).await?;
        let states = self.states.clone();
        let read = tokio::task::spawn_blocking(move || kept(&states, &told)).await;
        let failed = |e: &dyn std::fmt::Display| LinkError::Failed(format!("policy state: {e}"));
        let kept = read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        self.learned.tell_of(kept.untold);
        let texts = kept.texts.into_iter();
        let texts = texts.map(|(key, value)| (Key::new(Table::State, &key), value));
        let untold = texts.filter(|(key, _)| !there.contains(key) && self.is_ours(key));
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
    ) -> Result<Told, LinkError> {
        let ours = keys.iter().filter(|key| self.is_ours(key)).cloned();
        let (sums, texts): (BTreeSet<Key>, BTreeSet<Key>) =
            ours.partition(|key| sums_of(key).is_some());
        let (entries, _) = link.read(&texts).await?;
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
        self.hear(link, &sums).await
    }

    /// Takes over what frontends have learned.
    async fn hear(&self, link: &mut Link, keys: &BTreeSet<Key>) -> Result<Told, LinkError> {
        let mut told = Told::new();
        for (key, raw) in link.read_hashes(keys).await? {
            let (Some((app, uid)), Raw::Hash(fields)) = (sums_of(&key), raw) else { continue };
            let mut parts = Vec::with_capacity(fields.len());
            for (from, text) in fields {
                let (from, text) = (String::from_utf8_lossy(&from), String::from_utf8_lossy(&text));
                match Part::from_text(&text) {
                    Ok(part) => {
                        if *from == self.me {
                            told.insert((app.clone(), uid), part.version);
                        }
                        parts.push((Arc::<str>::from(&*from), part));
                    }
                    Err(error) => warn!(%key, %from, %error, "policy state that cannot be read"),
                }
            }
            if self.learned.hear(&app, uid, &self.me, parts.into_iter()) {
                info!(%app, uid, "policy state here was older than in Redis: taken over");
            }
        }
        Ok(told)
    }

    /// Puts what was stored here first into the shared table.
    pub(super) async fn tell(&self, link: &mut Link, learnt: &[Learnt]) -> Result<(), LinkError> {
        let write = |(key, value): &Learnt| Write::one(Key::new(Table::State, key), "SETNX", value);
        link.write_soft(&learnt.iter().map(write).collect::<Vec<_>>()).await
    }

    /// Writes what feedback has contributed here, of at most `max` users; and reads what others
    /// told of users who came back into memory.
    pub(super) async fn share(&self, link: &mut Link, max: usize) -> Result<(), LinkError> {
        let users = self.learned.take_untold(max);
        let write = |(app, uid): &UserOf| {
            let key = Key::sums(app, *uid);
            let own = self.learned.of(app).own_part(*uid).map(|own| own.to_text());
            // Who has left memory has been saved.
            let own = own.or_else(|| self.states.learned(app, *uid))?;
            let args = vec![self.me.clone().into_bytes(), own.into_bytes()];
            self.is_ours(&key).then_some(Write { key, command: "HSET", args })
        };
        let writes: Vec<Write> = users.iter().filter_map(write).collect();
        if let Err(error) = link.write_soft(&writes).await {
            self.learned.tell_of(users);
            return Err(error);
        }
        let unheard = self.learned.take_unheard();
        let keys = unheard.iter().map(|(app, uid)| Key::sums(app, *uid)).collect();
        self.hear(link, &keys).await.map(|_| ())
    }

    /// Removes that of all users of an application.
    pub(super) async fn forget(&self, link: &mut Link, app: &AppName) -> Result<(), LinkError> {
        let escape = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") };
        let pattern: String = app.as_str().chars().map(escape).chain([":*".to_owned()]).collect();
        let keys = link.keys(Table::State, Some(&pattern), |_| true).await?;
        let writes: Vec<Write> = keys.into_iter().map(|key| Write::bare(key, "DEL")).collect();
        link.write_soft(&writes).await
    }
}
