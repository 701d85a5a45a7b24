//! What a [`Dispatcher`] says, done: batches to containers, reasons to queries, load to whoever
//! admits queries. The timer is its owner's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use actix::Recipient;

use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::replica::dispatch::ToReplica;
use crate::supervision::control::Outbox;
use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_scheduling::dispatch::{
    Action, Arrival, Count, Departure, Dispatcher, Event, Unanswered,
};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::DefaultReason;

/// A list of arrivals that has become longer is not kept.
const KEPT_ARRIVALS: usize = 1_024;

/// Queries of one request for a model.
pub(super) type Arrivals = Vec<Arrival<Arc<Flight>>>;

/// A model's dispatcher and its surroundings.
#[derive(Debug)]
pub(super) struct Dispatching {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    dispatcher: Dispatcher<Arc<Flight>>,
    containers: BTreeMap<ReplicaId, Outbox<ToReplica>>,
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
        model.publish(Arc::clone(dispatcher.load()));
        let (containers, arrivals) = (BTreeMap::new(), queued.take());
        let successor = Rc::downgrade(queued);
        Self { plane, model, dispatcher, containers, arrivals, successor }
    }

    /// Tells the dispatcher and does what it says. When it wants to be woken, if that is news.
    pub(super) fn on(&mut self, event: Event<'_, Arc<Flight>>, now: Instant) -> Option<Instant> {
        let Self { dispatcher, containers, plane, model, .. } = self;
        let (mut wake, mut gone) = (None, None);
        for action in dispatcher.on(event, now) {
            match action {
                Action::Send { replica, batch, queries } => {
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
                Action::Publish(load) => model.publish(load),
                Action::Count(count) => note(count, model),
            }
        }
        let Some(replica) = gone else { return wake };
        let cause = Departure::Orderly("The replica ended before it took the batch".into());
        self.left(replica, cause, now).or(wake)
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
        replica: ReplicaId,
        container: Recipient<ToReplica>,
        unanswered: Vec<Unanswered<Arc<Flight>>>,
        now: Instant,
    ) -> Option<Instant> {
        self.containers.insert(replica, Outbox::new(container));
        self.on(Event::Joined { replica, unanswered }, now)
    }

    pub(super) fn left(
        &mut self,
        replica: ReplicaId,
        cause: Departure,
        now: Instant,
    ) -> Option<Instant> {
        self.containers.remove(&replica);
        let wake = self.on(Event::Left { replica, cause }, now);
        self.model.metrics.remove_replica(replica);
        wake
    }

    pub(super) fn has_lone_caller(&self) -> bool {
        self.dispatcher.has_lone_caller()
    }

    /// Leaves what waits to a successor, if there is to be one.
    pub(super) fn leave_waiting(&mut self) {
        let waiting = self.give_up_waiting();
        match self.successor.upgrade() {
            Some(successor) => successor.borrow_mut().extend(waiting),
            None => self.plane.abort_all(waiting, &DefaultReason::NoReplica),
        }
    }

    pub(super) fn give_up_waiting(&mut self) -> Arrivals {
        let empty = new_dispatcher(&self.plane, &self.model);
        let mut waiting = std::mem::take(&mut self.arrivals);
        waiting.extend(std::mem::replace(&mut self.dispatcher, empty).into_waiting());
        waiting
    }
}

fn new_dispatcher(plane: &DataPlane, model: &ModelHandle) -> Dispatcher<Arc<Flight>> {
    let limits = plane.dispatch_limits(model.spec.batch_size);
    Dispatcher::new(limits, model.curve(), model.serial)
}

fn note(count: Count, model: &ModelHandle) {
    let metrics = &model.metrics;
    match count {
        Count::Waited(queries, wait) => metrics.queued(queries, wait),
        Count::Answered(replica, queries, took) => metrics.batch_answered(replica, queries, took),
        Count::Skipped(queries) => metrics.skipped(queries),
        Count::Retried(queries) => metrics.retried(queries),
        Count::Hedged(queries) => metrics.hedged(queries),
        Count::Poisonous(queries) => metrics.poisonous(queries),
    }
}
