//! What one look at the counters gives, for pictures of a moment and of what came between two.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use clipper_domain::{AppName, ModelId, ModelName, Outcome, ReplicaId};

use super::handles::{AppMetrics, ModelMetrics};
use super::registry::Metrics;

/// Bounds of the latencies of a look, microseconds. Percentiles between two of them lie on a line.
pub const LOOK_BOUNDS_US: [u64; 36] = [
    50,
    100,
    150,
    200,
    300,
    500,
    700,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    7_000,
    10_000,
    15_000,
    20_000,
    30_000,
    40_000,
    50_000,
    70_000,
    100_000,
    150_000,
    200_000,
    300_000,
    400_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
];

/// What an application has counted so far, or between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLook {
    /// Answers by how they ended, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    pub rejected: u64,
    /// Answers up to each of [`LOOK_BOUNDS_US`].
    pub latency: [u64; LOOK_BOUNDS_US.len()],
}

impl Default for AppLook {
    fn default() -> Self {
        let (outcomes, latency) = ([0; Outcome::ALL.len()], [0; LOOK_BOUNDS_US.len()]);
        Self { outcomes, rejected: 0, latency }
    }
}

impl AppLook {
    /// All answers.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).copied().unwrap_or(0)
    }

    /// What came after `before`; everything, if counting began anew meanwhile.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.answered() < before.answered() {
            return self.clone();
        }
        let mut since = self.clone();
        let both = since.outcomes.iter_mut().zip(&before.outcomes);
        for (now, then) in both.chain(since.latency.iter_mut().zip(&before.latency)) {
            *now = now.saturating_sub(*then);
        }
        since.rejected = since.rejected.saturating_sub(before.rejected);
        since
    }

    /// The latency that this percentage of answers stays within, microseconds; `None` without any.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let all = self.latency.last().copied().filter(|all| *all > 0)?;
        let rank = (all * percent).div_ceil(100).max(1);
        let (mut lower, mut below) = (0, 0);
        for (bound, count) in LOOK_BOUNDS_US.iter().zip(self.latency) {
            if count >= rank {
                let part = (rank - below) as f64 / (count - below) as f64;
                let inside = (bound - lower) as f64 * part;
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a part"
                )]
                return Some(lower + inside.round() as u64);
            }
            (lower, below) = (*bound, count);
        }
        Some(lower)
    }
}

/// A model under an application's policy.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceLook {
    pub model: ModelName,
    /// Of the queries that it is asked, or of the vote it has.
    pub weight: Option<f64>,
    pub asked: u64,
    pub left_out: u64,
    pub judged: u64,
    /// The sum of the losses of those.
    pub loss: f64,
}

impl AppMetrics {
    #[must_use]
    pub fn look(&self) -> AppLook {
        let mut look = AppLook::default();
        for (count, outcome) in look.outcomes.iter_mut().zip(Outcome::ALL) {
            *count = self.ended(outcome);
        }
        look.rejected = self.rejected.load(Relaxed);
        let snapshot = self.latency.snapshot();
        for (count, up_to) in look.latency.iter_mut().zip(snapshot.cumulative(&LOOK_BOUNDS_US)) {
            *count = up_to;
        }
        look
    }

    /// Requests that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Its models under its policy, by name.
    #[must_use]
    pub fn choices(&self) -> Vec<ChoiceLook> {
        let weights = self.policy.weights();
        let mut counted = self.policy.models();
        for (model, _) in &weights {
            counted.entry(model.clone()).or_default();
        }
        let look = |(model, counts): (ModelName, Arc<super::policy::ChoiceMetrics>)| {
            let weight = weights.iter().find(|(name, _)| *name == model);
            ChoiceLook {
                weight: weight.map(|(_, weight)| *weight),
                asked: counts.asked.load(Relaxed),
                left_out: counts.left_out.load(Relaxed),
                judged: counts.judged.load(Relaxed),
                loss: counts.loss.load(Relaxed) as f64 / 1e6,
                model,
            }
        };
        counted.into_iter().map(look).collect()
    }
}

/// What a model version has counted so far, or between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelLook {
    pub hits: u64,
    pub misses: u64,
    /// Answered by replicas.
    pub queries: u64,
    pub errors: u64,
    pub batches: u64,
    pub retried: u64,
    pub hedged: u64,
    pub skipped: u64,
}

impl ModelLook {
    /// What came after `before`; everything, if counting began anew meanwhile.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.queries < before.queries || self.misses < before.misses {
            return *self;
        }
        Self {
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses - before.misses,
            queries: self.queries - before.queries,
            errors: self.errors.saturating_sub(before.errors),
            batches: self.batches.saturating_sub(before.batches),
            retried: self.retried.saturating_sub(before.retried),
            hedged: self.hedged.saturating_sub(before.hedged),
            skipped: self.skipped.saturating_sub(before.skipped),
        }
    }
}

