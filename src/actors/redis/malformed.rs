//! Entries of the tables that mean nothing: somebody else's, or badly written ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::store::redis::tables::Key;
use crate::store::redis::whole::PassedOver;

/// Named one by one in the log between two looks at the whole tables; of more, the number.
const NAMED_MAX: usize = 10;

/// What one connection has passed over, and said of it.
pub(super) struct Malformed {
    metrics: Arc<Metrics>,
    /// Of the last look at the whole tables, and of notices since as far as there is room.
    passed_over: PassedOver,
    named: usize,
    unnamed: usize,
}

impl Malformed {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, passed_over: PassedOver::default(), named: 0, unnamed: 0 }
    }

    /// Whether a key is known to mean nothing. Of more than are kept, only a write of its table's
    /// type, or a look at the whole tables, shows that one means something by now.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.passed_over.examples.contains_key(key)
    }

    pub(super) fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    /// These keys were read, and those in `malformed` mean nothing.
    pub(super) fn read<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k Key>,
        malformed: &BTreeMap<Key, String>,
    ) {
        for key in keys.into_iter().filter(|key| !malformed.contains_key(*key)) {
            if self.passed_over.examples.remove(key).is_some() {
                self.named += 1;
                if self.named <= NAMED_MAX {
                    info!(%key, "an entry in Redis is well-formed again, or gone");
                }
            }
        }
        for (key, reason) in malformed {
            let known = self.passed_over.examples.get(key);
            if known == Some(reason) {
                continue;
            }
            if known.is_some() || self.passed_over.has_room() {
                self.passed_over.examples.insert(key.clone(), reason.clone());
            }
            self.say(key, reason, malformed.len());
        }
        self.count();
    }

    /// Says so of one of `all` that were found together.
    fn say(&mut self, key: &Key, reason: &str, all: usize) {
        if all > NAMED_MAX || self.named >= NAMED_MAX {
            self.unnamed += 1;
            return;
        }
        self.named += 1;
        warn!(%key, reason, "an entry in Redis is passed over until it is fixed");
    }

    /// A key that meant nothing is gone.
    pub(super) fn gone(&mut self, key: &Key) {
        if self.passed_over.examples.remove(key).is_some() {
            self.count();
        }
    }

    /// The whole tables were read: `passed_over` means nothing, nor do entries of the catalog's own
    /// keys in `malformed`. One line for all that is new and not named.
    pub(super) fn read_whole(
        &mut self,
        mut passed_over: PassedOver,
        malformed: &BTreeMap<Key, String>,
    ) {
        passed_over.examples.extend(malformed.iter().map(|(key, why)| (key.clone(), why.clone())));
        let before = std::mem::replace(&mut self.passed_over, passed_over);
        let now = &self.passed_over;
        let (all, others) = (now.count(), now.others.saturating_sub(before.others));
        let is_new = |(key, reason): &(&Key, &String)| before.examples.get(*key) != Some(*reason);
        let new = now.examples.iter().filter(is_new);
        let new: Vec<_> = new.map(|(key, reason)| (key.clone(), reason.clone())).collect();
        for (key, reason) in &new {
            self.say(key, reason, all);
        }
        self.unnamed += others;
        if self.unnamed > 0 {
            let unnamed = self.unnamed;
            let example = self.passed_over.examples.first_key_value();
            let example = example.map(|(key, why)| format!("{key}: {why}"));
            warn!(
                unnamed,
                all, example, "entries in Redis are passed over: others', or badly written ones"
            );
        }
        (self.named, self.unnamed) = (0, 0);
        self.count();
    }

    fn count(&self) {
        self.metrics.redis().malformed.store(self.passed_over.count() as u64, Relaxed);
    }
}
