//! The list of connected replicas, readable from any thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::file_sd::Scraped;
use crate::metrics::file_sd::MetricsAt;
use clipper_domain::{InputType, ModelId, ReplicaId};

/// A connected replica, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// What it serves.
    pub model: ModelId,
    /// Its number.
    pub replica: ReplicaId,
    /// What its inputs are made of.
    pub input_type: InputType,
}

type Replicas = BTreeMap<(ModelId, ReplicaId), ContainerInfo>;

/// The list of connected replicas, readable from any thread: this server's, and those that other
/// frontends have put into the shared table.
#[derive(Debug, Clone, Default)]
pub struct ContainerList(Arc<Lists>);

#[derive(Debug, Default)]
struct Lists {
    own: RwLock<Replicas>,
    others: RwLock<Replicas>,
    /// The numbers of the next ones, which a pool that takes over after a panic goes on with.
    next: Mutex<HashMap<ModelId, u32>>,
    /// What this server's replica numbers are counted from.
    first_replica: AtomicU32,
    changed: Notify,
    scraped: Scraped,
}

impl ContainerList {
    pub(super) fn number(&self, model: &ModelId) -> ReplicaId {
        let mut next = self.0.next.lock();
        let next = next.entry(model.clone()).or_default();
        let first = self.0.first_replica.load(Ordering::Relaxed);
        let number = ReplicaId(first.saturating_add(*next));
        *next += 1;
        number
    }

    /// All of them, by model and number.
    #[must_use]
    pub fn all(&self) -> Vec<ContainerInfo> {
        let mut all = self.0.others.read().clone();
        all.extend(self.0.own.read().clone());
        all.into_values().collect()
    }

    /// Those connected to this server.
    #[must_use]
    pub fn own(&self) -> Vec<ContainerInfo> {
        self.0.own.read().values().cloned().collect()
    }

    /// Replaces those of other frontends.
    pub fn set_others(&self, others: impl IntoIterator<Item = ContainerInfo>) {
        let key = |info: ContainerInfo| ((info.model.clone(), info.replica), info);
        *self.0.others.write() = others.into_iter().map(key).collect();
    }

    /// Sets what the numbers of replicas that connect from now on are counted from, so that
    /// frontends of one Redis never give a number twice.
    pub fn set_first_replica(&self, first: u32) {
        self.0.first_replica.store(first, Ordering::Relaxed);
    }

    /// Waits until this server's replicas have changed since the last call.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// This server's, with what is known of their metrics.
    #[must_use]
    pub fn scraped(&self) -> Scraped {
        self.0.scraped.clone()
    }

    pub(super) fn clear_own(&self) {
        self.0.own.write().clear();
        self.0.scraped.clear();
        self.0.changed.notify_one();
    }

    pub(super) fn put(&self, info: ContainerInfo, metrics_at: MetricsAt) {
        self.0.scraped.put(&info.model, info.replica, metrics_at);
        self.0.own.write().insert((info.model.clone(), info.replica), info);
        self.0.changed.notify_one();
    }

    pub(super) fn remove(&self, model: &ModelId, replica: ReplicaId) {
        self.0.scraped.remove(model, replica);
        if self.0.own.write().remove(&(model.clone(), replica)).is_some() {
            self.0.changed.notify_one();
        }
    }
}
