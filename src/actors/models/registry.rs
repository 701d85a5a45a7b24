//! Starts, replaces and stops the `Model` actors as the metadata says, and keeps them alive.
//!
//! Supervision: what runs outlives an actor that panics. Its successor takes it over, follows the
//! catalog from its state, and does what is missing.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::model::{AwaitBatcher, Model, RetireModel};
use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::arbiters::DataArbiters;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::messages::{AwaitAttached, ModelChange, ModelsChanged};
use crate::store::projection::Effect;
use crate::store::served::Served;
use crate::supervision::budget::RestartBudget;
use crate::supervision::control::Outbox;
use crate::supervision::kept::{Kept, Lifeline, Replaced, Role};
use clipper_domain::{ModelId, ModelSpec, Replicas};
use clipper_scheduling::latency::LatencyCurve;

/// How long a deployed version's batcher is waited for before queries go to it.
const BATCHER_WAIT: Duration = Duration::from_secs(1);

struct RunningModel {
    /// As it is registered now.
    spec: ModelSpec,
    handle: Arc<ModelHandle>,
    actor: Kept<Model>,
    /// What the server keeps alive of it, if it was deployed.
    replicas: Option<Replicas>,
}

impl RunningModel {
    /// What a pool has to hear of it.
    fn changes(&self) -> impl Iterator<Item = ModelChange> + use<> {
        let id = self.handle.spec.id.clone();
        let planned = self.replicas.clone().map(|replicas| ModelChange::Planned(id, replicas));
        std::iter::once(ModelChange::Registered(Arc::clone(&self.handle))).chain(planned)
    }
}

/// What an actor that has ended leaves to its successor.
#[derive(Default)]
struct RegistryInheritance {
    running: HashMap<ModelId, RunningModel>,
    last_serial: u64,
    /// What the pool has not been told yet.
    changes: Vec<ModelChange>,
}

pub struct Models {
    plane: Arc<DataPlane>,
    arbiters: DataArbiters,
    pool: Kept<ContainerPool>,
    catalog: Kept<CatalogWriter>,
    running: HashMap<ModelId, RunningModel>,
    last_serial: u64,
    changes: Vec<ModelChange>,
    /// Told when the catalog's first state is in place.
    loaded: Option<oneshot::Receiver<()>>,
    left: Rc<RefCell<RegistryInheritance>>,
    _lifeline: Lifeline,
}

impl Models {
    /// Starts one that follows the catalog. `kept_curves` is what an earlier process has learned.
    #[must_use]
    pub fn keep(
        plane: Arc<DataPlane>,
        arbiters: DataArbiters,
        pool: Kept<ContainerPool>,
        catalog: Kept<CatalogWriter>,
        kept_curves: HashMap<ModelId, LatencyCurve>,
    ) -> Kept<Self> {
        plane.curves.keep(kept_curves);
        let left = Rc::<RefCell<RegistryInheritance>>::default();
        let budget = RestartBudget::for_actor(&plane.containers);
        Kept::start("models", Arc::clone(&plane.metrics), budget, move |lifeline| {
            let RegistryInheritance { running, last_serial, changes } = left.take();
            Self {
                plane: Arc::clone(&plane),
                arbiters: arbiters.clone(),
                pool: pool.clone(),
                catalog: catalog.clone(),
                running,
                last_serial,
                changes,
                loaded: None,
                left: Rc::clone(&left),
                _lifeline: lifeline,
            }
        })
    }

    /// What runs; applications are not its business but for the series that they have.
    fn running(&self) -> Served {
        let models = self.running.iter();
        let replicas = models.clone().filter_map(|(id, running)| {
            running.replicas.clone().map(|replicas| (id.clone(), replicas))
        });
        Served {
            replicas: replicas.collect(),
            models: models.map(|(id, r)| (id.clone(), r.spec.clone())).collect(),
            current: self.plane.directory.current().collect::<BTreeMap<_, _>>(),
            traces: self.plane.metrics.app_names(),
            ..Served::default()
        }
    }

