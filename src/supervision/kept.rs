//! Keeps actors alive, and leads to the one that lives now.
//!
//! Actix's own supervisor does not survive a panic, so each parent keeps a factory for its
//! children. An actor's address ends with it: whoever talks to one that is supervised holds a
//! [`Kept`] instead. A child holds a [`Lifeline`]; when that is dropped, however it comes to that,
//! the factory makes the next one, and those who follow the actor hear of it by
//! [`Kept::replacements`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures_util::Stream;
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use super::budget::{RestartBudget, Verdict};
use super::supervised::{LifeEnd, Rested, Supervised, supervise};
use crate::metrics::Metrics;

/// Held by a supervised actor: it is dropped with the actor, however that ends.
#[derive(Debug, Default)]
pub struct Lifeline {
    _held: Option<oneshot::Sender<Infallible>>,
}

/// Another actor has taken the place of a dead one; it knows nothing of what the dead one was told.
#[derive(Debug, Clone, Copy)]
pub struct Replaced;

/// How its parent starts an actor, and what its end means there.
pub trait Child: 'static {
    type Actor: Actor<Context = Context<Self::Actor>>;

    /// Starts one, on whichever thread; it holds the lifeline as long as it lives.
    fn start(&mut self, lifeline: Lifeline) -> Addr<Self::Actor>;

    fn died(&mut self) {}

    /// It is not started again: it died too often.
    fn given_up(&mut self) {}
}

impl<F, A> Child for F
where
    F: FnMut(Lifeline) -> Addr<A> + 'static,
    A: Actor<Context = Context<A>>,
{
    type Actor = A;

    fn start(&mut self, lifeline: Lifeline) -> Addr<A> {
        self(lifeline)
    }
}

/// What a supervised actor is called.
#[derive(Debug, Clone)]
pub struct Role {
    /// The label of the metric.
    pub actor: &'static str,
    /// Which of them, where there are several.
    pub of: String,
    /// What an operator can do when it is given up.
    pub remedy: &'static str,
}

/// The way to a supervised actor. Clones lead to the same one, from any thread; when all of them
/// are gone, it is not started again.
pub struct Kept<A: Actor>(watch::Receiver<Addr<A>>);

impl<A: Actor> std::fmt::Debug for Kept<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({:?})", self.addr())
    }
}

impl<A: Actor> Clone for Kept<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor<Context = Context<A>>> Kept<A> {
    /// Starts an actor that the server has one of on this thread, and another one whenever it dies,
    /// within the budget.
    pub fn start(
        actor: &'static str,
        metrics: Arc<Metrics>,
        budget: RestartBudget,
        mut factory: impl FnMut(Lifeline) -> A + 'static,
    ) -> Self {
        let role = Role { actor, of: String::new(), remedy: "restart the server" };
        Self::supervise(role, metrics, budget, move |lifeline: Lifeline| factory(lifeline).start())
    }

    /// Has a child started, and another one whenever it dies, within the budget. This thread
    /// supervises it.
    pub fn supervise(
        role: Role,
        metrics: Arc<Metrics>,
        budget: RestartBudget,
        mut child: impl Child<Actor = A>,
    ) -> Self {
        let (lifeline, gone) = lifeline();
        let (current, kept) = watch::channel(child.start(lifeline));
        let supervised = SupervisedActor { role, metrics, child, current, gone: Some(gone) };
        actix::spawn(supervise(supervised, budget));
        Self(kept)
    }
}

fn lifeline() -> (Lifeline, oneshot::Receiver<Infallible>) {
    let (held, gone) = oneshot::channel();
    (Lifeline { _held: Some(held) }, gone)
}

struct SupervisedActor<C: Child> {
    role: Role,
    metrics: Arc<Metrics>,
    child: C,
    current: watch::Sender<Addr<C::Actor>>,
    /// Ready when the first one, which is started already, has ended.
    gone: Option<oneshot::Receiver<Infallible>>,
}

impl<C: Child> Supervised for SupervisedActor<C> {
    async fn live(&mut self) -> LifeEnd {
        let gone = self.gone.take().unwrap_or_else(|| {
            let (lifeline, gone) = lifeline();
            self.current.send_replace(self.child.start(lifeline));
            gone
        });
        tokio::select! {
            biased;
            () = self.current.closed() => LifeEnd::Unwanted,
            _ = gone => LifeEnd::Died { has_served: false },
        }
    }

    fn died(&mut self, verdict: Verdict) {
        let Role { actor, of, remedy } = &self.role;
        self.metrics.actor_restarted(actor);
        self.child.died();
        match verdict {
            Verdict::Restart { pause, .. } => {
                warn!(actor, of, ?pause, "it ended and is started again");
            }
            Verdict::GiveUp => {
                error!(actor, of, "it failed too often; {remedy}");
                self.child.given_up();
            }
        }
    }

    async fn rest(&mut self, pause: Duration) -> Rested {
        tokio::select! {
            () = tokio::time::sleep(pause) => Rested::Enough,
            () = self.current.closed() => Rested::Unwanted,
        }
    }
}

impl<A: Actor> Kept<A> {
    /// The one that lives now, or the last one that did.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.0.borrow().clone()
    }

    /// Asks the one that lives now.
    pub fn send<M>(&self, message: M) -> Request<A, M>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.0.borrow().send(message)
    }

    /// One item for each replacement from now on.
    pub fn replacements(&self) -> impl Stream<Item = Replaced> + use<A> {
        let mut current = self.0.clone();
        current.mark_unchanged();
        futures_util::stream::unfold(current, |mut current| async move {
            current.changed().await.ok()?;
            Some((Replaced, current))
        })
    }
}
