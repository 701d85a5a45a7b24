//! One per model version: the deadline-ordered queue, and which idle replica gets the next batch.
//!
//! Replicas pull: a batch goes out when queries wait and a replica is idle, so a slow or stuck
//! replica holds up nothing but the batch it has. Expired and abandoned queries are skipped and
//! counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tracing::{debug, warn};

use super::container::Container;
use super::data_plane::DataPlane;
use super::directory::ModelHandle;
use super::messages::{
    BatchDone, BatcherEnded, Enqueue, ReplicaLeft, ReplicaReady, RunBatch, StopBatcher,
};
use super::model::Model;
use crate::clock::{self, Instant};
use crate::domain::ReplicaId;
use crate::serving::batch::BatchController;
use crate::serving::flight::Flight;
use crate::serving::queue::DeadlineQueue;
use crate::serving::ticket::DefaultReason;

#[derive(Debug)]
struct Replica {
    container: Addr<Container>,
    busy: bool,
    controller: BatchController,
    /// Time between deadline and arrival of the tightest query of the batch under way.
    objective: std::time::Duration,
}

/// The actor. Started by its [`Model`], which starts another one if it dies.
#[derive(Debug)]
pub struct Batcher {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    parent: Addr<Model>,
    queue: DeadlineQueue<Arc<Flight>>,
    replicas: BTreeMap<ReplicaId, Replica>,
    idle: Vec<ReplicaId>,
    sweep: Option<SpawnHandle>,
    random: SmallRng,
}

impl Batcher {
    /// A batcher that goes on with what its predecessor had queued.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        model: Arc<ModelHandle>,
        parent: Addr<Model>,
        queued: Vec<(Instant, Arc<Flight>)>,
    ) -> Self {
        let mut queue = DeadlineQueue::default();
        for (deadline, flight) in queued {
            queue.push(deadline, flight);
        }
        Self {
            plane,
            random: SmallRng::seed_from_u64(model.serial),
            model,
            parent,
            queue,
            replicas: BTreeMap::new(),
            idle: Vec::new(),
            sweep: None,
        }
    }

    /// Hands batches out while queries wait and replicas are idle.
    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        while !self.queue.is_empty() {
            let Some(id) = self.pick_idle() else { break };
            let Some(limit) = self.replicas.get(&id).map(|r| r.controller.limit()) else {
                continue;
            };
            let (flights, objective) = self.take(limit, now);
            if flights.is_empty() {
                self.idle.push(id);
                break;
            }
            self.send(id, flights, objective);
        }
        self.model.metrics.set_queue_depth(self.queue.len());
        self.arm_sweep(ctx);
    }

    /// Takes an idle replica at random, so that none is favoured.
    fn pick_idle(&mut self) -> Option<ReplicaId> {
        match self.idle.len() {
            0 => None,
            1 => self.idle.pop(),
            n => Some(self.idle.swap_remove(self.random.random_range(0..n))),
        }
    }

    /// Up to `limit` queries that somebody still waits for, and the tightest objective among them.
    fn take(&mut self, limit: usize, now: Instant) -> (Vec<Arc<Flight>>, std::time::Duration) {
        let mut flights = Vec::with_capacity(limit.min(self.queue.len()));
        let mut objective = std::time::Duration::MAX;
        let mut skipped = 0;
        while flights.len() < limit {
            let Some((_, flight)) = self.queue.pop() else { break };
            self.model.release(1);
            if flight.live_until(now).is_none() {
                self.plane.cache.abort(&flight, DefaultReason::Late);
                skipped += 1;
                continue;
            }
            if !flight.start() {
                continue;
            }
            objective = objective.min(flight.deadline - flight.arrived);
            self.model.metrics.queued(now - flight.arrived);
            flights.push(flight);
        }
        if skipped > 0 {
            self.model.metrics.skipped(skipped);
        }
        (flights, objective)
    }

    fn send(&mut self, id: ReplicaId, flights: Vec<Arc<Flight>>, objective: std::time::Duration) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.busy = true;
        replica.objective = objective;
        if let Err(error) = replica.container.try_send(RunBatch { flights }) {
            warn!(model = %self.model.spec.id, replica = %id, "replica does not take a batch");
            self.forget(id);
            let (SendError::Full(batch) | SendError::Closed(batch)) = error;
            self.take_back(batch.flights, "The replica ended before it took the batch");
        }
    }

    fn forget(&mut self, id: ReplicaId) {
        self.replicas.remove(&id);
        self.idle.retain(|idle| *idle != id);
        self.model.set_replicas(self.replicas.len());
    }

    /// Queues again what a failed replica left unanswered, if there is time and a try left.
    fn take_back(&mut self, flights: Vec<Arc<Flight>>, why: &str) {
        let now = clock::now();
        let mut retried = 0;
        for flight in flights {
            let Some(deadline) = flight.live_until(now) else {
                self.plane.cache.abort(&flight, DefaultReason::Late);
                continue;
            };
            if flight.attempts() >= self.plane.serving.attempts_max {
                self.plane.cache.abort(&flight, DefaultReason::Failed(Arc::from(why)));
            } else if flight.requeue() {
                self.model.reserve_again(1);
                self.queue.push(deadline, flight);
                retried += 1;
            }
        }
        self.model.metrics.retried(retried);
    }

    /// While queries wait, wakes up at the first deadline, so that nothing expired stays behind
    /// even when no replica pulls.
    fn arm_sweep(&mut self, ctx: &mut Context<Self>) {
        if self.sweep.is_some() {
            return;
        }
        let Some(deadline) = self.queue.next_deadline() else { return };
        let pause = deadline.saturating_duration_since(clock::now());
        self.sweep = Some(ctx.run_later(pause, |batcher, ctx| {
            batcher.sweep = None;
            batcher.drop_overdue();
            batcher.arm_sweep(ctx);
        }));
    }

    fn drop_overdue(&mut self) {
        let now = clock::now();
        let mut skipped = 0;
        while let Some(flight) = self.queue.pop_overdue(now) {
            // A later query may have joined it.
            if let Some(later) = flight.live_until(now) {
                self.queue.push(later, flight);
                continue;
            }
            self.model.release(1);
            self.plane.cache.abort(&flight, DefaultReason::Late);
            skipped += 1;
        }
        self.model.metrics.skipped(skipped);
        self.model.metrics.set_queue_depth(self.queue.len());
    }
}

