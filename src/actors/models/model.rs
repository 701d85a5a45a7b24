//! One per registered model version: keeps its batcher alive and tells the others where it is.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use tracing::warn;

use super::batcher::{Batcher, StopBatcher};
use super::dispatching::Arrivals;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::messages::BatcherReady;
use crate::supervision::budget::RestartBudget;
use crate::supervision::control::Outbox;
use crate::supervision::kept::{Child, Kept, Lifeline, Role};
use clipper_clock as clock;
use clipper_scheduling::ticket::DefaultReason;

/// Sender: `Models`, before queries go to a deployed version. Reply: its batcher takes queries.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitBatcher;

/// The model version was retired. Sender: `Models`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RetireModel;

/// The actor. Lives on one of the data arbiters, with its batcher and its containers.
#[derive(Debug)]
pub struct Model {
    plane: Arc<DataPlane>,
    handle: Arc<ModelHandle>,
    pool: Kept<ContainerPool>,
    batcher: Option<Kept<Batcher>>,
    _lifeline: Lifeline,
}

impl Model {
    /// A model whose batcher starts with it.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        handle: Arc<ModelHandle>,
        pool: Kept<ContainerPool>,
        lifeline: Lifeline,
    ) -> Self {
        Self { plane, handle, pool, batcher: None, _lifeline: lifeline }
    }

    #[cfg(test)]
    pub(in crate::actors) fn batcher(&self) -> Option<Addr<Batcher>> {
        self.batcher.as_ref().map(Kept::addr)
    }
}

/// Starts a model's batcher.
struct BatcherChild {
    plane: Arc<DataPlane>,
    handle: Arc<ModelHandle>,
    pool: Kept<ContainerPool>,
    /// What a dead one had queued, for its successor.
    queued: Rc<RefCell<Arrivals>>,
}

impl Child for BatcherChild {
    type Actor = Batcher;

    fn start(&mut self, lifeline: Lifeline) -> Addr<Batcher> {
        self.handle.intake().open();
        let (plane, handle) = (Arc::clone(&self.plane), Arc::clone(&self.handle));
        let batcher = Batcher::new(plane, handle, &self.queued, lifeline).start();
        let recipient = batcher.clone().recipient();
        self.handle.set_batcher(Some(recipient.clone()));
        let ready = BatcherReady { model: Arc::clone(&self.handle), batcher: recipient };
        let (told, model) = (self.pool.send(ready), Arc::clone(&self.handle));
        actix::spawn(async move {
            if told.await.is_err() {
                // Its successor looks for the batcher itself.
                warn!(model = %model.spec.id, "the container pool has ended");
            }
        });
        batcher
    }

    fn died(&mut self) {
        self.handle.set_batcher(None);
        self.plane.cache.forget_lost(clock::now());
    }

    fn given_up(&mut self) {
        let mut queued = self.queued.take();
        self.handle.intake().close(&mut queued);
        self.plane.abort_all(queued, &DefaultReason::NoReplica);
    }
}

impl Actor for Model {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        let role = Role {
            actor: "batcher",
            of: self.handle.spec.id.to_string(),
            remedy: "register the model anew",
        };
        let child = BatcherChild {
            plane: Arc::clone(&self.plane),
            handle: Arc::clone(&self.handle),
            pool: self.pool.clone(),
            queued: Rc::default(),
        };
        let budget = RestartBudget::for_actor(&self.plane.containers);
        let metrics = Arc::clone(&self.plane.metrics);
        self.batcher = Some(Kept::supervise(role, metrics, budget, child));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.handle.set_batcher(None);
        // From here on it is not started again.
        let Some(batcher) = self.batcher.take().map(|batcher| batcher.addr()) else { return };
        if Outbox::new(batcher.recipient()).tell(StopBatcher).is_err() {
            warn!(model = %self.handle.spec.id, "its batcher had ended already");
        }
    }
}

impl Handler<AwaitBatcher> for Model {
    type Result = ();

    /// Handled after the start, with which the batcher comes.
    fn handle(&mut self, _: AwaitBatcher, _: &mut Self::Context) {}
}

impl Handler<RetireModel> for Model {
    type Result = ();

    fn handle(&mut self, _: RetireModel, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
