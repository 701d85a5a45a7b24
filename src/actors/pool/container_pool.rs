//! Who is connected: registers containers, numbers replicas, keeps configured child processes
//! alive.
//!
//! Membership is soft state: nothing here is journalled. A container of an unregistered model is
//! listed and waits on the listener's thread; it is taken once its model is registered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::list::{ContainerInfo, ContainerList};
use super::messages::{
    AwaitAttached, BatcherReady, ModelChange, ModelsChanged, PlansOfFile, Register,
    RegistrationRefused, RestartReplicas, StopChildren,
};
use super::replica::{Attached, Replica};
use super::trial::{EndTrial, GrowTrial, StartTrial, Trial, TrialLink, TrialRefused};
use crate::actors::plane::arbiters::DataArbiters;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::replica::container::{Container, Identity};
use crate::actors::replica::dispatch::FromReplica;
use crate::actors::replica::messages::{News, PoolOrder, ReplicaNews};
use crate::children::Children;
use crate::logging::outsiders;
use crate::metrics::RpcEnd;
use crate::metrics::file_sd::MetricsAt;
use crate::rpc::registration::{Introduction, NotTaken, Registration};
use crate::supervision::control::Outbox;
use crate::supervision::kept::Lifeline;
use clipper_domain::{ModelId, ReplicaId, Replicas, Signature};
use clipper_rpc::codec::Build;

/// How often the pool looks for replicas whose end it was not told of.
const SWEEP: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Registered {
    handle: Arc<ModelHandle>,
    batcher: Option<Recipient<FromReplica>>,
    /// The last one that a replica has stated.
    build: Option<Build>,
}

pub struct ContainerPool {
    plane: Arc<DataPlane>,
    arbiters: DataArbiters,
    list: ContainerList,
    children: Children,
    /// Versions that are tried out.
    trials: HashMap<ModelId, Arc<TrialLink>>,
    models: HashMap<ModelId, Registered>,
    retired: HashSet<ModelId>,
    replicas: HashMap<ModelId, BTreeMap<ReplicaId, Replica>>,
    stopping: bool,
    _lifeline: Lifeline,
}

