//! Starts, replaces and stops the `Model` actors as the metadata says, and keeps them alive.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt as _;
use tracing::{error, info, warn};

use super::catalog::{CatalogWriter, Published, Subscribe, Subscribed};
use super::container_pool::ContainerPool;
use super::data_plane::DataPlane;
use super::directory::ModelHandle;
use super::kept::{Kept, Replaced};
use super::messages::{ModelChange, ModelEnded, ModelsChanged, RetireModel};
use super::model::Model;
use super::supervisor::{RestartBudget, Verdict};
use crate::store::projection::{Catalog, Effect};
use clipper_clock as clock;
use clipper_domain::{ModelId, ModelSpec, Replicas};
use clipper_scheduling::latency::LatencyCurve;

/// How long a deployed version's batcher is waited for before queries go to it.
const BATCHER_WAIT: Duration = Duration::from_secs(1);

/// How often it is looked for.
const BATCHER_POLL: Duration = Duration::from_millis(1);

/// The threads that models run on. A model stays on one of them: its batcher and all its replicas
/// exchange messages without leaving it.
#[derive(Debug, Clone)]
pub struct DataArbiters(pub Arc<[ArbiterHandle]>);

impl DataArbiters {
    /// The thread of a model version.
    #[must_use]
    pub fn of(&self, id: &ModelId) -> &ArbiterHandle {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let threads = self.0.len() as u64;
        &self.0[usize::try_from(hasher.finish() % threads).unwrap_or(0)]
    }
}

struct Running {
    handle: Arc<ModelHandle>,
    actor: Addr<Model>,
    budget: RestartBudget,
    /// What the server keeps alive of it, if it was deployed.
    replicas: Option<Replicas>,
}

impl Running {
    /// What a pool has to hear of it.
    fn changes(&self) -> impl Iterator<Item = ModelChange> + use<> {
        let id = self.handle.spec.id.clone();
        let planned = self.replicas.clone().map(|replicas| ModelChange::Planned(id, replicas));
        std::iter::once(ModelChange::Registered(Arc::clone(&self.handle))).chain(planned)
    }
}

/// The actor.
pub struct Models {
    plane: Arc<DataPlane>,
    arbiters: DataArbiters,
    pool: Kept<ContainerPool>,
    catalog: Kept<CatalogWriter>,
    /// The last event that the models include.
    seq: u64,
    running: HashMap<ModelId, Running>,
    next_serial: u64,
    /// What the pool has not been told yet.
    changes: Vec<ModelChange>,
}