    #[cfg(test)]
    pub(in crate::actors) fn actor(&self, id: &ModelId) -> Option<Addr<Model>> {
        self.running.get(id).map(|running| running.actor.addr())
    }

    fn run(&mut self, effect: &Effect) {
        match effect {
            Effect::ServeModel(spec) => self.serve(spec),
            Effect::KeepReplicas(id, replicas) => self.keep_replicas(id, replicas),
            Effect::ReleaseReplicas(id) => self.release_replicas(id),
            Effect::StopModel(id) => {
                self.retire(id);
            }
            Effect::RouteModel(name, version) => {
                self.plane.directory.route(name, version.clone());
            }
            // Every worker serves applications; one place forgets their series.
            Effect::ForgetMetrics(name) => self.plane.metrics.remove_app(name),
            Effect::ForgetModelMetrics(id) => self.plane.metrics.remove_model(id),
            Effect::ServeApp(_)
            | Effect::StopApp(_)
            | Effect::RouteApp(..)
            | Effect::ForgetPolicyState(_)
            | Effect::KeysChanged => {}
        }
    }

    fn serve(&mut self, spec: &ModelSpec) {
        if self.redefine(spec) {
            return;
        }
        let replicas = self.running.get(&spec.id).and_then(|running| running.replicas.clone());
        if self.retire(&spec.id) {
            self.plane.metrics.remove_model(&spec.id);
        }
        let metrics = self.plane.metrics.model(&spec.id);
        let curve = self.plane.curves.take(&spec.id).unwrap_or_default();
        self.last_serial += 1;
        let handle = Arc::new(ModelHandle::new(spec.clone(), self.last_serial, metrics, curve));
        let actor = self.start_model(&handle);
        self.plane.directory.insert(Arc::clone(&handle));
        info!(model = %spec.id, input_type = %spec.input_type, "model registered");
        let running = RunningModel { spec: spec.clone(), handle, actor, replicas };
        self.changes.extend(running.changes());
        self.running.insert(spec.id.clone(), running);
    }

    /// Whether it runs already and takes and gives the same: then nothing begins anew.
    fn redefine(&mut self, spec: &ModelSpec) -> bool {
        let running = self.running.get_mut(&spec.id);
        let Some(running) = running.filter(|running| running.spec.serves_as(spec)) else {
            return false;
        };
        running.handle.redefine(spec);
        if running.spec.cache && !spec.cache {
            self.plane.cache.retire(running.handle.serial);
        }
        running.spec = spec.clone();
        true
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

    fn start_model(&self, handle: &Arc<ModelHandle>) -> Kept<Model> {
        let role = Role {
            actor: "model",
            of: handle.spec.id.to_string(),
            remedy: "register the model anew",
        };
        let (plane, pool) = (Arc::clone(&self.plane), self.pool.clone());
        let (handle, arbiter) = (Arc::clone(handle), self.arbiters.of(&handle.spec.id).clone());
        let start = move |lifeline: Lifeline| {
            let (plane, handle, pool) = (Arc::clone(&plane), Arc::clone(&handle), pool.clone());
            let new = move |_: &mut Context<Model>| Model::new(plane, handle, pool, lifeline);
            Model::start_in_arbiter(&arbiter, new)
        };
        let budget = RestartBudget::for_actor(&self.plane.containers);
        Kept::supervise(role, Arc::clone(&self.plane.metrics), budget, start)
    }

    /// Whether there was such a version.
    fn retire(&mut self, id: &ModelId) -> bool {
        let Some(running) = self.running.remove(id) else { return false };
        self.plane.directory.remove(&id.name, &id.version);
        self.plane.cache.retire(running.handle.serial);
        let actor = running.actor.addr();
        // From here on it is not started again.
        drop(running);
        if Outbox::new(actor.recipient()).tell(RetireModel).is_err() {
            warn!(model = %id, "its actor had ended already");
        }
        self.changes.push(ModelChange::Retired(id.clone()));
        info!(model = %id, "model retired");
        true
    }

    /// Tells the pool what has changed, once; done when it has heard.
    fn tell_pool(&mut self) -> LocalBoxFuture<'static, ()> {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return Box::pin(std::future::ready(()));
        }
        let told = self.pool.send(ModelsChanged(changes));
        Box::pin(async move {
            if told.await.is_err() {
                // Its successor is told everything.
                warn!("the container pool has ended");
            }
        })
    }

    /// Done when the batchers of these versions take queries and the pool knows them: what comes
    /// next may be that queries go there, and none of them is to find a version half-built.
    fn await_batchers(&self, ids: &[ModelId]) -> LocalBoxFuture<'static, ()> {
        let actors: Vec<Addr<Model>> =
            ids.iter().filter_map(|id| Some(self.running.get(id)?.actor.addr())).collect();
        let (pool, ids) = (self.pool.clone(), ids.to_vec());
        if actors.is_empty() {
            return Box::pin(std::future::ready(()));
        }
        let there = async move {
            for actor in actors {
                // One that has ended is started again, and its queries wait for that.
                let _ = actor.send(AwaitBatcher).await;
            }
            let _ = pool.send(AwaitAttached(ids)).await;
        };
        Box::pin(async move {
            if tokio::time::timeout(BATCHER_WAIT, there).await.is_err() {
                warn!("a deployed model takes queries before it is ready");
            }
        })
    }
}

