//! The metrics of the process, and the handles that hot paths keep.
//!
//! [`table`] declares every name, kind, unit and label. Writers touch atomics only ([`handles`]);
//! both views, [`clipper_json`] and [`prometheus_text`], are computed when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};

use clipper_clock as clock;
use clipper_domain::{AppName, ModelId};

pub mod clipper_json;
pub mod file_sd;
pub mod handles;
pub mod histogram;
pub mod http;
pub mod meter;
pub mod prometheus_text;
pub mod table;

pub use clipper_domain::Outcome;
pub use clipper_json::{clipper_json_body, write_clipper_json};
pub use handles::{AppMetrics, ModelMetrics};
pub use prometheus_text::{FlatNames, prometheus_text_body, write_prometheus_text};

use histogram::Snapshot;
use http::HttpMetrics;
use meter::{Meter, Rates};

/// Why a container connection ended or was refused, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcEnd {
    /// Too many connections.
    Limit,
    /// Not ZMTP, or a ZMTP rule broken.
    Zmtp,
    /// Not a Clipper message, or one out of turn.
    Protocol,
    /// No new-container message in time.
    HandshakeTimeout,
    /// RPC version missing or not 3.
    RpcVersion,
    /// The container's input type is not its model's.
    InputType,
    /// A model name or version that cannot be one.
    Name,
    /// The peer closed the connection.
    Closed,
    /// Silent for too long.
    Silent,
    /// Computed for longer than anybody waited.
    Hung,
    /// Did not read; its write queue was full.
    Stuck,
    /// Sent too many messages that nobody asked for.
    Flood,
    /// Wrong number of outputs.
    OutputCount,
    /// An answer over a limit of one message (`rpc.message_max_bytes` and the like).
    AnswerTooLarge,
    /// Its model was not registered in time, or it gave way to others that wait.
    UnknownModel,
    /// Its unfinished message gave way when memory was needed (`rpc.receive_max_bytes`).
    Memory,
    /// Its model version was retired.
    Retired,
    /// The connection's actor panicked.
    Panicked,
    /// Orderly shutdown of the server.
    Shutdown,
}

impl RpcEnd {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 19] = [
        Self::Limit,
        Self::Zmtp,
        Self::Protocol,
        Self::HandshakeTimeout,
        Self::RpcVersion,
        Self::InputType,
        Self::Name,
        Self::Closed,
        Self::Silent,
        Self::Hung,
        Self::Stuck,
        Self::Flood,
        Self::OutputCount,
        Self::AnswerTooLarge,
        Self::UnknownModel,
        Self::Memory,
        Self::Retired,
        Self::Panicked,
        Self::Shutdown,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Zmtp => "zmtp",
            Self::Protocol => "protocol",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::RpcVersion => "rpc_version",
            Self::InputType => "input_type",
            Self::Name => "name",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Hung => "hung",
            Self::Stuck => "stuck",
            Self::Flood => "flood",
            Self::OutputCount => "output_count",
            Self::AnswerTooLarge => "answer_too_large",
            Self::UnknownModel => "unknown_model",
            Self::Memory => "memory",
            Self::Retired => "retired",
            Self::Panicked => "panicked",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What the Redis watcher counts.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    /// 1 while the tables are followed, else 0.
    pub connected: AtomicU64,
    /// Connections that ended or were not made.
    pub failures: AtomicU64,
    /// Entries of the tables that mean nothing.
    pub malformed: AtomicU64,
    /// Changes decided again because another frontend was first.
    pub conflicts: AtomicU64,
    /// Events read from the tables.
    pub events: AtomicU64,
    /// 1 if Redis may evict entries to save memory, else 0.
    pub evicts: AtomicU64,
    /// Entries written back that Redis had evicted or let expire.
    pub restored: AtomicU64,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    apps: RwLock<BTreeMap<AppName, Arc<AppMetrics>>>,
    models: RwLock<BTreeMap<ModelId, Arc<ModelMetrics>>>,
    rpc_ended: [AtomicU64; RpcEnd::ALL.len()],
    rpc_connections: AtomicU64,
    actor_restarts: Mutex<BTreeMap<&'static str, u64>>,
    thread_stalls: Mutex<BTreeMap<&'static str, u64>>,
    log_lines_lost: OnceLock<Arc<AtomicU64>>,
    admin_acknowledged: AtomicU64,
    admin_refused: AtomicU64,
    feedback_refused: AtomicU64,
    redis: OnceLock<RedisMetrics>,
    /// The HTTP frontends.
    pub http: HttpMetrics,
    /// What removed models had counted, so that sums over all models never fall.
    removed: Mutex<Totals>,
    throughput: Mutex<Meter>,
    process: prometheus::process_collector::ProcessCollector,
}

