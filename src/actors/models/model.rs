//! One per registered model version: keeps its batcher alive and tells the others where it is.

use std::sync::Arc;

use actix::prelude::*;
use tracing::{error, warn};

use super::batcher::{Batcher, BatcherEnded, StopBatcher};
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::messages::BatcherReady;
use crate::supervision::budget::{RestartBudget, Verdict};
use crate::supervision::control::Outbox;
use crate::supervision::kept::Kept;
use clipper_clock as clock;
use clipper_scheduling::dispatch::Arrival;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::DefaultReason;

/// A model's actor has ended. Sender: `Model`, from `stopped()`, to whoever has started it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ModelEnded {
    /// Which registration.
    pub handle: Arc<ModelHandle>,
    /// By a panic.
    pub panicked: bool,
}

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
    parent: Outbox<ModelEnded>,
    batcher: Option<Addr<Batcher>>,
    budget: RestartBudget,
    retired: bool,
}

impl Model {
    /// A model whose batcher starts with it.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        handle: Arc<ModelHandle>,
        pool: Kept<ContainerPool>,
        parent: Recipient<ModelEnded>,
    ) -> Self {
        let budget = RestartBudget::new(&plane.containers);
        let parent = Outbox::new(parent);
        Self { plane, handle, pool, parent, batcher: None, budget, retired: false }
    }

    #[cfg(test)]
    pub(in crate::actors) fn batcher(&self) -> Option<Addr<Batcher>> {
        self.batcher.clone()
    }

    fn start_batcher(&mut self, queued: Vec<Arrival<Arc<Flight>>>, ctx: &mut Context<Self>) {
        self.budget.started(clock::now());
        self.handle.intake().open();
        let parent = ctx.address().recipient();
        let batcher =
            Batcher::new(Arc::clone(&self.plane), Arc::clone(&self.handle), parent, queued).start();
        self.batcher = Some(batcher.clone());
        let batcher = batcher.recipient();
        self.handle.set_batcher(Some(batcher.clone()));
        let ready = BatcherReady { model: Arc::clone(&self.handle), batcher };
        let tell_pool = self.pool.send(ready).into_actor(self);
        ctx.spawn(tell_pool.map(|told, model, _| {
            if told.is_err() {
                // Its successor looks for the batcher itself.
                warn!(model = %model.handle.spec.id, "the container pool has ended");
            }
        }));
    }

    fn give_up(&self, mut queued: Vec<Arrival<Arc<Flight>>>) {
        error!(
            model = %self.handle.spec.id,
            "its batcher failed too often; register the model anew"
        );
        self.handle.intake().close(&mut queued);
        self.plane.abort_all(queued, &DefaultReason::NoReplica);
    }
}

impl Actor for Model {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        self.start_batcher(Vec::new(), ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(batcher) = self.batcher.take() {
            self.handle.set_batcher(None);
            if Outbox::new(batcher.recipient()).tell(StopBatcher).is_err() {
                warn!(model = %self.handle.spec.id, "its batcher had ended already");
            }
        }
        let ended =
            ModelEnded { handle: Arc::clone(&self.handle), panicked: std::thread::panicking() };
        if self.parent.tell(ended).is_err() {
            warn!(model = %self.handle.spec.id, "nobody supervises it any more");
        }
    }
}

impl Handler<BatcherEnded> for Model {
    type Result = ();

    fn handle(&mut self, ended: BatcherEnded, ctx: &mut Self::Context) {
        self.batcher = None;
        self.handle.set_batcher(None);
        if self.retired {
            return;
        }
        self.plane.metrics.actor_restarted("batcher");
        self.plane.cache.forget_lost(clock::now());
        match self.budget.died(clock::now()) {
            Verdict::GiveUp => self.give_up(ended.queued),
            Verdict::RestartAfter(pause) => {
                warn!(model = %self.handle.spec.id, panicked = ended.panicked, ?pause,
                    "its batcher ended and is started again");
                ctx.run_later(pause, |model, ctx| model.start_batcher(ended.queued, ctx));
            }
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
        self.retired = true;
        ctx.stop();
    }
}
