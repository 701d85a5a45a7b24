//! What a [`Dispatcher`] says, done: batches to containers, reasons to queries, load to whoever
//! admits queries. The timer is its owner's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use actix::Recipient;

use super::lanes::Lanes;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::replica::dispatch::ToReplica;
use crate::supervision::control::Outbox;
use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_scheduling::dispatch::{
    Action, Arrival, BatchId, Count, Departure, Dispatcher, Event, Unanswered,
};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::DefaultReason;

/// A list of arrivals that has become longer is not kept.
const KEPT_ARRIVALS: usize = 1_024;

/// Queries of one request for a model.
pub(super) type Arrivals = Vec<Arrival<Arc<Flight>>>;

/// A replica that takes queries from now on, as its container says it.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) replica: ReplicaId,
    pub(super) unanswered: Vec<Unanswered<Arc<Flight>>>,
    pub(super) lanes: Option<u32>,
}

/// A model's dispatcher and its surroundings.
#[derive(Debug)]
pub(super) struct Dispatching {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    dispatcher: Dispatcher<Arc<Flight>>,
    /// By their name in the dispatcher.
    containers: BTreeMap<ReplicaId, Outbox<ToReplica>>,
    lanes: Lanes,
    arrivals: Arrivals,
    /// Where what waits is left at the end; gone if nobody takes the place.
    successor: Weak<RefCell<Arrivals>>,
}

impl Dispatching {
    /// A dispatcher that goes on with what its predecessor had queued.
    pub(super) fn new(
        plane: Arc<DataPlane>,
        model: Arc<ModelHandle>,
        queued: &Rc<RefCell<Arrivals>>,
    ) -> Self {
        let dispatcher = new_dispatcher(&plane, &model);
        model.publish(Arc::clone(dispatcher.load()), 0, false);
        let (containers, lanes, arrivals) = (BTreeMap::new(), Lanes::default(), queued.take());
        let successor = Rc::downgrade(queued);
        Self { plane, model, dispatcher, containers, lanes, arrivals, successor }
    }

    /// Tells the dispatcher and does what it says. When it wants to be woken, if that is news.
    pub(super) fn on(&mut self, event: Event<'_, Arc<Flight>>, now: Instant) -> Option<Instant> {
        let Self { dispatcher, containers, lanes, plane, model, .. } = self;
        dispatcher.set_batch_size(model.batch_size());
        let (mut wake, mut gone) = (None, None);
        for action in dispatcher.on(event, now) {
            match action {
                Action::Send { replica, batch, queries } => {
                    lanes.sent(replica, batch);
                    let run = ToReplica::Run { batch, flights: queries };
                    let container = containers.get(&replica);
                    if container.is_none_or(|container| container.tell(run).is_err()) {
                        gone = Some(replica);
                    }
                }
                Action::Resolve { query, reason } => plane.cache.abort(&query, reason),
                Action::GiveUp { replica, why } => {
                    // One that has ended needs no telling.
                    let container = containers.remove(&replica);
                    drop(container.map(|container| container.tell(ToReplica::GiveUp(why))));
                }
                Action::Wake(at) => wake = Some(at),
                Action::Publish(load) => {
                    model.publish(load, lanes.containers(containers.len()), lanes.are_there());
                }
                Action::Count(count) => note(count, lanes, model),
            }
        }
        let Some(replica) = gone else { return wake };
        let cause = Departure::Orderly("The replica ended before it took the batch".into());
        self.left(self.lanes.container_of(replica), &cause, now).or(wake)
    }

    /// Takes what waits in the intake.
    pub(super) fn take_in(&mut self, now: Instant) -> Option<Instant> {
        self.model.intake().take(&mut self.arrivals);
        if self.arrivals.is_empty() {
            return None;
        }
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let wake = self.on(Event::Arrived(&mut arrivals), now);
        if arrivals.capacity() <= KEPT_ARRIVALS {
            self.arrivals = arrivals;
        }
        wake
    }

