//! The list of connected replicas, readable from any thread.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::file_sd::Scraped;
use crate::metrics::file_sd::MetricsAt;
use crate::rpc::registration::{Introduction, KnownModels};
use clipper_domain::{InputType, ModelId, ReplicaId};

/// A connected replica, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    pub model: ModelId,
    pub replica: ReplicaId,
    /// What its inputs are made of.
    pub input_type: InputType,
}

/// Another server that shares the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherServer {
    /// Where an operator finds it.
    pub place: String,
    /// Whether it keeps replicas that were planned elsewhere.
    pub keeps_planned: bool,
    /// What it has replicas of.
    pub serves: HashSet<ModelId>,
}

type Replicas = BTreeMap<(ModelId, ReplicaId), ContainerInfo>;

/// The list of connected replicas, readable from any thread: this server's, and those that other
/// frontends have put into the shared table.
#[derive(Debug, Clone, Default)]
pub struct ContainerList(Arc<ReplicaLists>);

#[derive(Debug, Default)]
struct ReplicaLists {
    own: RwLock<Replicas>,
    others: RwLock<Replicas>,
    servers: RwLock<Vec<OtherServer>>,
    /// The numbers of the next ones, which a pool that takes over after a panic goes on with.
    next: Mutex<HashMap<ModelId, u32>>,
    /// What this server's replica numbers are counted from.
    first_replica: AtomicU32,
    changed: Notify,
    scraped: Scraped,
    /// The models whose containers are taken.
    known: RwLock<HashSet<ModelId>>,
    /// The models that were deleted: their containers are not listed if they come back.
    retired: RwLock<HashSet<ModelId>>,
    known_changes: KnownChanges,
    /// How many containers of an unknown model wait.
    waiting: Mutex<HashMap<ModelId, usize>>,
}

#[derive(Debug)]
struct KnownChanges(watch::Sender<u64>);

impl Default for KnownChanges {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// A container in the list that waits for its model; not listed any more when dropped.
#[derive(Debug)]
struct Waits {
    list: ContainerList,
    model: ModelId,
    replica: ReplicaId,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let Self { list, model, replica } = self;
        list.remove(model, *replica);
        list.take_back(model, *replica);
        let mut waiting = list.0.waiting.lock();
        let Some(count) = waiting.get_mut(model) else { return };
        *count -= 1;
        if *count == 0 {
            waiting.remove(model);
            // Nothing stays of a name that somebody once claimed.
            if !list.is_known(model) {
                list.0.next.lock().remove(model);
            }
        }
    }
}

impl KnownModels for ContainerList {
    fn is_known(&self, model: &ModelId) -> bool {
        self.0.known.read().contains(model)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.known_changes.0.subscribe()
    }

    fn list(&self, introduction: &Introduction) -> Box<dyn Any> {
        let Introduction { model, input_type, .. } = introduction;
        let (model, input_type) = (model.clone(), *input_type);
        if self.0.retired.read().contains(&model) {
            return Box::new(());
        }
        *self.0.waiting.lock().entry(model.clone()).or_default() += 1;
        let replica = self.number(&model);
        let info = ContainerInfo { model: model.clone(), replica, input_type };
        self.0.own.write().insert((model.clone(), replica), info);
        self.0.changed.notify_one();
        Box::new(Waits { list: self.clone(), model, replica })
    }
}

impl ContainerList {
    /// Containers of this model are not listed while they wait, or are again.
    pub(super) fn set_retired(&self, model: &ModelId, retired: bool) {
        let mut models = self.0.retired.write();
        if retired {
            models.insert(model.clone())
        } else {
            models.remove(model)
        };
    }

    /// Gives the next replica of the model this number, if no other has one behind it.
    fn take_back(&self, model: &ModelId, replica: ReplicaId) {
        let mut next = self.0.next.lock();
        let Some(next) = next.get_mut(model).filter(|next| **next > 0) else { return };
        let first = self.0.first_replica.load(Ordering::Relaxed);
        if first.saturating_add(*next - 1) == replica.0 {
            *next -= 1;
        }
    }

    /// Containers of this model are taken from now on, or not any more.
    pub(super) fn set_known(&self, model: &ModelId, known: bool) {
        let mut models = self.0.known.write();
        if !known {
            models.remove(model);
        } else if models.insert(model.clone()) {
            self.0.known_changes.0.send_modify(|changes| *changes += 1);
        }
    }

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

    /// The numbers of this server's replicas of a version.
    #[must_use]
    pub fn own_of(&self, model: &ModelId) -> Vec<ReplicaId> {
        let own = self.0.own.read();
        own.keys().filter(|(id, _)| id == model).map(|(_, replica)| *replica).collect()
    }

    /// Replaces those of other frontends.
    pub fn set_others(&self, others: impl IntoIterator<Item = ContainerInfo>) {
        let key = |info: ContainerInfo| ((info.model.clone(), info.replica), info);
        *self.0.others.write() = others.into_iter().map(key).collect();
    }

    /// Replaces what is known of the other servers.
    pub fn set_servers(&self, servers: Vec<OtherServer>) {
        *self.0.servers.write() = servers;
    }

    /// The other servers that have no replica of this version.
    #[must_use]
    pub fn servers_without(&self, model: &ModelId) -> Vec<OtherServer> {
        let servers = self.0.servers.read();
        servers.iter().filter(|server| !server.serves.contains(model)).cloned().collect()
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
        // A new pool does not know any model before it is told.
        self.0.known.write().clear();
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