impl ContainerPool {
    /// An empty pool. Replicas of an earlier one end by themselves and come back to this one.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        arbiters: DataArbiters,
        list: ContainerList,
        children: Children,
        lifeline: Lifeline,
    ) -> Self {
        list.clear_own();
        Self {
            plane,
            arbiters,
            list,
            children,
            trials: HashMap::new(),
            models: HashMap::new(),
            retired: HashSet::new(),
            replicas: HashMap::new(),
            stopping: false,
            _lifeline: lifeline,
        }
    }

    fn check(&self, registration: &Registration) -> Result<(), RegistrationRefused> {
        if self.stopping {
            return Err(RegistrationRefused::Stopping);
        }
        let Introduction { model, input_type: offered, signature, .. } = &registration.introduction;
        let offered = *offered;
        let trial = self.trials.get(model);
        let registered = match self.models.get(model) {
            Some(known) => Some(known.handle.spec.input_type),
            None => trial.map(|trial| trial.input_type),
        };
        let registered = registered.ok_or(RegistrationRefused::UnknownModel)?;
        let is_taken = |stated: &Signature| match (self.models.get(model), trial) {
            (Some(known), _) => known.handle.takes_signature(stated),
            (None, Some(trial)) => trial.takes_signature(stated),
            (None, None) => true,
        };
        let refused = if registered != offered {
            RegistrationRefused::InputType { model: model.clone(), registered, offered }
        } else if signature.as_ref().is_some_and(|stated| !is_taken(stated)) {
            RegistrationRefused::Signature(model.clone())
        } else {
            return Ok(());
        };
        if let Some(trial) = trial {
            trial.refused(refused.to_string());
        }
        Err(refused)
    }

    /// Lets those who wait for a model know whether its containers are taken now.
    fn tell_known(&self, model: &ModelId) {
        let known = self.models.contains_key(model) || self.trials.contains_key(model);
        self.list.set_known(model, known);
    }

    fn take(&mut self, registration: Registration, ctx: &mut Context<Self>) {
        let Registration { stream, unread, introduction, peer, security, place } = registration;
        let Introduction { identity, model, input_type, extensions, signature } = introduction;
        let metrics_at = MetricsAt::of(peer.ip(), &identity);
        let replica = self.list.number(&model);
        let (of, tensors) = (model.clone(), signature.clone());
        let identity =
            Identity { model: of, replica, input_type, extensions, signature: tensors, peer };
        let (plane, pool) = (Arc::clone(&self.plane), ctx.address().recipient());
        let (started, start) = oneshot::channel();
        // The connection joins the event loop of the thread that owns it from now on.
        self.arbiters.of(&model).spawn_fn(move || {
            match Container::adopt(plane, identity, pool, (stream, security), place) {
                Ok((container, read_half)) => {
                    let container = Container::create(|ctx| {
                        container.listen(read_half, &unread, ctx);
                        container
                    });
                    // The receiver is gone only if the pool is.
                    let _ = started.send(container);
                }
                Err(error) => error!(%error, "a container connection cannot be adopted"),
            }
        });
        // Known before it serves: a process that dies of its first query has served.
        let child = self.children.seat_of(&model, peer);
        let joined = futures_util::future::join(start, child).into_actor(self);
        ctx.wait(joined.map(move |(container, child), pool, ctx| {
            let Ok(container) = container else {
                return child.iter().for_each(|child| child.connection_ended(None));
            };
            if let Some(left_out) = outsiders::line("replica_connected", peer.ip()) {
                info!(%model, %replica, %peer, %input_type, left_out, "replica connected");
            }
            let orders = Outbox::new(container.clone().recipient());
            let attached = None;
            let entry =
                Replica { child, container, orders, input_type, signature, metrics_at, attached };
            pool.add(&model, replica, entry, ctx);
        }));
    }

    fn add(&mut self, model: &ModelId, id: ReplicaId, replica: Replica, ctx: &mut Context<Self>) {
        if let Some(trial) = self.trials.get(model) {
            let container = replica.container.clone().recipient();
            trial.connected(id, container, replica.signature.clone());
        }
        self.replicas.entry(model.clone()).or_default().insert(id, replica);
        if self.models.contains_key(model) {
            self.attach(model, Some(id), ctx);
        } else {
            self.show(model, id);
        }
    }

    /// Lets the batcher of a registered model have its replicas, or this one. Each is listed when
    /// it has: whoever sees it in the list may rely on it.
    fn attach(&mut self, model: &ModelId, only: Option<ReplicaId>, ctx: &mut Context<Self>) {
        let Some(Registered { handle, batcher, .. }) = self.models.get(model) else { return };
        // Otherwise when it reports.
        let Some(batcher) = batcher else { return };
        for (id, replica) in self.replicas.get_mut(model).into_iter().flatten() {
            let is_wanted = only.is_none_or(|only| only == *id);
            if !is_wanted || replica.input_type != handle.spec.input_type {
                continue;
            }
            if !replica.is_signed(handle, &self.plane) {
                replica.tell(PoolOrder::Close(RpcEnd::InputType));
                continue;
            }
            let (model, id) = (model.clone(), *id);
            let attached = replica.attach(Arc::clone(handle), batcher.clone());
            let attached = actix::fut::wrap_future::<_, Self>(attached);
            ctx.spawn(attached.map(move |_, pool, _| pool.show(&model, id)));
        }
    }

    /// Lists a replica, unless it has gone or its model was retired.
    fn show(&self, model: &ModelId, id: ReplicaId) {
        let replica = self.replicas.get(model).and_then(|replicas| replicas.get(&id));
        if let Some(replica) = replica.filter(|_| !self.retired.contains(model)) {
            let input_type = replica.input_type;
            let info = ContainerInfo { model: model.clone(), replica: id, input_type };
            self.list.put(info, replica.metrics_at);
        }
    }

    /// Forgets a replica. `given_up`: why the server has ended its connection, if the process at
    /// its other end is at fault.
    fn remove(&mut self, model: &ModelId, replica: ReplicaId, given_up: Option<&str>) {
        self.list.remove(model, replica);
        let Some(replicas) = self.replicas.get_mut(model) else { return };
        let removed = replicas.remove(&replica);
        if replicas.is_empty() {
            self.replicas.remove(model);
        }
        if let Some(child) = removed.and_then(|removed| removed.child) {
            child.connection_ended(given_up);
        }
    }

    fn registered(&mut self, handle: Arc<ModelHandle>, ctx: &mut Context<Self>) {
        let id = handle.spec.id.clone();
        self.retired.remove(&id);
        self.list.set_retired(&id, false);
        for replica in self.replicas.get(&id).into_iter().flat_map(BTreeMap::values) {
            if replica.input_type != handle.spec.input_type {
                replica.tell(PoolOrder::Close(RpcEnd::InputType));
            }
        }
        // Its batcher may have reported before the model was known here.
        let batcher = handle.batcher();
        self.models.insert(id.clone(), Registered { handle, batcher, build: None });
        self.tell_known(&id);
        self.attach(&id, None, ctx);
        self.children.start(&id);
    }

    fn planned(&mut self, id: &ModelId, replicas: &Replicas) {
        let Some(model) = self.models.get(id) else { return };
        let trial = self.trials.remove(id);
        let adopt = || trial.iter().for_each(|trial| trial.adopt());
        self.children.keep(id, model.handle.spec.input_type, replicas, adopt);
    }

    fn retire(&mut self, id: &ModelId) {
        self.models.remove(id);
        self.tell_known(id);
        self.list.set_retired(id, true);
        self.children.stop(id);
        let Some(replicas) = self.replicas.get(id) else { return };
        for (replica, entry) in replicas {
            self.list.remove(id, *replica);
            entry.tell(PoolOrder::Detach);
        }
        // Its containers may stay connected or come back: not listed until it is registered again.
        self.retired.insert(id.clone());
    }

    /// Forgets replicas whose actor ended without a word.
    fn sweep(&mut self) {
        let dead: Vec<(ModelId, ReplicaId)> = self
            .replicas
            .iter()
            .flat_map(|(model, replicas)| {
                replicas.iter().map(move |(id, entry)| (model, id, entry))
            })
            .filter(|(_, _, entry)| !entry.container.connected())
            .map(|(model, id, _)| (model.clone(), *id))
            .collect();
        for (model, replica) in dead {
            self.remove(&model, replica, None);
        }
    }

    fn ended(&mut self, model: &ModelId, replica: ReplicaId, why: RpcEnd, text: &str) {
        self.plane.metrics.rpc_ended(why);
        if let Some(trial) = self.trials.get(model) {
            trial.left(replica, text);
        }
        self.remove(model, replica, is_at_fault(why).then_some(text));
    }

    /// Drops what the cache has of a version whose replicas run something else now.
    fn stated(&mut self, model: &ModelId, replica: ReplicaId, build: &Build) {
        let Some(registered) = self.models.get_mut(model) else { return };
        let before = registered.build.replace(build.clone());
        if let Some(before) = before.filter(|before| before != build) {
            self.plane.cache.retire(registered.handle.serial);
            warn!(
                %model, %replica, %before, now = %build,
                "the replica runs another build of the same version: the version's answers left \
                 the cache; give new code a new version, so that answers of both are never mixed"
            );
        }
    }

    #[cfg(test)]
    pub(in crate::actors) fn containers(&self, id: &ModelId) -> Vec<Addr<Container>> {
        let replicas = self.replicas.get(id).into_iter().flat_map(BTreeMap::values);
        replicas.map(|replica| replica.container.clone()).collect()
    }
}