    pub(super) fn joined(
        &mut self,
        joined: Joined,
        container: &Recipient<ToReplica>,
        now: Instant,
    ) -> Option<Instant> {
        let Joined { replica, unanswered, lanes } = joined;
        let Some(lanes) = lanes else {
            self.containers.insert(replica, Outbox::new(container.clone()));
            return self.on(Event::Joined { replica, unanswered, is_lane: false }, now);
        };
        self.left(replica, &Departure::Orderly("The replica was replaced".into()), now);
        let mut unanswered = unanswered.into_iter();
        let mut wake = None;
        for lane in self.lanes.join(replica, lanes) {
            let unanswered = Vec::from_iter(unanswered.next());
            for Unanswered { batch, .. } in &unanswered {
                self.lanes.sent(lane, *batch);
            }
            self.containers.insert(lane, Outbox::new(container.clone()));
            wake =
                self.on(Event::Joined { replica: lane, unanswered, is_lane: true }, now).or(wake);
        }
        wake
    }

    pub(super) fn done(
        &mut self,
        replica: ReplicaId,
        batch: BatchId,
        now: Instant,
    ) -> Option<Instant> {
        let replica = self.lanes.answered(batch).unwrap_or(replica);
        self.on(Event::Done { replica, batch }, now)
    }

    pub(super) fn left(
        &mut self,
        replica: ReplicaId,
        cause: &Departure,
        now: Instant,
    ) -> Option<Instant> {
        let mut wake = None;
        for name in self.lanes.leave(replica) {
            self.containers.remove(&name);
            wake = self.on(Event::Left { replica: name, cause: cause.clone() }, now).or(wake);
        }
        self.model.metrics.remove_replica(replica);
        wake
    }

    pub(super) fn has_lone_caller(&self) -> bool {
        self.dispatcher.has_lone_caller()
    }

    /// Leaves what waits to a successor, if there is to be one.
    pub(super) fn leave_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.arrivals);
        waiting.extend(self.take_dispatcher().into_waiting());
        match self.successor.upgrade() {
            Some(successor) => successor.borrow_mut().extend(waiting),
            None => self.plane.abort_all(waiting, &DefaultReason::NoReplica),
        }
    }

    /// Answers all by the default output, for the model is deleted. Also what replicas have: nobody
    /// reads the mailboxes any more through which one would give it back.
    pub(super) fn end(&mut self) {
        let why = format!("Model {} was deleted before it answered", self.model.spec.id);
        let reason = DefaultReason::Failed(why.into());
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.model.intake().close(&mut arrivals);
        self.plane.abort_all(arrivals, &reason);
        for flight in self.take_dispatcher().into_unfinished() {
            self.plane.cache.abort(&flight, reason.clone());
        }
    }

    fn take_dispatcher(&mut self) -> Dispatcher<Arc<Flight>> {
        let empty = new_dispatcher(&self.plane, &self.model);
        std::mem::replace(&mut self.dispatcher, empty)
    }
}

fn new_dispatcher(plane: &DataPlane, model: &ModelHandle) -> Dispatcher<Arc<Flight>> {
    let limits = plane.dispatch_limits(model.batch_size());
    Dispatcher::new(limits, model.curve(), model.serial)
}

fn note(count: Count, lanes: &Lanes, model: &ModelHandle) {
    let metrics = &model.metrics;
    match count {
        Count::Waited(queries, wait) => metrics.queued(queries, wait),
        Count::Answered(replica, queries, took) => {
            metrics.batch_answered(lanes.container_of(replica), queries, took);
        }
        Count::Skipped(queries) => metrics.skipped(queries),
        Count::Retried(queries) => metrics.retried(queries),
        Count::Hedged(queries) => metrics.hedged(queries),
        Count::Poisonous(queries) => metrics.poisonous(queries),
    }
}
