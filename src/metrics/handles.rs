//! What hot paths hold: counters of one application or one model version, found once.
//!
//! Every per-query call is a few relaxed atomic additions: no lock, no allocation, no text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use clipper_clock as clock;
use clipper_domain::{AppName, Limits, Outcome, ReplicaId};
use clipper_scheduling::quota::{Quota, Whose};

use super::exemplars::Exemplars;
use super::histogram::{Histogram, micros};
use super::meter::{Meter, Rates};
use super::policy::PolicyMetrics;
use super::recent::RecentBatches;
use super::rollout::RolloutMetrics;

/// Replicas of one model version that have series of their own; the oldest give way.
pub const REPLICA_SERIES_MAX: usize = 256;

/// Handles of one application, resolved once.
#[derive(Debug)]
pub struct AppMetrics {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// What its policy does.
    pub policy: PolicyMetrics,
    pub rollout: RolloutMetrics,
    pub(super) rejected: AtomicU64,
    pub(super) latency: Histogram,
    /// Requests of its buckets.
    pub exemplars: Exemplars,
    /// Microseconds.
    pub(super) objective: AtomicU64,
    /// What its clients ask for, where that is limited.
    pub(super) quota: RwLock<Option<Arc<Quota>>>,
    meter: Mutex<Meter>,
}

impl Default for AppMetrics {
    fn default() -> Self {
        Self {
            outcomes: Default::default(),
            policy: PolicyMetrics::default(),
            rollout: RolloutMetrics::default(),
            rejected: AtomicU64::new(0),
            latency: Histogram::default(),
            exemplars: Exemplars::default(),
            objective: AtomicU64::new(0),
            quota: RwLock::default(),
            meter: Mutex::new(Meter::new(clock::now())),
        }
    }
}

impl AppMetrics {
    /// Answered queries that ended alike, and the time from their arrival to their answer.
    pub fn answered(&self, outcome: Outcome, queries: usize, latency: Duration) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(queries as u64, Relaxed);
        }
        self.latency.record_n(micros(latency), queries as u64);
    }

    /// The application's objective is this from now on.
    pub fn set_objective(&self, objective: Duration) {
        self.objective.store(micros(objective), Relaxed);
    }

    /// Its clients may ask for so much from now on; what all workers count it by.
    pub fn limit(&self, name: &AppName, limits: Limits) -> Option<Arc<Quota>> {
        let mut quota = self.quota.write();
        *quota = match quota.take() {
            _ if limits.is_none() => None,
            Some(quota) if *quota.limits() == limits => Some(quota),
            Some(quota) => Some(quota.with(limits)),
            None => Some(Quota::new(Whose::App(name.clone()), limits, clock::now())),
        };
        quota.clone()
    }

    /// One request refused with a 4xx.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// How many queries ended so.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// All answered queries.
    #[must_use]
    pub fn predictions(&self) -> u64 {
        self.outcomes.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(super) fn tick(&self, now: clock::Instant) -> Rates {
        tick(&self.meter, now, self.predictions())
    }
}

/// Handles of one model version, resolved once.
#[derive(Debug)]
pub struct ModelMetrics {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    /// Send to answer, once for each query of a batch.
    pub(super) query_latency: Histogram,
    /// Send to answer, once for each batch.
    pub(super) batch_latency: Histogram,
    pub(super) batch_size: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) skipped: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) hedged: AtomicU64,
    pub(super) poisonous: AtomicU64,
    pub(super) queue_depth: AtomicU64,
    pub(super) replicas: AtomicU64,
    pub(super) stray_answers: AtomicU64,
    pub(super) model_errors: AtomicU64,
    pub(super) child_starts: AtomicU64,
    by_replica: RwLock<BTreeMap<ReplicaId, Arc<ReplicaMetrics>>>,
    pub(super) recent: RecentBatches,
    meter: Mutex<Meter>,
}

/// How often something took time, and how much in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// In all.
    pub micros: u64,
}

/// What a model version has done since it was registered, in queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelCounts {
    /// Answered from the prediction cache.
    pub hits: u64,
    /// Not answered from it.
    pub misses: u64,
    /// Answered by replicas, also with an error.
    pub queries: u64,
    /// Answered with an error.
    pub errors: u64,
    /// In batches.
    pub batches: u64,
    /// Before they were sent.
    pub queued: Times,
    /// From sending to the answer.
    pub computed: Times,
}

/// Counters of one replica.
#[derive(Debug, Default)]
pub(super) struct ReplicaMetrics {
    pub(super) batches: AtomicU64,
    pub(super) predictions: AtomicU64,
    /// Microseconds from send to answer, all batches.
    pub(super) busy: AtomicU64,
}

impl ReplicaMetrics {
    fn batch(&self, size: u64, micros: u64) {
        self.batches.fetch_add(1, Relaxed);
        self.predictions.fetch_add(size, Relaxed);
        self.busy.fetch_add(micros, Relaxed);
    }
}

