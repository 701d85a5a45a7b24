//! One per model version: the deadline-ordered queue, and which idle replica gets the next batch.
//!
//! Replicas pull: a batch goes out when queries wait and a replica is idle, or is about to be and
//! there is a full batch for it. So a slow or stuck replica holds up nothing but what it has, and
//! that is given to another one when it takes suspiciously long. Expired and abandoned queries are
//! skipped and counted.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::{debug, warn};

use super::container::Container;
use super::data_plane::DataPlane;
use super::directory::ModelHandle;
use super::messages::{
    BatchDone, BatcherEnded, Enqueue, ReplicaLeft, ReplicaReady, RunBatch, StopBatcher,
};
use super::model::Model;
use super::vigil::Vigil;
use clipper_clock::{self as clock, Instant};
use clipper_domain::ReplicaId;
use clipper_scheduling::admission::Round;
use clipper_scheduling::batch::{BatchController, Objective};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::gather::{self, Concurrency};
use clipper_scheduling::lane::Batch;
use clipper_scheduling::queue::DeadlineQueue;
use clipper_scheduling::replicas::Replicas;
use clipper_scheduling::run::Run;
use clipper_scheduling::spin_wait::SpinWait;
use clipper_scheduling::ticket::DefaultReason;

/// The actor. Started by its [`Model`], which starts another one if it dies.
#[derive(Debug)]
pub struct Batcher {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    parent: Addr<Model>,
    queue: DeadlineQueue<Arc<Flight>>,
    objective: Objective,
    replicas: Replicas<Addr<Container>, Arc<[Arc<Flight>]>>,
    concurrency: Concurrency,
    spin_wait: SpinWait,
    vigil: Vigil,
    round: Round,
    /// Queries sent and not answered.
    under_way: usize,
    dispatch_due: bool,
    /// A small batch waits for more.
    gathering: Option<SpawnHandle>,
    watch: Option<(Instant, SpawnHandle)>,
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
        let replicas = Replicas::new(model.serial);
        let stay_awake = Duration::from_micros(plane.serving.stay_awake_us);
        Self {
            plane,
            model,
            parent,
            queue,
            objective: Objective::default(),
            replicas,
            concurrency: Concurrency::default(),
            spin_wait: SpinWait::new(stay_awake),
            vigil: Vigil::default(),
            round: Round::default(),
            under_way: 0,
            dispatch_due: false,
            gathering: None,
            watch: None,
        }
    }

    /// Stays awake for the next message, if that pays.
    fn attend(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let vigil = self.spin_wait.heard(now, self.concurrency.is_one());
        if let Some(vigil) = vigil.and_then(|time| self.vigil.prolong(now, time)) {
            ctx.spawn(vigil.into_actor(self));
        }
    }

    fn dispatch_soon(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if self.dispatch_due {
            return;
        }
        if self.replicas.any_idle().is_some() || self.ending(now).is_some() {
            self.dispatch_due = true;
            ctx.notify(Dispatch);
        }
    }

    fn ending(&self, now: Instant) -> Option<(ReplicaId, Instant)> {
        self.replicas.ending(now, self.queue.len(), self.objective.tightest())
    }

    /// Whether enough queries wait for a batch that is worth its price. If not, it will be sent
    /// when they do, or after a short wait.
    fn gathered(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(replica) = self.replicas.any_idle() else { return true };
        let objective = self.objective.tightest();
        let limit = replica.controller.limit(objective);
        let wanted = self.concurrency.worth_gathering(limit, replica.controller.curve(), objective);
        if self.queue.len() >= wanted {
            if let Some(wait) = self.gathering.take() {
                ctx.cancel_future(wait);
            }
            return true;
        }
        if self.gathering.is_none() && !self.queue.is_empty() {
            let waiting = self.queue.len();
            self.gathering = Some(ctx.run_later(gather::WAIT, move |batcher, ctx| {
                batcher.gathering = None;
                if batcher.queue.len() <= waiting {
                    batcher.concurrency.stayed_away();
                }
                batcher.dispatch(ctx);
            }));
        }
        false
    }

    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        while !self.queue.is_empty() {
            let idle = self.replicas.pick_idle().map(|id| (id, now));
            let Some((id, begins)) = idle.or_else(|| self.ending(now)) else { break };
            let Some(replica) = self.replicas.get(id) else { continue };
            let limit = replica.controller.limit(self.objective.tightest());
            // A guess for a size that was never tried is no reason to give a query up.
            let curve = replica.controller.curve();
            let expected = curve.mean(limit.min(self.queue.len()).min(curve.explored));
            let flights = self.take(limit, begins + expected, now);
            if flights.is_empty() {
                if idle.is_some() {
                    self.replicas.is_idle_again(id);
                }
                break;
            }
            self.send(id, flights, now);
        }
        self.model.metrics.set_queue_depth(self.queue.len());
        self.publish_end();
        self.arm_watch(now, ctx);
    }

    /// Up to `limit` queries that somebody still waits for. Those that would be late if they were
    /// answered at `end` are given up as long as others can use the place.
    fn take(&mut self, limit: usize, end: Instant, now: Instant) -> Vec<Arc<Flight>> {
        let mut flights = Vec::with_capacity(limit.min(self.queue.len()));
        let mut skipped = 0;
        while flights.len() < limit {
            let Some((_, flight)) = self.queue.pop() else { break };
            let reason = match flight.live_until(now) {
                None => Some(DefaultReason::Late),
                Some(until) if until >= end || self.queue.is_empty() => None,
                Some(_) => Some(DefaultReason::overtaken()),
            };
            if reason.is_none() && flight.start() {
                self.objective.saw(flight.objective());
                flights.push(flight);
                continue;
            }
            self.model.queued().release(1, flight.objective());
            if let Some(reason) = reason {
                self.plane.cache.abort(&flight, reason);
                skipped += 1;
            }
        }
        self.model.metrics.skipped(skipped);
        flights
    }

    /// A replica begins with these: they wait no more, and their places are free.
    fn begun(&self, flights: &[Arc<Flight>], now: Instant) {
        // Queries of one request stand one behind the other and are counted together.
        let mut places = Run::default();
        let mut waited = Run::default();
        let release = |(objective, n)| self.model.queued().release(n, objective);
        let note_wait = |(arrived, n)| self.model.metrics.queued(n, now - arrived);
        for flight in flights {
            places.add(flight.objective()).map(release);
            waited.add(flight.arrived).map(note_wait);
        }
        places.end().map(release);
        waited.end().map(note_wait);
    }

    fn send(&mut self, id: ReplicaId, flights: Vec<Arc<Flight>>, now: Instant) {
        let Some(replica) = self.replicas.get_mut(id) else { return };
        let flights: Arc<[Arc<Flight>]> = Arc::from(flights);
        self.under_way += flights.len();
        self.concurrency.batch_sent();
        let curve = replica.controller.curve();
        let content = Arc::clone(&flights);
        let batch = Batch::new(content, flights.len(), curve, self.objective.tightest());
        let sent = replica.container.try_send(RunBatch { flights: Arc::clone(&flights) });
        let begins = replica.lane.is_idle();
        replica.lane.push(batch, now);
        if begins {
            self.begun(&flights, now);
        }
        if sent.is_err() {
            warn!(model = %self.model.spec.id, replica = %id, "replica does not take a batch");
            self.leave(id, "The replica ended before it took the batch");
        }
    }

    /// Forgets a replica and queues again what it had not answered.
    fn leave(&mut self, id: ReplicaId, why: &str) {
        let Some(replica) = self.replicas.leave(id) else { return };
        let (running, following) = replica.lane.end();
        if let Some(following) = &following {
            self.begun(following, clock::now());
        }
        for flights in [running, following].into_iter().flatten() {
            self.under_way -= flights.len();
            self.take_back(&flights, why);
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

    /// Gives the queries of a batch that takes suspiciously long, and those behind it, to another
    /// replica as well; the first answer counts. Its own gets nothing more until it answers.
    fn hedge(&mut self, now: Instant) {
        for (id, flights) in self.replicas.suspects(now) {
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

    /// Wakes up for the first deadline in the queue, the first batch to be suspected and the first
    /// replica to take a batch ahead, so that nothing waits for a message that may not come.
    fn arm_watch(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let of_replicas = self.replicas.next_event(now, self.queue.len());
        let due = [self.queue.next_deadline(), of_replicas].into_iter().flatten().min();
        let Some(due) = due else { return };
        if let Some((armed, handle)) = self.watch.take() {
            if armed <= due {
                self.watch = Some((armed, handle));
                return;
            }
            ctx.cancel_future(handle);
        }
        let pause = due.saturating_duration_since(now);
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
    fn publish_round(&mut self) {
        self.round = self.replicas.round(self.objective.tightest());
        self.model.set_round(self.round);
    }

    /// Tells them when the round under way ends.
    fn publish_end(&mut self) {
        self.round.ends = self.replicas.round_ends();
        self.model.set_round(self.round);
    }
}

impl Actor for Batcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        self.arm_watch(clock::now(), ctx);
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
        self.concurrency.arrived(self.queue.len() + self.under_way);
        let now = clock::now();
        self.attend(now, ctx);
        self.dispatch_soon(now, ctx);
        if self.replicas.any_idle().is_none() {
            self.arm_watch(now, ctx);
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
            self.arm_watch(clock::now(), ctx);
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
        self.replicas.join(ready.replica, ready.container, controller);
        self.publish_round();
        self.dispatch_soon(clock::now(), ctx);
    }
}

impl Handler<BatchDone> for Batcher {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        self.attend(done.answered, ctx);
        let (queries, latency) = (done.flights.len(), done.answered - done.began);
        self.model.metrics.batch_answered(done.replica, queries, latency);
        let is = |batch: &Arc<[_]>| Arc::ptr_eq(batch, &done.flights);
        if let Some(replica) = self.replicas.get_mut(done.replica)
            && let Some(answered) = replica.lane.answered(is, done.answered)
        {
            let begun = answered.begun.map(Arc::clone);
            self.under_way -= queries;
            replica.controller.record(queries, latency);
            self.model.set_curve(replica.controller.curve());
            if replica.lane.is_idle() {
                self.replicas.is_idle_again(done.replica);
            }
            if let Some(flights) = begun {
                self.begun(&flights, done.answered);
            }
            self.publish_round();
        }
        self.dispatch_soon(done.answered, ctx);
    }
}

impl Handler<ReplicaLeft> for Batcher {
    type Result = ();

    fn handle(&mut self, left: ReplicaLeft, ctx: &mut Self::Context) {
        let known = self.replicas.get(left.replica).is_some_and(|r| !r.lane.is_idle());
        self.leave(left.replica, &left.why);
        for flights in left.unanswered.iter().filter(|_| !known) {
            self.take_back(flights, &left.why);
        }
        self.model.metrics.remove_replica(left.replica);
        self.publish_round();
        self.dispatch_soon(clock::now(), ctx);
        self.arm_watch(clock::now(), ctx);
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
