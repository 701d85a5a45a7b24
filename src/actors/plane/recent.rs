//! The latest queries of all workers, for whoever asks why they were answered so.
//!
//! Each worker keeps its own, behind a lock that nobody else takes but a reader, and that one only
//! for a moment: a worker that finds it taken lets the query go and counts it. Of most requests
//! nothing is kept, which is found out without the lock.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::store::history::moment::utc;
use clipper_clock::{self as clock, Instant};
use clipper_config::ExplainConfig;
use clipper_domain::explain::{ExplainedQueries, ExplainedQuery, KeptAs};
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::pace::{AllPaces, OwnPaces, PaceLimits};
use clipper_scheduling::recent::{RecentLimits, RecentQueries, Wanted, newest};
use clipper_scheduling::ticket::Answer;

thread_local! {
    /// Which worker this thread is, once it has kept something.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Those of one worker; on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct WorkerRecent {
    paces: AllPaces,
    kept: Mutex<RecentQueries>,
}

/// Those of all workers.
#[derive(Debug)]
pub struct Recent {
    workers: Vec<WorkerRecent>,
    is_on: bool,
    /// Of the objective: a query that takes so much of it is slow.
    slow_percent: u32,
    paces: PaceLimits,
    /// Of one request.
    request_max: usize,
    answer_max: usize,
    started: Instant,
    next_worker: AtomicUsize,
    /// Requests of which nothing was kept because somebody was reading.
    lost: Arc<AtomicU64>,
}

/// A request that has been answered.
#[derive(Debug)]
pub struct AnsweredRequest<'a> {
    pub answers: &'a [Answer],
    /// So many of them are default outputs.
    pub defaults: usize,
    pub latency: Duration,
    pub objective: Duration,
    /// What its application has kept in this second.
    pub own: &'a OwnPaces,
}

impl Recent {
    #[must_use]
    pub fn new(config: &ExplainConfig, workers: usize, lost: Arc<AtomicU64>) -> Self {
        let workers = workers.max(1);
        let part = u32::try_from(workers).unwrap_or(u32::MAX);
        let limits = RecentLimits {
            queries_max: config.queries_max.div_ceil(workers),
            max_bytes: config.max_bytes / workers,
        };
        let worker = || WorkerRecent {
            paces: AllPaces::default(),
            kept: Mutex::new(RecentQueries::new(limits)),
        };
        Self {
            workers: std::iter::repeat_with(worker).take(workers).collect(),
            is_on: config.queries_max > 0,
            slow_percent: config.slow_percent,
            paces: PaceLimits {
                samples: config.samples_per_second.div_ceil(part),
                records: config.records_per_second.div_ceil(part),
            },
            request_max: config.request_queries_max,
            answer_max: config.answer_queries_max,
            started: clock::now(),
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

    /// Keeps what is worth it of the queries of a request, defaults first; `record` says what is
    /// known of each.
    pub fn keep(
        &self,
        ended: &AnsweredRequest<'_>,
        now: Instant,
        record: impl Fn(usize) -> Option<QueryRecord>,
    ) {
        let Some(worker) = self.workers.get(self.worker()).filter(|_| self.is_on) else { return };
        let is_slow = ended.latency.as_nanos() * 100
            >= ended.objective.as_nanos() * u128::from(self.slow_percent);
        let second = now.saturating_duration_since(self.started).as_secs();
        let is_ordinary = !is_slow && ended.defaults == 0;
        if is_ordinary && !worker.paces.has_room_for_sample(self.paces, second) {
            return;
        }
        self.keep_some(worker, ended, (is_slow, second), record);
    }

    #[cold]
    fn keep_some(
        &self,
        worker: &WorkerRecent,
        ended: &AnsweredRequest<'_>,
        (is_slow, second): (bool, u64),
        record: impl Fn(usize) -> Option<QueryRecord>,
    ) {
        let of_kind = |default: bool| (0..ended.answers.len()).map(move |index| (index, default));
        let defaults = of_kind(true).chain(of_kind(false));
        let is_default = |index: usize| {
            ended.answers.get(index).is_some_and(|answer| answer.default_reason().is_some())
        };
        let chosen = defaults.filter(|(index, default)| is_default(*index) == *default);
        for (index, default) in chosen.take(self.request_max) {
            let kind = match (default, is_slow) {
                (true, _) => KeptAs::Default,
                (false, true) => KeptAs::Slow,
                (false, false) => KeptAs::Sample,
            };
            if !worker.paces.takes(kind, ended.own, (self.paces, second)) {
                continue;
            }
            let Some(record) = record(index) else { continue };
            let Some(mut kept) = worker.kept.try_lock() else {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            };
            kept.keep(kind, record);
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
            let of_worker = worker.kept.lock().find(wanted);
            found.extend(of_worker);
        }
        found.sort_by_key(|(_, record)| newest(record));
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