/// Sums over all model versions, removed ones included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) hits: u64,
    pub(crate) lookups: u64,
    pub(crate) predictions: u64,
    pub(crate) queue_wait: Snapshot,
}

impl Totals {
    fn add(&mut self, model: &ModelMetrics) {
        let hits = model.hits.load(Relaxed);
        self.hits += hits;
        self.lookups += hits + model.misses.load(Relaxed);
        self.predictions += model.predictions();
        self.queue_wait.merge(&model.queue_wait.snapshot());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apps: RwLock::default(),
            models: RwLock::default(),
            rpc_ended: Default::default(),
            rpc_connections: AtomicU64::new(0),
            actor_restarts: Mutex::default(),
            thread_stalls: Mutex::default(),
            log_lines_lost: OnceLock::new(),
            admin_acknowledged: AtomicU64::new(0),
            admin_refused: AtomicU64::new(0),
            feedback_refused: AtomicU64::new(0),
            redis: OnceLock::new(),
            http: HttpMetrics::default(),
            removed: Mutex::default(),
            throughput: Mutex::new(Meter::new(clock::now())),
            process: prometheus::process_collector::ProcessCollector::for_self(),
        }
    }
}

impl Metrics {
    /// An empty table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Handles of an application, made on first use.
    #[must_use]
    pub fn app(&self, name: &AppName) -> Arc<AppMetrics> {
        if let Some(app) = self.apps.read().get(name) {
            return Arc::clone(app);
        }
        Arc::clone(self.apps.write().entry(name.clone()).or_default())
    }

    /// Forgets a deleted application's series. For one owner to call: a second call for the same
    /// deletion would forget an application that was added again meanwhile.
    pub fn remove_app(&self, name: &AppName) {
        self.apps.write().remove(name);
    }

    /// The applications that have series.
    #[must_use]
    pub fn app_names(&self) -> BTreeSet<AppName> {
        self.apps.read().keys().cloned().collect()
    }

    /// Handles of a model version, made on first use.
    #[must_use]
    pub fn model(&self, id: &ModelId) -> Arc<ModelMetrics> {
        if let Some(model) = self.models.read().get(id) {
            return Arc::clone(model);
        }
        Arc::clone(self.models.write().entry(id.clone()).or_default())
    }

    /// Forgets a retired model version's series; its share of the sums over all models stays.
    /// For one owner to call, as [`Self::remove_app`].
    pub fn remove_model(&self, id: &ModelId) {
        let mut models = self.models.write();
        if let Some(model) = models.remove(id) {
            self.removed.lock().add(&model);
        }
    }

