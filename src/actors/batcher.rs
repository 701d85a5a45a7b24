//! One per model version: the deadline-ordered queue, and which idle replica gets the next batch.
//!
//! Replicas pull: a batch goes out when queries wait and a replica is idle, so a slow or stuck
//! replica holds up nothing but the batch it has, and that is given to another one when it takes
//! suspiciously long. Expired and abandoned queries are skipped and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
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
use crate::serving::batch::{BatchController, Objective};
use crate::serving::flight::Flight;
use crate::serving::gather::{self, Crowd};
use crate::serving::queue::DeadlineQueue;
use crate::serving::ticket::DefaultReason;

/// A batch under way is suspected of hanging after this many times its learned p99 latency ...
const SUSPICION: u32 = 3;
/// ... but not before this, because a busy machine stalls everybody for some milliseconds.
const SUSPICION_MIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Running {
    flights: Arc<[Arc<Flight>]>,
    sent: Instant,
    suspect_after: Instant,
}

#[derive(Debug)]
struct Replica {
    container: Addr<Container>,
    controller: BatchController,
    running: Option<Running>,
}

/// The actor. Started by its [`Model`], which starts another one if it dies.
#[derive(Debug)]
pub struct Batcher {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    parent: Addr<Model>,
    queue: DeadlineQueue<Arc<Flight>>,
    objective: Objective,
    replicas: BTreeMap<ReplicaId, Replica>,
    idle: Vec<ReplicaId>,
    crowd: Crowd,
    running: usize,
    dispatch_due: bool,
    /// A small batch waits for more.
    gathering: Option<SpawnHandle>,
    watch: Option<(Instant, SpawnHandle)>,
    random: SmallRng,
}

/// Equal values that come one after the other.
#[derive(Debug)]
struct Run<T>(Option<(T, usize)>);

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + PartialEq> Run<T> {
    /// One more; if it is another value, the run before it is given to `count`.
    fn add(&mut self, value: T, count: impl Fn(T, usize)) {
        match &mut self.0 {
            Some((same, n)) if *same == value => *n += 1,
            run => {
                if let Some((other, n)) = run.replace((value, 1)) {
                    count(other, n);
                }
            }
        }
    }

    fn end(self, count: impl Fn(T, usize)) {
        if let Some((value, n)) = self.0 {
            count(value, n);
        }
    }
}