impl Models {
    /// Nothing runs until [`Boot`] or [`Published`] says so. `kept_curves` is what an earlier
    /// process has learned.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        arbiters: DataArbiters,
        pool: Kept<ContainerPool>,
        catalog: Kept<CatalogWriter>,
        kept_curves: HashMap<ModelId, LatencyCurve>,
    ) -> Self {
        plane.curves.keep(kept_curves);
        Self {
            plane,
            arbiters,
            pool,
            catalog,
            seq: 0,
            running: HashMap::new(),
            next_serial: 1,
            changes: Vec::new(),
        }
    }

    /// Makes the models what the snapshot says, whatever they were.
    fn load(&mut self, snapshot: &Subscribed, ctx: &mut Context<Self>) {
        let catalog: &Catalog = &snapshot.catalog;
        self.seq = snapshot.seq;
        let ids: Vec<ModelId> = self.running.keys().cloned().collect();
        for id in ids {
            if catalog.model(id.name.as_str(), id.version.as_str()).is_none() {
                self.retire(&id);
            }
            if catalog.current_version(id.name.as_str()).is_none() {
                self.plane.directory.route(&id.name, None);
            }
        }
        self.plane.metrics.retain_apps(|name| catalog.app(name.as_str()).is_some());
        self.run_all(catalog.boot_effects(), ctx);
    }

    #[cfg(test)]
    pub(super) fn actor(&self, id: &ModelId) -> Option<Addr<Model>> {
        self.running.get(id).map(|running| running.actor.clone())
    }

    fn subscribe(&self, ctx: &mut Context<Self>) -> Request<CatalogWriter, Subscribe> {
        self.catalog.send(Subscribe { recipient: ctx.address().recipient() })
    }

    fn run(&mut self, effect: &Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::ServeModel(spec) => self.serve(spec, ctx),
            Effect::KeepReplicas(id, replicas) => self.keep_replicas(id, replicas),
            Effect::ReleaseReplicas(id) => self.release_replicas(id),
            Effect::StopModel(id) => self.retire(id),
            Effect::RouteModel(name, version) => {
                self.plane.directory.route(name, version.clone());
            }
            // Every worker serves applications; one place forgets their series.
            Effect::StopApp(name) => self.plane.metrics.remove_app(name),
            Effect::ServeApp(_) | Effect::RouteApp(..) => {}
        }
    }

    fn serve(&mut self, spec: &ModelSpec, ctx: &mut Context<Self>) {
        if self.running.get(&spec.id).is_some_and(|r| r.handle.spec.serves_as(spec)) {
            return;
        }
        let replicas = self.running.get(&spec.id).and_then(|running| running.replicas.clone());
        self.retire(&spec.id);
        let metrics = self.plane.metrics.model(&spec.id);
        let curve = self.plane.curves.take(&spec.id).unwrap_or_default();
        let handle = ModelHandle::new(spec.clone(), self.next_serial, metrics, curve);
        let handle = Arc::new(handle);
        self.next_serial += 1;
        let mut budget = RestartBudget::new(&self.plane.containers);
        budget.started(clock::now());
        let actor = self.start_model(&handle, ctx);
        self.plane.directory.insert(Arc::clone(&handle));
        info!(model = %spec.id, input_type = %spec.input_type, "model registered");
        let running = Running { handle, actor, budget, replicas };
        self.changes.extend(running.changes());
        self.running.insert(spec.id.clone(), running);
    }

    fn keep_replicas(&mut self, id: &ModelId, replicas: &Replicas) {
        let Some(running) = self.running.get_mut(id) else { return };
        running.replicas = Some(replicas.clone());
        self.changes.push(ModelChange::Planned(id.clone(), replicas.clone()));
    }

    fn release_replicas(&mut self, id: &ModelId) {
        let Some(running) = self.running.get_mut(id) else { return };
        running.replicas = None;
        self.changes.push(ModelChange::Released(id.clone()));
    }

    /// Handles nothing else until the version's batcher is there: what comes next may be that
    /// queries go to it, and none of them is to find it half-built.
    fn await_batcher(&self, id: &ModelId, ctx: &mut Context<Self>) {
        let Some(running) = self.running.get(id) else { return };
        let handle = Arc::clone(&running.handle);
        let there = async move {
            while handle.batcher().is_none() {
                tokio::time::sleep(BATCHER_POLL).await;
            }
        };
        let bounded = tokio::time::timeout(BATCHER_WAIT, there);
        ctx.wait(bounded.into_actor(self).map(|there, _, _| {
            if there.is_err() {
                warn!("a deployed model takes queries before it is ready");
            }
        }));
    }

    fn start_model(&self, handle: &Arc<ModelHandle>, ctx: &mut Context<Self>) -> Addr<Model> {
        let (plane, pool, parent) = (Arc::clone(&self.plane), self.pool.clone(), ctx.address());
        let arbiter = self.arbiters.of(&handle.spec.id);
        let handle = Arc::clone(handle);
        Model::start_in_arbiter(arbiter, move |_| Model::new(plane, handle, pool, parent))
    }

    fn retire(&mut self, id: &ModelId) {
        let Some(running) = self.running.remove(id) else { return };
        self.plane.directory.remove(&id.name, &id.version);
        self.plane.cache.retire(running.handle.serial);
        self.plane.metrics.remove_model(id);
        if running.actor.try_send(RetireModel).is_err() {
            warn!(model = %id, "its actor had ended already");
        }
        self.changes.push(ModelChange::Retired(id.clone()));
        info!(model = %id, "model retired");
    }

    /// Runs effects and tells the pool once; nothing else is handled until it has heard.
    fn run_all<E: Borrow<Effect>>(
        &mut self,
        effects: impl IntoIterator<Item = E>,
        ctx: &mut Context<Self>,
    ) {
        for effect in effects {
            self.run(effect.borrow(), ctx);
        }
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let told = self.pool.send(ModelsChanged(changes)).into_actor(self);
        ctx.wait(told.map(|told, _, _| {
            if told.is_err() {
                // Its successor is told everything.
                warn!("the container pool has ended");
            }
        }));
    }
}