impl Default for ModelMetrics {
    fn default() -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            query_latency: Histogram::default(),
            batch_latency: Histogram::default(),
            batch_size: Histogram::default(),
            queue_wait: Histogram::default(),
            skipped: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            hedged: AtomicU64::new(0),
            poisonous: AtomicU64::new(0),
            queue_depth: AtomicU64::new(0),
            replicas: AtomicU64::new(0),
            stray_answers: AtomicU64::new(0),
            model_errors: AtomicU64::new(0),
            child_starts: AtomicU64::new(0),
            by_replica: RwLock::default(),
            recent: RecentBatches::default(),
            meter: Mutex::new(Meter::new(clock::now())),
        }
    }
}

impl ModelMetrics {
    /// Queries that reached this model: answered from the prediction cache, or not because the
    /// cache is off, has no answer, or an equal query is already under way.
    pub fn cache_lookups(&self, hits: usize, misses: usize) {
        for (count, queries) in [(&self.hits, hits), (&self.misses, misses)] {
            if queries > 0 {
                count.fetch_add(queries as u64, Relaxed);
            }
        }
    }

    /// So many queries answered by a replica with an error of its model.
    pub fn model_errors(&self, queries: usize) {
        self.model_errors.fetch_add(queries as u64, Relaxed);
    }

    /// One batch answered by a replica: its size, and the time from send to answer.
    pub fn batch_answered(&self, replica: ReplicaId, size: usize, latency: Duration) {
        let (size, latency) = (size as u64, micros(latency));
        self.batch_size.record(size);
        self.batch_latency.record(latency);
        self.recent.note(size, latency);
        self.query_latency.record_n(latency, size);
        // Once a batch, not once a query; only a replica's first batch and its end take the lock
        // for writing.
        if let Some(metrics) = self.by_replica.read().get(&replica) {
            metrics.batch(size, latency);
            return;
        }
        let mut replicas = self.by_replica.write();
        replicas.entry(replica).or_default().batch(size, latency);
        while replicas.len() > REPLICA_SERIES_MAX {
            replicas.pop_first();
        }
    }

    /// Forgets a gone replica's series; call it after its last [`Self::batch_answered`].
    pub fn remove_replica(&self, replica: ReplicaId) {
        self.by_replica.write().remove(&replica);
    }

    /// Time that queries which arrived together spent in the queue.
    pub fn queued(&self, queries: usize, wait: Duration) {
        self.queue_wait.record_n(micros(wait), queries as u64);
    }

    /// Queries skipped at dequeue: expired, or nobody waits any more.
    pub fn skipped(&self, queries: usize) {
        self.skipped.fetch_add(queries as u64, Relaxed);
    }

    /// Queries sent to a second replica because their first one is slow.
    pub fn hedged(&self, queries: usize) {
        self.hedged.fetch_add(queries as u64, Relaxed);
    }

    /// Queries refused because their input has killed replicas.
    pub fn poisonous(&self, queries: usize) {
        self.poisonous.fetch_add(queries as u64, Relaxed);
    }

    /// Queries put back into the queue after their replica died or hung.
    pub fn retried(&self, queries: usize) {
        self.retried.fetch_add(queries as u64, Relaxed);
    }

    /// Queries waiting now.
    pub fn set_queue_depth(&self, queries: usize) {
        self.queue_depth.store(queries as u64, Relaxed);
    }

    /// Replicas that get queries now.
    pub fn set_replicas(&self, replicas: usize) {
        self.replicas.store(replicas as u64, Relaxed);
    }

    /// An answer with an unknown or repeated message id; ignored.
    pub fn stray_answer(&self) {
        self.stray_answers.fetch_add(1, Relaxed);
    }

    /// Queries answered by replicas.
    #[must_use]
    pub fn predictions(&self) -> u64 {
        self.batch_size.sum()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> ModelCounts {
        let of = |times: &Histogram| Times { count: times.snapshot().count, micros: times.sum() };
        ModelCounts {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            queries: self.predictions(),
            errors: self.model_errors.load(Relaxed),
            batches: self.batch_size.snapshot().count,
            queued: of(&self.queue_wait),
            computed: of(&self.query_latency),
        }
    }

    pub(super) fn by_replica(&self) -> BTreeMap<ReplicaId, Arc<ReplicaMetrics>> {
        self.by_replica.read().clone()
    }

    pub(super) fn tick(&self, now: clock::Instant) -> Rates {
        tick(&self.meter, now, self.predictions())
    }
}

/// Moves a meter to `now` and reads it.
pub(super) fn tick(meter: &Mutex<Meter>, now: clock::Instant, total: u64) -> Rates {
    let mut meter = meter.lock();
    meter.advance(now, total);
    meter.rates(now, total)
}