    /// Counts the end or refusal of a container connection.
    pub fn rpc_ended(&self, why: RpcEnd) {
        if let Some(count) = self.rpc_ended.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Sets the number of open container connections.
    pub fn set_rpc_connections(&self, open: usize) {
        self.rpc_connections.store(open as u64, Relaxed);
    }

    /// Counts a restart of an actor by its parent.
    pub fn actor_restarted(&self, actor: &'static str) {
        *self.actor_restarts.lock().entry(actor).or_default() += 1;
    }

    /// Counts a thread of this kind that did not answer the watchdog in time.
    pub fn thread_stalled(&self, kind: &'static str) {
        *self.thread_stalls.lock().entry(kind).or_default() += 1;
    }

    /// Shows this counter of log lines that could not be written.
    pub fn show_log_lines_lost(&self, lost: Arc<AtomicU64>) {
        // A second counter would be a second log.
        let _ = self.log_lines_lost.set(lost);
    }

    /// Counts a start of a child process.
    pub fn child_started(&self, id: &ModelId) {
        self.model(id).child_starts.fetch_add(1, Relaxed);
    }

    /// The Redis watcher's metrics; shown from the first call on.
    pub fn redis(&self) -> &RedisMetrics {
        self.redis.get_or_init(RedisMetrics::default)
    }

    /// Counts a command acknowledged (`true`) or refused.
    pub fn admin_command(&self, acknowledged: bool) {
        let count = if acknowledged { &self.admin_acknowledged } else { &self.admin_refused };
        count.fetch_add(1, Relaxed);
    }

    /// Counts feedback that there was no room for.
    pub fn feedback_refused(&self) {
        self.feedback_refused.fetch_add(1, Relaxed);
    }

    /// Moves all decaying rates to `now`. Asking for the metrics does so too; [`keep_ticking`]
    /// makes them right however rarely somebody asks.
    pub fn tick(&self, now: clock::Instant) {
        for app in self.apps.read().values() {
            app.tick(now);
        }
        let mut predictions = 0;
        let models = self.models.read();
        for model in models.values() {
            model.tick(now);
            predictions += model.predictions();
        }
        predictions += self.removed.lock().predictions;
        handles::tick(&self.throughput, now, predictions);
    }

    /// Sums over all models, and the rate of predictions at `now`.
    pub(crate) fn totals(&self, now: clock::Instant) -> (Totals, Rates) {
        // Both locks: a model removed meanwhile would be counted twice or not at all.
        let models = self.models.read();
        let mut totals = self.removed.lock().clone();
        models.values().for_each(|model| totals.add(model));
        let rates = handles::tick(&self.throughput, now, totals.predictions);
        (totals, rates)
    }
}

/// Ticks every [`meter::TICK`] until the metrics are dropped.
pub async fn keep_ticking(metrics: Weak<Metrics>) {
    let mut interval = tokio::time::interval(meter::TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(metrics) = metrics.upgrade() else { return };
        metrics.tick(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use clipper_domain::{ModelName, ModelVersion, ReplicaId};

    #[test]
    fn rates_decay_without_anybody_asking() {
        let metrics = Metrics::new();
        let app = metrics.app(&AppName::parse("digits").unwrap());
        let model =
            ModelId::new(ModelName::parse("net").unwrap(), ModelVersion::parse("1").unwrap());
        app.answered(Outcome::Prediction, 1, Duration::from_millis(1));
        metrics.model(&model).batch_answered(ReplicaId(0), 4, Duration::from_millis(1));
        assert_eq!(metrics.totals(clock::now()).1.decaying[0].to_string(), "-1");
        let later = clock::now() + meter::TICK;
        metrics.tick(later);
        let rates = [app.tick(later), metrics.model(&model).tick(later), metrics.totals(later).1];
        for rates in rates {
            assert!(rates.decaying.iter().all(|rate| *rate > 0.0), "{rates:?}");
        }
        metrics.remove_model(&model);
        metrics.tick(later + meter::TICK);
        assert!(metrics.totals(later + meter::TICK).1.decaying[0] > 0.0);
    }

    #[test]
    fn labels_are_distinct_and_follow_the_declaration() {
        let outcomes = Outcome::ALL.map(|o| (o as usize, o.label()));
        let reasons = RpcEnd::ALL.map(|r| (r as usize, r.label()));
        for labels in [outcomes.as_slice(), reasons.as_slice()] {
            for (at, (index, label)) in labels.iter().enumerate() {
                assert_eq!(at, *index, "{label}");
                assert_eq!(labels.iter().filter(|(_, other)| other == label).count(), 1, "{label}");
            }
        }
    }
}