impl Actor for Batcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        self.model.set_replicas(0);
        self.model.recount(self.queue.len());
        self.arm_sweep(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let queued = std::iter::from_fn(|| self.queue.pop()).collect();
        let ended = BatcherEnded { queued, panicked: std::thread::panicking() };
        if let Err(SendError::Full(ended) | SendError::Closed(ended)) = self.parent.try_send(ended)
        {
            for (_, flight) in ended.queued {
                self.model.release(1);
                self.plane.cache.abort(&flight, DefaultReason::NoReplica);
            }
        }
    }
}

impl Handler<Enqueue> for Batcher {
    type Result = ();

    fn handle(&mut self, enqueue: Enqueue, ctx: &mut Self::Context) {
        for (deadline, flight) in enqueue.entries {
            self.queue.push(deadline, flight);
        }
        self.dispatch(ctx);
    }
}

impl Handler<ReplicaReady> for Batcher {
    type Result = ();

    fn handle(&mut self, ready: ReplicaReady, ctx: &mut Self::Context) {
        debug!(model = %self.model.spec.id, replica = %ready.replica, "replica ready");
        let controller =
            BatchController::new(self.model.spec.batch_size, self.plane.serving.batch_max);
        let replica = Replica {
            container: ready.container,
            busy: false,
            controller,
            objective: std::time::Duration::MAX,
        };
        self.forget(ready.replica);
        self.replicas.insert(ready.replica, replica);
        self.idle.push(ready.replica);
        self.model.set_replicas(self.replicas.len());
        self.dispatch(ctx);
    }
}

impl Handler<BatchDone> for Batcher {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        let latency = done.answered - done.sent;
        self.model.metrics.batch_answered(done.replica, done.queries, latency);
        if let Some(replica) = self.replicas.get_mut(&done.replica).filter(|r| r.busy) {
            replica.busy = false;
            // A query may wait for one whole batch before its own: each gets half the objective.
            replica.controller.record(done.queries, latency, replica.objective / 2);
            self.idle.push(done.replica);
        }
        self.dispatch(ctx);
    }
}

impl Handler<ReplicaLeft> for Batcher {
    type Result = ();

    fn handle(&mut self, left: ReplicaLeft, ctx: &mut Self::Context) {
        self.forget(left.replica);
        self.take_back(left.unanswered, &left.why);
        self.dispatch(ctx);
    }
}

impl Handler<StopBatcher> for Batcher {
    type Result = ();

    fn handle(&mut self, _: StopBatcher, ctx: &mut Self::Context) {
        while let Some((_, flight)) = self.queue.pop() {
            self.model.release(1);
            self.plane.cache.abort(&flight, DefaultReason::NoReplica);
        }
        self.model.set_replicas(0);
        ctx.stop();
    }
}