/// Hand out batches. To itself, so that all queries that have arrived by then are in the queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Dispatch;

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
        model.queued().clear();
        for (deadline, flight) in queued {
            model.queued().reserve_again(flight.objective());
            queue.push(deadline, flight);
        }
        Self {
            plane,
            random: SmallRng::seed_from_u64(model.serial),
            model,
            parent,
            queue,
            objective: Objective::default(),
            replicas: BTreeMap::new(),
            idle: Vec::new(),
            crowd: Crowd::default(),
            running: 0,
            dispatch_due: false,
            gathering: None,
            watch: None,
        }
    }

    fn dispatch_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.dispatch_due && !self.idle.is_empty() {
            self.dispatch_due = true;
            ctx.notify(Dispatch);
        }
    }

    /// Whether enough queries wait for a batch that is worth its price. If not, it will be sent
    /// when they do, or after a short wait.
    fn gathered(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(replica) = self.idle.last().and_then(|id| self.replicas.get(id)) else {
            return true;
        };
        let objective = self.objective.tightest();
        let limit = replica.controller.limit(objective);
        let wanted = self.crowd.worth_gathering(limit, replica.controller.curve(), objective);
        if self.queue.len() >= wanted {
            if let Some(wait) = self.gathering.take() {
                ctx.cancel_future(wait);
            }
            return true;
        }
        if self.gathering.is_none() && !self.queue.is_empty() {
            self.gathering = Some(ctx.run_later(gather::WAIT, |batcher, ctx| {
                batcher.gathering = None;
                batcher.dispatch(ctx);
            }));
        }
        false
    }

    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        while !self.queue.is_empty() {
            let Some(id) = self.pick_idle() else { break };
            let Some(replica) = self.replicas.get(&id) else { continue };
            let limit = replica.controller.limit(self.objective.tightest());
            let expected = replica.controller.curve().mean(limit.min(self.queue.len()));
            let flights = self.take(limit, expected, now);
            if flights.is_empty() {
                self.idle.push(id);
                break;
            }
            self.send(id, flights, now);
        }
        self.model.metrics.set_queue_depth(self.queue.len());
        self.arm_watch(ctx);
    }

    /// Of two idle replicas drawn at random the one that is faster.
    fn pick_idle(&mut self) -> Option<ReplicaId> {
        let n = self.idle.len();
        if n < 2 {
            return self.idle.pop();
        }
        let (a, b) = (self.random.random_range(0..n), self.random.random_range(0..n));
        let time_of_one = |at: usize| {
            self.replicas.get(&self.idle[at]).map(|replica| replica.controller.curve().mean(1))
        };
        let faster = if time_of_one(b) < time_of_one(a) { b } else { a };
        Some(self.idle.swap_remove(faster))
    }

    /// Up to `limit` queries that somebody still waits for. Those that would be late although they
    /// were sent at once are given up as long as others can use the place.
    fn take(&mut self, limit: usize, expected: Duration, now: Instant) -> Vec<Arc<Flight>> {
        let mut flights = Vec::with_capacity(limit.min(self.queue.len()));
        let mut skipped = 0;
        // Queries of one request stand one behind the other and are counted together.
        let mut left = Run::default();
        let mut waited = Run::default();
        let release = |objective, n| self.model.queued().release(n, objective);
        let note_wait = |arrived, n| self.model.metrics.queued(n, now - arrived);
        while flights.len() < limit {
            let Some((_, flight)) = self.queue.pop() else { break };
            left.add(flight.objective(), release);
            let Some(live_until) = flight.live_until(now) else {
                self.plane.cache.abort(&flight, DefaultReason::Late);
                skipped += 1;
                continue;
            };
            if live_until < now + expected && !self.queue.is_empty() {
                self.plane.cache.abort(&flight, DefaultReason::overtaken());
                skipped += 1;
                continue;
            }
            if !flight.start() {
                continue;
            }
            self.objective.saw(flight.objective());
            waited.add(flight.arrived, note_wait);
            flights.push(flight);
        }
        left.end(release);
        waited.end(note_wait);
        if skipped > 0 {
            self.model.metrics.skipped(skipped);
        }
        flights
    }

    fn send(&mut self, id: ReplicaId, flights: Vec<Arc<Flight>>, now: Instant) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let flights: Arc<[Arc<Flight>]> = Arc::from(flights);
        self.running += flights.len();
        self.crowd.batch_sent();
        let curve = replica.controller.curve();
        let patience = if curve.is_known() {
            (curve.p99(flights.len()) * SUSPICION).max(SUSPICION_MIN)
        } else {
            self.objective.tightest() / 2
        };
        let sent = replica.container.try_send(RunBatch { flights: Arc::clone(&flights) });
        replica.running = Some(Running { flights, sent: now, suspect_after: now + patience });
        if sent.is_err() {
            warn!(model = %self.model.spec.id, replica = %id, "replica does not take a batch");
            self.leave(id, "The replica ended before it took the batch");
        }
    }

    /// Forgets a replica and queues again what it had not answered.
    fn leave(&mut self, id: ReplicaId, why: &str) {
        let Some(replica) = self.replicas.remove(&id) else { return };
        self.idle.retain(|idle| *idle != id);
        if let Some(running) = replica.running {
            self.running -= running.flights.len();
            self.take_back(&running.flights, why);
        }
    }

    /// Queues again what a failed replica left unanswered, if there is time and a try left.
    fn take_back(&mut self, flights: &[Arc<Flight>], why: &str) {
        let now = clock::now();
        let mut retried = 0;
        for flight in flights.iter().filter(|flight| flight.failed()) {
            let Some(deadline) = flight.live_until(now) else {
                self.plane.cache.abort(flight, DefaultReason::Late);
                continue;
            };
            if flight.attempts() >= self.plane.serving.attempts_max {
                self.plane.cache.abort(flight, DefaultReason::Failed(Arc::from(why)));
            } else if flight.requeue() {
                self.queue_again(deadline, flight);
                retried += 1;
            }
        }
        self.model.metrics.retried(retried);
    }

    fn queue_again(&mut self, deadline: Instant, flight: &Arc<Flight>) {
        self.model.queued().reserve_again(flight.objective());
        self.queue.push(deadline, Arc::clone(flight));
    }

    /// Gives the queries of a batch that takes suspiciously long to another replica as well; the
    /// first answer counts. Its own replica gets nothing more until it answers.
    fn hedge(&mut self, now: Instant) {
        if self.replicas.len() < 2 {
            return;
        }
        let mut suspects = Vec::new();
        for (id, replica) in &mut self.replicas {
            if let Some(running) = replica.running.as_mut().filter(|r| r.suspect_after <= now) {
                // Once is enough.
                running.suspect_after = running.sent + Duration::from_secs(3_600);
                suspects.push((*id, Arc::clone(&running.flights)));
            }
        }
        for (id, flights) in suspects {
            let mut retried = 0;
            for flight in flights.iter() {
                let Some(deadline) = flight.live_until(now) else { continue };
                if flight.attempts() < self.plane.serving.attempts_max && flight.requeue() {
                    self.queue_again(deadline, flight);
                    retried += 1;
                }
            }
            if retried > 0 {
                debug!(model = %self.model.spec.id, replica = %id, retried, "replica is slow");
                self.model.metrics.retried(retried);
            }
        }
    }

    /// Wakes up for the first deadline in the queue and the first batch to be suspected, so that
    /// nothing expired stays behind and no batch hangs unseen even when no message comes.
    fn arm_watch(&mut self, ctx: &mut Context<Self>) {
        let several = self.replicas.len() > 1;
        let running = self.replicas.values().filter_map(|r| r.running.as_ref());
        let suspect = running.map(|r| r.suspect_after).min().filter(|_| several);
        let Some(due) = [self.queue.next_deadline(), suspect].into_iter().flatten().min() else {
            return;
        };
        if let Some((armed, handle)) = self.watch.take() {
            if armed <= due {
                self.watch = Some((armed, handle));
                return;
            }
            ctx.cancel_future(handle);
        }
        let pause = due.saturating_duration_since(clock::now());
        let handle = ctx.run_later(pause, |batcher, ctx| {
            batcher.watch = None;
            let now = clock::now();
            batcher.hedge(now);
            batcher.drop_overdue(now);
            batcher.dispatch(ctx);
        });
        self.watch = Some((due, handle));
    }

    fn drop_overdue(&mut self, now: Instant) {
        let mut skipped = 0;
        while let Some(flight) = self.queue.pop_overdue(now) {
            // A later query may have joined it.
            if let Some(later) = flight.live_until(now) {
                self.queue.push(later, flight);
                continue;
            }
            self.model.queued().release(1, flight.objective());
            self.plane.cache.abort(&flight, DefaultReason::Late);
            skipped += 1;
        }
        self.model.metrics.skipped(skipped);
    }

    /// Tells the HTTP workers what a round takes, for their admission test.
    fn publish_round(&self) {
        let objective = self.objective.tightest();
        let mut queries = 0;
        let mut time = Duration::ZERO;
        for replica in self.replicas.values() {
            let limit = replica.controller.limit(objective);
            queries += limit;
            time = time.max(replica.controller.curve().mean(limit));
        }
        self.model.round().publish(queries, time);
    }
}