/// Whether a connection that the server ended so says that the process at its other end does not
/// work. Otherwise it may come back by itself.
fn is_at_fault(why: RpcEnd) -> bool {
    !matches!(why, RpcEnd::Closed | RpcEnd::Retired | RpcEnd::Shutdown | RpcEnd::Panicked)
}

impl Actor for ContainerPool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        ctx.run_interval(SWEEP, |pool, _| pool.sweep());
    }
}

impl Handler<Register> for ContainerPool {
    type Result = Result<(), NotTaken>;

    fn handle(&mut self, register: Register, ctx: &mut Self::Context) -> Self::Result {
        if let Err(refused) = self.check(&register.0) {
            let why = refused.why_not();
            return Err(NotTaken { registration: Some(Box::new(register.0)), why });
        }
        self.take(register.0, ctx);
        Ok(())
    }
}

impl Handler<ReplicaNews> for ContainerPool {
    type Result = ();

    fn handle(&mut self, news: ReplicaNews, _: &mut Self::Context) {
        let ReplicaNews { model, replica, what } = news;
        match what {
            News::Stated(build) => self.stated(&model, replica, &build),
            News::Ended { why, text } => self.ended(&model, replica, why, &text),
        }
    }
}

impl Handler<BatcherReady> for ContainerPool {
    type Result = ();

