//! One per model version: the shell around its dispatcher, which decides who computes what.
//!
//! Queries come by the model's intake, everything else by the mailbox, which is emptied first:
//! control overtakes data. Each message and each timer is an event for the dispatcher.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::debug;

use super::dispatching::{Arrivals, Dispatching, Joined};
use super::spin::Spin;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::{ModelHandle, Waiting};
use crate::actors::replica::dispatch::FromReplica;
use crate::supervision::kept::Lifeline;
use clipper_clock::{self as clock, Instant};
use clipper_scheduling::dispatch::Event;

/// The model version was retired: answer all queries by the default output, and end. Sender:
/// `Model`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopBatcher;

/// The actor. Started by its `Model`, which starts another one if it dies.
#[derive(Debug)]
pub struct Batcher {
    plane: Arc<DataPlane>,
    model: Arc<ModelHandle>,
    dispatching: Dispatching,
    wake: Option<SpawnHandle>,
    spin: Spin,
    _lifeline: Lifeline,
}

impl Batcher {
    /// A batcher that goes on with what its predecessor had queued.
    #[must_use]
    pub(super) fn new(
        plane: Arc<DataPlane>,
        model: Arc<ModelHandle>,
        queued: &Rc<RefCell<Arrivals>>,
        lifeline: Lifeline,
    ) -> Self {
        let dispatching = Dispatching::new(Arc::clone(&plane), Arc::clone(&model), queued);
        let spin = Spin::new(Duration::from_micros(plane.serving.stay_awake_us));
        Self { plane, model, dispatching, wake: None, spin, _lifeline: lifeline }
    }

    /// Comes back when the dispatcher wants to be woken.
    fn set_wake(&mut self, wake: Option<Instant>, now: Instant, ctx: &mut Context<Self>) {
        let Some(at) = wake else { return };
        if let Some(earlier) = self.wake.take() {
            ctx.cancel_future(earlier);
        }
        let pause = at.saturating_duration_since(now);
        self.wake = Some(ctx.run_later(pause, |batcher, ctx| {
            batcher.wake = None;
            let now = clock::now();
            let wake = batcher.dispatching.on(Event::Time, now);
            batcher.set_wake(wake, now, ctx);
        }));
    }

    /// Stays awake for the next message, if that pays.
    fn attend(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if let Some(spin) = self.spin.heard(now, self.dispatching.has_lone_caller()) {
            ctx.spawn(spin.into_actor(self));
        }
    }

    fn take_in(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let wake = self.dispatching.take_in(now);
        self.set_wake(wake, now, ctx);
    }
}

impl Actor for Batcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        ctx.add_stream(self.model.waiting());
        self.take_in(clock::now(), ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.dispatching.leave_waiting();
    }
}

impl StreamHandler<Waiting> for Batcher {
    fn handle(&mut self, _: Waiting, ctx: &mut Self::Context) {
        let now = clock::now();
        self.attend(now, ctx);
        self.take_in(now, ctx);
    }
}

impl Handler<FromReplica> for Batcher {
    type Result = ();

    fn handle(&mut self, heard: FromReplica, ctx: &mut Self::Context) {
        let now = match heard {
            FromReplica::Done { answered, .. } => answered,
            FromReplica::Ready { .. } | FromReplica::Left { .. } => clock::now(),
        };
        let wake = match heard {
            FromReplica::Ready { replica, container, unanswered, lanes, attached } => {
                debug!(model = %self.model.spec.id, %replica, "replica ready");
                let joined = Joined { replica, unanswered, lanes };
                let wake = self.dispatching.joined(joined, &container, now);
                // Who wanted it attached may have ended.
                let _ = attached.send(());
                wake
            }
            FromReplica::Done { replica, batch, .. } => {
                self.attend(now, ctx);
                // Who came meanwhile may be part of the next batch.
                self.take_in(now, ctx);
                self.dispatching.done(replica, batch, now)
            }
            FromReplica::Left { replica, cause, owed } => {
                let wake = self.dispatching.left(replica, &cause, now);
                owed.take_over();
                wake
            }
        };
        self.set_wake(wake, now, ctx);
    }
}

impl Handler<StopBatcher> for Batcher {
    type Result = ();

    fn handle(&mut self, _: StopBatcher, ctx: &mut Self::Context) {
        self.dispatching.end();
        ctx.stop();
    }
}