impl Actor for Batcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        self.arm_watch(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let queued = std::iter::from_fn(|| self.queue.pop()).collect();
        let ended = BatcherEnded { queued, panicked: std::thread::panicking() };
        if let Err(SendError::Full(ended) | SendError::Closed(ended)) = self.parent.try_send(ended)
        {
            for (_, flight) in ended.queued {
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
        self.crowd.arrived(self.queue.len() + self.running);
        self.dispatch_soon(ctx);
        if self.idle.is_empty() {
            self.arm_watch(ctx);
        }
    }
}

impl Handler<Dispatch> for Batcher {
    type Result = ();

    fn handle(&mut self, _: Dispatch, ctx: &mut Self::Context) {
        self.dispatch_due = false;
        if self.gathered(ctx) {
            self.dispatch(ctx);
        } else {
            self.arm_watch(ctx);
        }
    }
}

impl Handler<ReplicaReady> for Batcher {
    type Result = ();

    fn handle(&mut self, ready: ReplicaReady, ctx: &mut Self::Context) {
        debug!(model = %self.model.spec.id, replica = %ready.replica, "replica ready");
        self.leave(ready.replica, "The replica was replaced");
        let controller = BatchController::new(
            self.model.spec.batch_size,
            self.plane.serving.batch_max,
            self.model.curve(),
        );
        let replica = Replica { container: ready.container, controller, running: None };
        self.replicas.insert(ready.replica, replica);
        self.idle.push(ready.replica);
        self.publish_round();
        self.dispatch_soon(ctx);
    }
}

impl Handler<BatchDone> for Batcher {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        let latency = done.answered - done.sent;
        self.model.metrics.batch_answered(done.replica, done.queries, latency);
        if let Some(replica) = self.replicas.get_mut(&done.replica)
            && let Some(running) = replica.running.take()
        {
            self.running -= running.flights.len();
            replica.controller.record(done.queries, latency);
            self.model.set_curve(replica.controller.curve());
            self.idle.push(done.replica);
            self.publish_round();
        }
        self.dispatch_soon(ctx);
    }
}

impl Handler<ReplicaLeft> for Batcher {
    type Result = ();

    fn handle(&mut self, left: ReplicaLeft, ctx: &mut Self::Context) {
        let known = self.replicas.get(&left.replica).is_some_and(|r| r.running.is_some());
        self.leave(left.replica, &left.why);
        if let Some(unanswered) = left.unanswered.filter(|_| !known) {
            self.take_back(&unanswered, &left.why);
        }
        self.model.metrics.remove_replica(left.replica);
        self.publish_round();
        self.dispatch_soon(ctx);
        self.arm_watch(ctx);
    }
}

impl Handler<StopBatcher> for Batcher {
    type Result = ();

    fn handle(&mut self, _: StopBatcher, ctx: &mut Self::Context) {
        while let Some((_, flight)) = self.queue.pop() {
            self.plane.cache.abort(&flight, DefaultReason::NoReplica);
        }
        self.model.queued().clear();
        ctx.stop();
    }
}