    fn handle(&mut self, ready: BatcherReady, ctx: &mut Self::Context) {
        let id = &ready.model.spec.id;
        let Some(registered) = self.models.get_mut(id) else { return };
        let known = registered.batcher.as_ref() == Some(&ready.batcher);
        if known || registered.handle.serial != ready.model.serial {
            return;
        }
        registered.batcher = Some(ready.batcher);
        self.attach(id, None, ctx);
    }
}

impl Handler<AwaitAttached> for ContainerPool {
    type Result = ResponseFuture<()>;

    fn handle(
        &mut self,
        AwaitAttached(models): AwaitAttached,
        _: &mut Self::Context,
    ) -> Self::Result {
        let replicas = models.iter().filter_map(|id| self.replicas.get(id)).flatten();
        let attached: Vec<Attached> =
            replicas.filter_map(|(_, replica)| replica.attached.clone()).collect();
        Box::pin(async move {
            futures_util::future::join_all(attached).await;
        })
    }
}

impl Handler<ModelsChanged> for ContainerPool {
    type Result = ();

    fn handle(&mut self, changed: ModelsChanged, ctx: &mut Self::Context) {
        for change in changed.0 {
            match change {
                ModelChange::Registered(handle) => self.registered(handle, ctx),
                ModelChange::Planned(id, replicas) => self.planned(&id, &replicas),
                ModelChange::Released(id) => self.children.stop(&id),
                ModelChange::Retired(id) => self.retire(&id),
            }
        }
    }
}

impl Handler<StartTrial> for ContainerPool {
    type Result = Result<Trial, TrialRefused>;

    fn handle(&mut self, start: StartTrial, _: &mut Self::Context) -> Self::Result {
        if self.stopping {
            return Err(TrialRefused::Stopping);
        }
        if self.models.contains_key(&start.id) {
            return Err(TrialRefused::Registered(start.id));
        }
        let StartTrial { id, input_type, replicas, lines_max } = start;
        let (link, trial) = TrialLink::new(input_type, lines_max);
        self.children.try_out(id.clone(), input_type, &replicas, link.clone())?;
        self.trials.insert(id.clone(), link);
        self.tell_known(&id);
        Ok(trial)
    }
}

impl Handler<GrowTrial> for ContainerPool {
    type Result = ();

    fn handle(&mut self, grow: GrowTrial, _: &mut Self::Context) {
        self.children.grow_trial(&grow.0);
    }
}

impl Handler<EndTrial> for ContainerPool {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, end: EndTrial, _: &mut Self::Context) -> Self::Result {
        let trial = self.trials.remove(&end.0).map(|trial| trial.connections());
        for replica in trial.into_iter().flatten() {
            self.list.remove(&end.0, replica);
            if let Some(entry) = self.replicas.get(&end.0).and_then(|all| all.get(&replica)) {
                entry.tell(PoolOrder::Close(RpcEnd::Retired));
            }
        }
        let ended = self.children.end_trial(&end.0);
        self.tell_known(&end.0);
        Box::pin(ended)
    }
}

impl Handler<PlansOfFile> for ContainerPool {
    type Result = ();

    fn handle(&mut self, PlansOfFile(plans): PlansOfFile, _: &mut Self::Context) {
        let models = &self.models;
        self.children.replan(plans, |id| models.contains_key(id));
    }
}

impl Handler<StopChildren> for ContainerPool {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopChildren, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        Box::pin(self.children.stop_all())
    }
}

impl Handler<RestartReplicas> for ContainerPool {
    type Result = usize;

    fn handle(&mut self, restart: RestartReplicas, _: &mut Self::Context) -> usize {
        let RestartReplicas { name, version } = restart;
        self.children.restart(|id| {
            name.as_ref().is_none_or(|name| id.name == *name)
                && version.as_ref().is_none_or(|version| id.version == *version)
        })
    }
}

#[cfg(test)]
#[path = "container_pool_tests.rs"]
mod tests;
