//! Entries of the tables that mean nothing: somebody else's, or badly written ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::store::redis::tables::Key;

/// Named one by one in the log between two looks at the whole tables; of more, the number.
const NAMED_MAX: usize = 10;

/// What one connection has passed over.
pub(super) struct Malformed {
    metrics: Arc<Metrics>,
    entries: BTreeMap<Key, String>,
    named: usize,
    unnamed: usize,
}

impl Malformed {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, entries: BTreeMap::new(), named: 0, unnamed: 0 }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// These keys were read, and those in `malformed` mean nothing.
    pub(super) fn read<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k Key>,
        malformed: &BTreeMap<Key, String>,
    ) {
        for key in keys {
            if !malformed.contains_key(key) && self.entries.remove(key).is_some() {
                self.named += 1;
                if self.named <= NAMED_MAX {
                    info!(%key, "an entry in Redis is well-formed again, or gone");
                }
            }
        }
        for (key, reason) in malformed {
            if self.entries.get(key) == Some(reason) {
                continue;
            }
            self.entries.insert(key.clone(), reason.clone());
            if malformed.len() > NAMED_MAX || self.named >= NAMED_MAX {
                self.unnamed += 1;
                continue;
            }
            self.named += 1;
            warn!(%key, reason, "an entry in Redis is passed over until it is fixed");
        }
        self.count();
    }

    /// A key that meant nothing is gone.
    pub(super) fn gone(&mut self, key: &Key) {
        if self.entries.remove(key).is_some() {
            self.count();
        }
    }

    /// The whole tables are about to be read: what was passed over is looked at again.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
    }

    /// The whole tables were read: one line for all that was not named.
    pub(super) fn summarise(&mut self) {
        if self.unnamed > 0 {
            let (unnamed, all) = (self.unnamed, self.entries.len());
            let example = self.entries.first_key_value().map(|(key, why)| format!("{key}: {why}"));
            warn!(
                unnamed,
                all, example, "entries in Redis are passed over: others', or badly written ones"
            );
        }
        (self.named, self.unnamed) = (0, 0);
    }

    fn count(&self) {
        self.metrics.redis().malformed.store(self.entries.len() as u64, Relaxed);
    }
}