/// What one replica has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaLook {
    pub replica: ReplicaId,
    pub batches: u64,
    pub queries: u64,
    /// On batches, microseconds.
    pub busy_us: u64,
}

/// Times since the start, milliseconds; `None` before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModelTimes {
    pub wait_p99_ms: Option<f64>,
    pub batch_p50_ms: Option<f64>,
    pub batch_p99_ms: Option<f64>,
}

impl ModelMetrics {
    #[must_use]
    pub fn look(&self) -> ModelLook {
        ModelLook {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            queries: self.predictions(),
            errors: self.model_errors.load(Relaxed),
            batches: self.batch_size.snapshot().count,
            retried: self.retried.load(Relaxed),
            hedged: self.hedged.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
        }
    }

    /// Replicas that get queries, and queries that wait for one.
    #[must_use]
    pub fn standing(&self) -> (u64, u64) {
        (self.replicas.load(Relaxed), self.queue_depth.load(Relaxed))
    }

    #[must_use]
    pub fn times(&self) -> ModelTimes {
        let (waits, batches) = (self.queue_wait.snapshot(), self.batch_latency.snapshot());
        let of = |snapshot: &super::histogram::Snapshot, percent| {
            (snapshot.count > 0).then(|| snapshot.percentile(percent) / 1e3)
        };
        ModelTimes {
            wait_p99_ms: of(&waits, 99),
            batch_p50_ms: of(&batches, 50),
            batch_p99_ms: of(&batches, 99),
        }
    }

    /// Sizes and times of the last batches, queries and microseconds.
    #[must_use]
    pub fn recent_batches(&self) -> Vec<(u64, u64)> {
        self.recent.all()
    }

    #[must_use]
    pub fn replica_looks(&self) -> Vec<ReplicaLook> {
        let look = |(replica, counts): (ReplicaId, Arc<super::handles::ReplicaMetrics>)| {
            let [batches, queries, busy_us] = [&counts.batches, &counts.predictions, &counts.busy]
                .map(|count| count.load(Relaxed));
            ReplicaLook { replica, batches, queries, busy_us }
        };
        self.by_replica().into_iter().map(look).collect()
    }
}

impl Metrics {
    /// The applications that have series.
    #[must_use]
    pub fn all_apps(&self) -> Vec<(AppName, Arc<AppMetrics>)> {
        let apps = self.apps.read();
        apps.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
    }

    /// The model versions that have series.
    #[must_use]
    pub fn all_models(&self) -> Vec<(ModelId, Arc<ModelMetrics>)> {
        let models = self.models.read();
        models.iter().map(|(id, metrics)| (id.clone(), Arc::clone(metrics))).collect()
    }

    /// The model version's, if it has series.
    #[must_use]
    pub fn find_model(&self, id: &ModelId) -> Option<Arc<ModelMetrics>> {
        self.models.read().get(id).map(Arc::clone)
    }

    /// Whether the tables in Redis are followed; `None` without one.
    #[must_use]
    pub fn follows_redis(&self) -> Option<bool> {
        self.redis.get().map(|redis| redis.connected.load(Relaxed) > 0)
    }

    /// Open connections of containers.
    #[must_use]
    pub fn container_connections(&self) -> u64 {
        self.rpc_connections.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_came_between_two_looks_is_their_difference() {
        let app = AppMetrics::default();
        app.answered(Outcome::Prediction, 100, Duration::from_millis(1));
        let before = app.look();
        app.answered(Outcome::Prediction, 98, Duration::from_millis(10));
        app.answered(Outcome::Late, 2, Duration::from_millis(100));
        app.rejected();
        let since = app.look().since(&before);
        assert_eq!((since.answered(), since.ended(Outcome::Late), since.rejected), (100, 2, 1));
        let p50 = since.percentile_us(50).unwrap();
        assert!((7_000..=10_000).contains(&p50), "{p50}");
        let p99 = since.percentile_us(99).unwrap();
        assert!((70_000..=100_000).contains(&p99), "{p99}");
        assert_eq!(before.since(&app.look()), before, "counting began anew");
        assert_eq!(AppLook::default().percentile_us(99), None);
    }

    #[test]
    fn a_model_is_looked_at_with_its_replicas_and_its_last_batches() {
        let model = ModelMetrics::default();
        model.batch_answered(ReplicaId(2), 4, Duration::from_millis(3));
        let before = model.look();
        model.batch_answered(ReplicaId(2), 6, Duration::from_millis(5));
        model.cache_lookups(3, 1);
        let since = model.look().since(&before);
        assert_eq!((since.queries, since.batches, since.hits), (6, 1, 3));
        assert_eq!(model.recent_batches(), [(4, 3_000), (6, 5_000)]);
        let replicas = model.replica_looks();
        assert_eq!((replicas[0].queries, replicas[0].busy_us), (10, 8_000));
        assert!(model.times().batch_p99_ms.is_some() && model.times().wait_p99_ms.is_none());
    }
}
