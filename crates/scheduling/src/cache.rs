//! The prediction cache: finished outputs within a byte bound, and unfinished flights.
//!
//! Equal queries share one flight while it runs and its output afterwards. Keys are compared in
//! full, not by hash. The bound counts the bytes of keys and outputs and a fixed cost per entry.
//! Shared by all threads, so that a hit is answered without leaving the HTTP worker it came in on.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};

use super::cache_key::CacheKey;
use super::flight::{Flight, Waiter};
use super::output::Output;
use super::ticket::{Answer, DefaultReason};
use clipper_clock::Instant;
use clipper_domain::Input;

/// Bytes that one entry costs besides its key and output, about: two `Bytes` handles, the hash, the
/// bookkeeping of map and eviction.
const ENTRY_OVERHEAD_BYTES: u64 = 160;
/// Locks that unfinished flights are spread over.
const PENDING_SHARDS: usize = 64;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<CacheKey, Output> for ByBytes {
    fn weight(&self, key: &CacheKey, output: &Output) -> u64 {
        key.input.0.len() as u64 + output.bytes() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

type Ready = Cache<CacheKey, Output, ByBytes>;
/// By the hash of their keys, which each flight holds itself.
type PendingShard = Mutex<HashTable<Arc<Flight>>>;

/// What a look-up found.
#[derive(Debug)]
pub enum Lookup {
    /// A finished output; the waiter was not needed.
    Hit(Output),
    /// An unfinished flight; the waiter now waits for it too. The flight is handed back so that an
    /// earlier deadline can be queued.
    Joined(Arc<Flight>),
    /// Nothing: a new flight with this waiter, to be queued.
    Miss(Arc<Flight>),
}

/// The cache. Size 0 turns it off, sharing of flights included.
pub struct PredictionCache {
    ready: Option<Ready>,
    pending: Vec<PendingShard>,
    hasher: DefaultHashBuilder,
}

impl std::fmt::Debug for PredictionCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PredictionCache({} of {} bytes)", self.bytes(), self.max_bytes())
    }
}

impl PredictionCache {
    /// A cache bounded to `max_bytes`; 0 = off.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let ready = (max_bytes > 0).then(|| {
            let typical_entry_bytes = 512;
            let items = usize::try_from(max_bytes / typical_entry_bytes).unwrap_or(usize::MAX);
            Cache::with_weighter(items.clamp(16, 1 << 20), max_bytes, ByBytes)
        });
        let pending = (0..PENDING_SHARDS).map(|_| Mutex::default()).collect();
        Self { ready, pending, hasher: DefaultHashBuilder::default() }
    }

    /// Bytes held, by the accounting of the module's description.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ready.as_ref().map_or(0, Cache::weight)
    }

    /// The bound; 0 = off.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.ready.as_ref().map_or(0, Cache::capacity)
    }

    /// Flights that have not ended.
    #[must_use]
    pub fn flights(&self) -> usize {
        self.pending.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The key of an input to the model version with this serial number.
    #[must_use]
    pub fn key(&self, model: u64, input: Input) -> CacheKey {
        let digest = self.digest(&input);
        self.key_by(digest, model, input)
    }

    /// What takes long about the key of a large input.
    #[must_use]
    pub fn digest(&self, input: &Input) -> u64 {
        self.hasher.hash_one(&input.0[..])
    }

    /// [`Self::key`] of an input whose digest is known.
    #[must_use]
    pub fn key_by(&self, digest: u64, model: u64, input: Input) -> CacheKey {
        let hash = self.hasher.hash_one((model, digest));
        CacheKey { model, input, hash }
    }

    /// The finished output for `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<Output> {
        self.ready.as_ref()?.get(key)
    }

    /// Finds or starts the computation of `key`, which [`Self::get`] has just not found.
    #[must_use]
    pub fn lookup(&self, key: CacheKey, arrived: Instant, waiter: Waiter) -> Lookup {
        let Some(ready) = &self.ready else {
            return Lookup::Miss(Flight::new(key, arrived, waiter));
        };
        let mut pending = self.shard(&key).lock();
        let waiter = match pending.find_entry(key.hash, |flight| flight.key == key) {
            Ok(found) => match found.get().join(waiter, arrived) {
                Ok(()) => return Lookup::Joined(Arc::clone(found.get())),
                Err(waiter) => {
                    found.remove();
                    waiter
                }
            },
            // It may have landed since the caller looked; landing takes this lock after the insert.
            Err(_) => match ready.get(&key) {
                Some(output) => return Lookup::Hit(output),
                None => waiter,
            },
        };
        let flight = Flight::new(key, arrived, waiter);
        pending.insert_unique(flight.key.hash, Arc::clone(&flight), |flight| flight.key.hash);
        Lookup::Miss(flight)
    }

    /// Ends a flight with a model's output, which later equal queries find.
    pub fn land(&self, flight: &Arc<Flight>, output: Output) {
        if let Some(ready) = self.ready.as_ref().filter(|_| flight.is_shared) {
            ready.insert(flight.key.clone(), output.clone());
            self.forget(flight);
        }
        flight.end(&Answer::Output(output));
    }

    /// Ends a flight without an output. Nothing of it stays behind.
    pub fn abort(&self, flight: &Arc<Flight>, reason: DefaultReason) {
        self.forget(flight);
        flight.end(&Answer::Default(reason));
    }

    /// Drops every output of a retired model version.
    pub fn retire(&self, model: u64) {
        if let Some(ready) = &self.ready {
            ready.retain(|key, _| key.model != model);
        }
    }

    /// Drops flights that wait although nobody waits for them any more: those that a dying actor
    /// lost with its mailbox.
    pub fn forget_lost(&self, now: Instant) {
        for shard in &self.pending {
            shard.lock().retain(|flight| !flight.is_forgotten(now));
        }
    }

    fn shard(&self, key: &CacheKey) -> &PendingShard {
        let shards = self.pending.len() as u64;
        // The high bits: the map inside uses the low ones.
        let index = usize::try_from((key.hash >> 32) % shards).unwrap_or(0);
        &self.pending[index]
    }

    fn forget(&self, flight: &Arc<Flight>) {
        let mut pending = self.shard(&flight.key).lock();
        let same = |found: &Arc<Flight>| Arc::ptr_eq(found, flight);
        if let Ok(found) = pending.find_entry(flight.key.hash, same) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::Ticket;
    use clipper_clock as clock;

    #[test]
    fn line_20_what_is_computed_for_one_query_alone_is_not_kept() {
        let cache = PredictionCache::new(1 << 20);
        let now = clock::now();
        let key = || cache.key(1, Input((*b"x").into()));
        let waiter = |ticket: &Ticket| Waiter { slot: ticket.slot(0), deadline: now };
        let output = Output::from_text(b"7").unwrap();
        let ticket = Ticket::new(1, 0);
        cache.land(&Flight::alone(key(), now, waiter(&ticket)), output.clone());
        assert_eq!(ticket.close().unwrap().answers.as_slice(), [Answer::Output(output.clone())]);
        assert_eq!(cache.get(&key()), None);
        let ticket = Ticket::new(1, 1);
        let Lookup::Miss(flight) = cache.lookup(key(), now, waiter(&ticket)) else { panic!() };
        cache.land(&flight, output.clone());
        assert_eq!(cache.get(&key()), Some(output));
    }
}