impl Actor for Models {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        ctx.add_stream(self.pool.replacements());
        self.loaded = Some(follower::follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

/// Also where it panics, before its parent hears of its end.
impl Drop for Models {
    fn drop(&mut self) {
        self.left.replace(RegistryInheritance {
            running: std::mem::take(&mut self.running),
            last_serial: self.last_serial,
            changes: std::mem::take(&mut self.changes),
        });
    }
}

/// Another pool, which knows nothing yet.
impl StreamHandler<Replaced> for Models {
    fn handle(&mut self, _: Replaced, ctx: &mut Self::Context) {
        self.changes = self.running.values().flat_map(RunningModel::changes).collect();
        ctx.wait(self.tell_pool().into_actor(self));
    }

    fn finished(&mut self, _: &mut Self::Context) {
        error!("there is no container pool any more; replicas stay as they are");
    }
}

/// Say when all that the catalog has is started. Sender: the composition root, once.
#[derive(Message)]
#[rtype(result = "Result<(), CatalogEnded>")]
pub struct Boot;

/// There is no metadata to start from.
#[derive(Debug, thiserror::Error)]
#[error("the catalog writer has ended")]
pub struct CatalogEnded;

impl Handler<Boot> for Models {
    type Result = ResponseFuture<Result<(), CatalogEnded>>;

    fn handle(&mut self, _: Boot, _: &mut Self::Context) -> Self::Result {
        let loaded = self.loaded.take();
        Box::pin(async move {
            match loaded {
                Some(loaded) => loaded.await.map_err(|_| CatalogEnded),
                None => Ok(()),
            }
        })
    }
}

impl Handler<Followed> for Models {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, followed: Followed, _: &mut Self::Context) -> Self::Result {
        let is_state = followed.is_state();
        let effects = followed.effects(|| self.running());
        for effect in effects.iter() {
            self.run(effect);
        }
        let planned: Vec<ModelId> = effects
            .iter()
            .filter_map(|effect| match effect {
                // At a start there is nobody whose queries could be moved.
                Effect::KeepReplicas(id, _) if !is_state => Some(id.clone()),
                _ => None,
            })
            .collect();
        let (told, there) = (self.tell_pool(), self.await_batchers(&planned));
        let done = async move {
            told.await;
            there.await;
        };
        AtomicResponse::new(Box::pin(done.into_actor(self)))
    }
}
