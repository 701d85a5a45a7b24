//! Where queries find their models: shared by all threads, written by `Models` and `Batcher` only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use actix::Recipient;
use arc_swap::ArcSwap;
use futures_util::stream::{self, Stream};
use parking_lot::RwLock;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::actors::replica::dispatch::FromReplica;
use crate::metrics::ModelMetrics;
use clipper_domain::{BatchSize, ModelId, ModelName, ModelSpec, ModelVersion, Signature};
use clipper_scheduling::dispatch::Arrival;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::intake::Intake;
use clipper_scheduling::latency::LatencyCurve;
use clipper_scheduling::load::Load;

/// Queries wait in a model's intake.
#[derive(Debug, Clone, Copy)]
pub struct Waiting;

/// One registered model version, as the query path sees it.
#[derive(Debug)]
pub struct ModelHandle {
    /// As it was when its actors were started; the size of batches and the use of the cache may
    /// have changed since.
    pub spec: ModelSpec,
    /// Number of this registration; part of every cache key.
    pub serial: u64,
    shown: Box<str>,
    pub metrics: Arc<ModelMetrics>,
    signature: RwLock<Option<Arc<Signature>>>,
    batcher: RwLock<Option<Recipient<FromReplica>>>,
    intake: Intake<Arrival<Arc<Flight>>>,
    load: ArcSwap<Load>,
    has_lanes: AtomicBool,
    is_cached: AtomicBool,
    batch_size: AtomicI64,
}

impl ModelHandle {
    /// A version without a batcher and without replicas; `curve` is where they start to learn.
    #[must_use]
    pub fn new(
        spec: ModelSpec,
        serial: u64,
        metrics: Arc<ModelMetrics>,
        curve: LatencyCurve,
    ) -> Self {
        Self {
            shown: in_a_header(&spec.id).into(),
            signature: RwLock::new(spec.signature.clone()),
            is_cached: AtomicBool::new(spec.cache),
            batch_size: AtomicI64::new(spec.batch_size.into()),
            spec,
            serial,
            metrics,
            batcher: RwLock::default(),
            intake: Intake::default(),
            load: ArcSwap::from_pointee(Load { curve, ..Load::default() }),
            has_lanes: AtomicBool::new(false),
        }
    }

    /// Its name and version, as a header says them.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether its outputs may answer later equal queries.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.is_cached.load(Ordering::Relaxed)
    }

    /// Of its next batch.
    #[must_use]
    pub fn batch_size(&self) -> BatchSize {
        BatchSize::from_number(self.batch_size.load(Ordering::Relaxed))
            .unwrap_or(self.spec.batch_size)
    }

    /// Serves queries from now on as `spec` says, which takes and gives the same; those under way
    /// keep what they began with.
    pub fn redefine(&self, spec: &ModelSpec) {
        self.is_cached.store(spec.cache, Ordering::Relaxed);
        self.batch_size.store(spec.batch_size.into(), Ordering::Relaxed);
    }

    /// Of type tensors: what goes in and comes out, as registered or else as its containers say.
    #[must_use]
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.signature.read().clone()
    }

    /// Whether a container with this signature is one of its replicas: it was registered so, or
    /// those that serve have no other.
    #[must_use]
    pub fn takes_signature(&self, stated: &Signature) -> bool {
        let is_bound = self.spec.signature.is_some() || self.replicas() > 0;
        let known = self.signature.read();
        known.as_ref().is_none_or(|known| !is_bound || known.serves_as(stated))
    }

    /// Notes what a container says that is attached; whether queries were read by another one
    /// before.
    pub fn sign(&self, stated: &Arc<Signature>) -> bool {
        let mut known = self.signature.write();
        match &*known {
            Some(known) if known.serves_as(stated) => false,
            _ => known.replace(Arc::clone(stated)).is_some(),
        }
    }

    /// Its batcher, while it runs. A restart gives another address.
    #[must_use]
    pub fn batcher(&self) -> Option<Recipient<FromReplica>> {
        self.batcher.read().clone()
    }

    #[must_use]
    pub fn has_batcher(&self) -> bool {
        self.batcher.read().is_some()
    }

    /// Called by its `Model` around the batcher's life. Without one, no replica serves it.
    pub fn set_batcher(&self, batcher: Option<Recipient<FromReplica>>) {
        let is_there = batcher.is_some();
        *self.batcher.write() = batcher;
        if !is_there {
            self.publish(Arc::new(Load { curve: self.curve(), ..Load::default() }), 0, false);
        }
    }

    /// Where queries for it go.
    #[must_use]
    pub fn intake(&self) -> &Intake<Arrival<Arc<Flight>>> {
        &self.intake
    }

    /// An item whenever queries wait in the intake.
    pub fn waiting(self: &Arc<Self>) -> impl Stream<Item = Waiting> + use<> {
        let model = Arc::clone(self);
        stream::poll_fn(move |cx| model.intake.poll_waiting(cx).map(|()| Some(Waiting)))
    }

    /// Its replicas and how much they have to do, as its batcher has last said.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<Load>> {
        self.load.load()
    }

    /// Whether a container of it answers several queries at the same time, in pieces.
    #[must_use]
    pub fn has_lanes(&self) -> bool {
        self.has_lanes.load(Ordering::Relaxed)
    }

    /// Replicas that serve it, as its batcher has last said.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.load().replicas
    }

    /// Called by its batcher, which alone knows which replicas serve it, and around its life.
    /// `containers`: how many there are; one that answers in pieces may have several lanes.
    pub fn publish(&self, load: Arc<Load>, containers: usize, has_lanes: bool) {
        self.has_lanes.store(has_lanes, Ordering::Relaxed);
        self.metrics.set_replicas(containers);
        self.metrics.set_queue_depth(load.waiting);
        self.load.store(load);
    }

    /// What the replica that answered last has learned; where a new one starts.
    #[must_use]
    pub fn curve(&self) -> LatencyCurve {
        self.load.load().curve.clone()
    }
}

