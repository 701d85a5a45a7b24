//! The latest queries of all workers, for whoever asks why they were answered so.
//!
//! Each worker keeps its own, behind a lock that nobody else takes but a reader, and that one only
//! for a moment: a worker that finds it taken lets the query go and counts it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::ExplainConfig;
use crate::store::history::moment::utc;
use clipper_clock::{self as clock, Instant};
use clipper_domain::explain::{ExplainedQueries, ExplainedQuery, KeptAs};
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::recent::{RecentLimits, RecentQueries, Wanted};

thread_local! {
    /// Which worker this thread is, once it has kept something.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Those of all workers.
#[derive(Debug)]
pub struct Recent {
    workers: Vec<Mutex<RecentQueries>>,
    is_on: bool,
    /// Of one request.
    request_max: usize,
    answer_max: usize,
    next_worker: AtomicUsize,
    /// Requests of which nothing was kept because somebody was reading.
    lost: Arc<AtomicU64>,
}

impl Recent {
    #[must_use]
    pub fn new(config: &ExplainConfig, workers: usize, lost: Arc<AtomicU64>) -> Self {
        let workers = workers.max(1);
        let part = u32::try_from(workers).unwrap_or(u32::MAX);
        let limits = RecentLimits {
            queries_max: config.queries_max.div_ceil(workers),
            max_bytes: config.max_bytes / workers,
            slow_share: f64::from(config.slow_percent) / 100.0,
            samples_per_second: config.samples_per_second.div_ceil(part),
            records_per_second: config.records_per_second.div_ceil(part),
        };
        Self {
            workers: (0..workers).map(|_| Mutex::new(RecentQueries::new(limits))).collect(),
            is_on: config.queries_max > 0,
            request_max: config.request_queries_max,
            answer_max: config.answer_queries_max,
            next_worker: AtomicUsize::new(0),
            lost,
        }
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Queries of one request that are explained in its answer.
    #[must_use]
    pub fn answer_max(&self) -> usize {
        self.answer_max
    }

    /// Keeps what is worth it of the `queries` of a request, which took `latency` of its
    /// `objective`; `record` says what is known of each. Defaults come first.
    pub fn keep(
        &self,
        (queries, is_default): (usize, impl Fn(usize) -> bool),
        (latency, objective): (Duration, Duration),
        now: Instant,
        record: impl Fn(usize) -> Option<QueryRecord>,
    ) {
        let Some(worker) = self.workers.get(self.worker()).filter(|_| self.is_on) else { return };
        let Some(mut kept) = worker.try_lock() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let of_kind = |default: bool| (0..queries).map(move |index| (index, default));
        let defaults = of_kind(true).chain(of_kind(false));
        let chosen = defaults.filter(|(index, default)| is_default(*index) == *default);
        for (index, default) in chosen.take(self.request_max) {
            if let Some(kind) = kept.takes(default, (latency, objective), now)
                && let Some(record) = record(index)
            {
                kept.keep(kind, record);
            }
        }
    }

    fn worker(&self) -> usize {
        let mine = WORKER.get().unwrap_or_else(|| {
            let mine = self.next_worker.fetch_add(1, Ordering::Relaxed);
            WORKER.set(Some(mine));
            mine
        });
        mine % self.workers.len()
    }

    /// What is asked for, the newest first.
    #[must_use]
    pub fn find(&self, wanted: &Wanted) -> ExplainedQueries {
        let mut found: Vec<(KeptAs, QueryRecord)> = Vec::new();
        for worker in &self.workers {
            let of_worker = worker.lock().find(wanted);
            found.extend(of_worker);
        }
        found.sort_by_key(|(_, record)| std::cmp::Reverse((record.arrived, record.query_id)));
        found.truncate(wanted.limit);
        let kept = |(kind, record): (KeptAs, QueryRecord)| ExplainedQuery {
            kept_as: Some(kind),
            ..explained(&record)
        };
        ExplainedQueries { queries: found.into_iter().map(kept).collect() }
    }
}

/// A query in words, with the time of day at which its request had arrived.
#[must_use]
pub fn explained(record: &QueryRecord) -> ExplainedQuery {
    let ago = clock::now().saturating_duration_since(record.arrived).as_millis();
    let ago_ms = u64::try_from(ago).unwrap_or(u64::MAX);
    record.explained(utc(clock::unix_millis().saturating_sub(ago_ms)))
}