impl Actor for Models {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        ctx.add_stream(self.catalog.replacements().map(ReplacedActor::Catalog));
        ctx.add_stream(self.pool.replacements().map(ReplacedActor::Pool));
    }
}

enum ReplacedActor {
    Catalog(Replaced),
    Pool(Replaced),
}

impl StreamHandler<ReplacedActor> for Models {
    fn handle(&mut self, replaced: ReplacedActor, ctx: &mut Self::Context) {
        match replaced {
            ReplacedActor::Catalog(Replaced) => {
                let catalog = self.subscribe(ctx).into_actor(self);
                ctx.wait(catalog.map(|snapshot, models, ctx| match snapshot {
                    Ok(snapshot) => models.load(&snapshot, ctx),
                    // Its successor is followed.
                    Err(error) => warn!(%error, "models cannot follow the catalog for now"),
                }));
            }
            ReplacedActor::Pool(Replaced) => {
                self.changes = self.running.values().flat_map(Running::changes).collect();
                self.run_all(std::iter::empty::<Effect>(), ctx);
            }
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {
        error!("an actor of the control thread is gone; models stay as they are");
    }
}

/// Follow the catalog from here on. Sender: the composition root, once. Reply: all is started.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct Boot;

impl Handler<Boot> for Models {
    type Result = AtomicResponse<Self, Result<(), String>>;

    fn handle(&mut self, _: Boot, ctx: &mut Self::Context) -> Self::Result {
        let catalog = self.subscribe(ctx).into_actor(self);
        let started = catalog.map(|snapshot, models, ctx| {
            models.load(&snapshot.map_err(|e| format!("catalog writer: {e}"))?, ctx);
            Ok(())
        });
        // Nothing published may be handled before the snapshot it follows.
        AtomicResponse::new(Box::pin(started))
    }
}

impl Handler<Published> for Models {
    type Result = ();

    fn handle(&mut self, published: Published, ctx: &mut Self::Context) {
        // Of a dead writer, or known by the snapshot of its successor.
        if published.envelope.seq <= self.seq {
            return;
        }
        self.seq = published.envelope.seq;
        self.run_all(published.effects.iter(), ctx);
        for effect in published.effects.iter() {
            if let Effect::KeepReplicas(id, _) = effect {
                self.await_batcher(id, ctx);
            }
        }
    }
}

impl Handler<ModelEnded> for Models {
    type Result = ();

    fn handle(&mut self, ended: ModelEnded, ctx: &mut Self::Context) {
        let id = ended.handle.spec.id.clone();
        let now = clock::now();
        // A retired registration ends on purpose and is not in the table any more.
        let Some(running) = self.running.get_mut(&id) else { return };
        if running.handle.serial != ended.handle.serial {
            return;
        }
        self.plane.metrics.actor_restarted("model");
        match running.budget.died(now) {
            Verdict::GiveUp => error!(model = %id, "its actor failed too often; register it anew"),
            Verdict::RestartAfter(pause) => {
                warn!(model = %id, panicked = ended.panicked, ?pause, "its actor is started again");
                ctx.run_later(pause, move |models, ctx| models.start_again(&ended.handle, ctx));
            }
        }
    }
}

impl Models {
    fn start_again(&mut self, handle: &Arc<ModelHandle>, ctx: &mut Context<Self>) {
        let actor = self.start_model(handle, ctx);
        if let Some(running) = self.running.get_mut(&handle.spec.id)
            && running.handle.serial == handle.serial
        {
            running.budget.started(clock::now());
            running.actor = actor;
        } else if actor.try_send(RetireModel).is_err() {
            warn!(model = %handle.spec.id, "ended before it was retired");
        }
    }
}