/// As in a URL, what a header does not take or what stands between several.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b',');

/// `name:version`.
fn in_a_header(id: &ModelId) -> String {
    utf8_percent_encode(&id.to_string(), NOT_IN_HEADERS).to_string()
}

#[derive(Debug, Default)]
struct Versions {
    current: Option<ModelVersion>,
    /// The current one, if it is registered: each query asks for it.
    serving: Option<Arc<ModelHandle>>,
    by_version: HashMap<ModelVersion, Arc<ModelHandle>>,
}

impl Versions {
    /// After a change of the others.
    fn find_serving(&mut self) {
        let current = self.current.as_ref();
        self.serving = current.and_then(|version| self.by_version.get(version)).cloned();
    }
}

/// A model's name and what is behind it now. Applications hold one for each link; it stays the same
/// object while versions come and go, so moving traffic touches no application.
#[derive(Debug)]
pub struct ModelEntry {
    name: ModelName,
    versions: RwLock<Versions>,
}

impl ModelEntry {
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// The current version, if it is registered.
    #[must_use]
    pub fn current(&self) -> Option<Arc<ModelHandle>> {
        self.versions.read().serving.clone()
    }

    /// A version by name.
    #[must_use]
    pub fn version(&self, version: &str) -> Option<Arc<ModelHandle>> {
        self.versions.read().by_version.get(version).cloned()
    }

    fn is_empty(&self) -> bool {
        let versions = self.versions.read();
        versions.current.is_none() && versions.by_version.is_empty()
    }
}

/// All models by name.
#[derive(Debug, Default)]
pub struct Directory(RwLock<HashMap<ModelName, Arc<ModelEntry>>>);

impl Directory {
    /// The entry of a name, made if it is not there: an application may be linked before the model
    /// is registered again.
    pub fn entry(&self, name: &ModelName) -> Arc<ModelEntry> {
        if let Some(entry) = self.0.read().get(name) {
            return Arc::clone(entry);
        }
        let mut entries = self.0.write();
        let entry = entries.entry(name.clone()).or_insert_with(|| {
            Arc::new(ModelEntry { name: name.clone(), versions: RwLock::default() })
        });
        Arc::clone(entry)
    }

    /// Adds or replaces a version; gives back what it replaced.
    pub fn insert(&self, handle: Arc<ModelHandle>) -> Option<Arc<ModelHandle>> {
        let entry = self.entry(&handle.spec.id.name);
        let version = handle.spec.id.version.clone();
        let mut versions = entry.versions.write();
        let replaced = versions.by_version.insert(version, handle);
        versions.find_serving();
        replaced
    }

    pub fn remove(&self, name: &ModelName, version: &ModelVersion) -> Option<Arc<ModelHandle>> {
        let entry = self.entry(name);
        let removed = {
            let mut versions = entry.versions.write();
            let removed = versions.by_version.remove(version);
            versions.find_serving();
            removed
        };
        self.forget_if_unused(name);
        removed
    }

    /// Moves the model's traffic.
    pub fn route(&self, name: &ModelName, version: Option<ModelVersion>) {
        let entry = self.entry(name);
        {
            let mut versions = entry.versions.write();
            versions.current = version;
            versions.find_serving();
        }
        self.forget_if_unused(name);
    }

    /// The versions that queries go to, by model.
    pub fn current(&self) -> impl Iterator<Item = (ModelName, ModelVersion)> + use<> {
        let entries: Vec<_> = self.0.read().values().cloned().collect();
        entries.into_iter().filter_map(|entry| {
            let current = entry.versions.read().current.clone()?;
            Some((entry.name.clone(), current))
        })
    }

    /// A version by full name.
    #[must_use]
    pub fn get(&self, name: &ModelName, version: &ModelVersion) -> Option<Arc<ModelHandle>> {
        self.0.read().get(name)?.version(version.as_str())
    }

    /// All registered versions, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ModelHandle>> {
        let entries: Vec<_> = self.0.read().values().cloned().collect();
        let versions = |entry: &Arc<ModelEntry>| {
            entry.versions.read().by_version.values().cloned().collect::<Vec<_>>()
        };
        entries.iter().flat_map(versions).collect()
    }

    fn forget_if_unused(&self, name: &ModelName) {
        let mut entries = self.0.write();
        // Only the map refers to it: no application is linked to this name.
        let unused = entries.get(name).is_some_and(|e| e.is_empty() && Arc::strong_count(e) == 1);
        if unused {
            entries.remove(name);
        }
    }
}
