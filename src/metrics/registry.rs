//! All metrics of the process: handles found by name, and what is counted without one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};

use clipper_clock as clock;
use clipper_domain::{AppName, ModelId};

use super::handles::{self, AppMetrics, ModelMetrics};
use super::histogram::Snapshot;
use super::http::HttpMetrics;
use super::meter::{self, Meter, Rates};
use super::policy_states::PolicyStateMetrics;
use super::quotas::{KeyQuotas, OfKey};
use super::rpc_end::RpcEnd;
use super::tls::TlsMetrics;
use super::traces::TraceMetrics;
use super::watcher::RedisMetrics;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    pub(super) apps: RwLock<BTreeMap<AppName, Arc<AppMetrics>>>,
    pub(super) models: RwLock<BTreeMap<ModelId, Arc<ModelMetrics>>>,
    pub(super) rpc_ended: [AtomicU64; RpcEnd::ALL.len()],
    pub(super) rpc_connections: AtomicU64,
    pub(super) actor_restarts: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) thread_stalls: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests of which nothing was kept.
    pub explain_lost: Arc<AtomicU64>,
    pub(super) log_lines_lost: OnceLock<Arc<AtomicU64>>,
    pub(super) access_lines_lost: OnceLock<Arc<AtomicU64>>,
    pub(super) admin_acknowledged: AtomicU64,
    pub(super) admin_refused: AtomicU64,
    pub(super) feedback_refused: AtomicU64,
    pub(super) redis: OnceLock<RedisMetrics>,
    /// What policies keep of users.
    pub policy_states: PolicyStateMetrics,
    /// The HTTP frontends.
    pub http: HttpMetrics,
    pub(super) tls: OnceLock<TlsMetrics>,
    pub(super) traces: OnceLock<Arc<TraceMetrics>>,
    pub(super) keys: KeyQuotas,
    /// What removed models had counted, so that sums over all models never fall.
    pub(super) removed: Mutex<Totals>,
    pub(super) throughput: Mutex<Meter>,
    pub(super) process: prometheus::process_collector::ProcessCollector,
}

/// Sums over all model versions, removed ones included.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) hits: u64,
    pub(super) lookups: u64,
    pub(super) predictions: u64,
    pub(super) queue_wait: Snapshot,
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
            explain_lost: Arc::default(),
            log_lines_lost: OnceLock::new(),
            access_lines_lost: OnceLock::new(),
            admin_acknowledged: AtomicU64::new(0),
            admin_refused: AtomicU64::new(0),
            feedback_refused: AtomicU64::new(0),
            redis: OnceLock::new(),
            policy_states: PolicyStateMetrics::default(),
            http: HttpMetrics::default(),
            tls: OnceLock::new(),
            traces: OnceLock::new(),
            keys: KeyQuotas::default(),
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

    #[cfg(test)]
    pub(crate) fn rpc_ends(&self, why: RpcEnd) -> u64 {
        self.rpc_ended[why as usize].load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn open_rpc_connections(&self) -> u64 {
        self.rpc_connections.load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn actor_restarts(&self, actor: &str) -> u64 {
        self.actor_restarts.lock().get(actor).copied().unwrap_or(0)
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

    /// The same of the access log.
    pub fn show_access_lines_lost(&self, lost: Arc<AtomicU64>) {
        let _ = self.access_lines_lost.set(lost);
    }

    /// Counts a start of a child process.
    pub fn child_started(&self, id: &ModelId) {
        self.model(id).child_starts.fetch_add(1, Relaxed);
    }

    /// The Redis watcher's metrics; shown from the first call on.
    pub fn redis(&self) -> &RedisMetrics {
        self.redis.get_or_init(RedisMetrics::default)
    }

    /// The certificate of the ports with TLS; shown from the first call on.
    pub fn tls(&self) -> &TlsMetrics {
        self.tls.get_or_init(TlsMetrics::default)
    }

    /// The export of traces; shown from the first call on.
    pub fn traces(&self) -> &Arc<TraceMetrics> {
        self.traces.get_or_init(Arc::default)
    }

    /// Where it is known what holders of keys ask for; the first call counts.
    pub fn watch_keys(&self, all: impl Fn() -> Vec<OfKey> + Send + Sync + 'static) {
        self.keys.0.get_or_init(|| Box::new(all));
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
    pub(super) fn totals(&self, now: clock::Instant) -> (Totals, Rates) {
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

    use clipper_domain::{ModelName, ModelVersion, Outcome, ReplicaId};

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
