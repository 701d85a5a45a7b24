//! Keeps the two actors alive that everybody knows, and leads to the one that lives now.
//!
//! An actor's address ends with it. Whoever talks to the catalog writer or the container pool holds
//! a [`Kept`] instead: after a death, a panic included, a factory makes the next one, and those who
//! follow the actor hear of it by [`Kept::replacements`].

use std::convert::Infallible;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures_util::Stream;
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use super::budget::{RestartBudget, Verdict};
use crate::metrics::Metrics;
use clipper_clock as clock;

/// Held by a kept actor: it is dropped with the actor, however that ends.
#[derive(Debug, Default)]
pub struct Lifeline {
    _held: Option<oneshot::Sender<Infallible>>,
}

/// Another actor has taken the place of a dead one; it knows nothing of what the dead one was told.
#[derive(Debug, Clone, Copy)]
pub struct Replaced;

/// The way to a kept actor. Clones lead to the same one, from any thread.
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
    /// Starts the actor on this thread, and another one whenever it dies, within the budget. `name`
    /// is that of the metric.
    pub fn start(
        name: &'static str,
        metrics: Arc<Metrics>,
        mut budget: RestartBudget,
        mut factory: impl FnMut(Lifeline) -> A + 'static,
    ) -> Self {
        let mut make = move || {
            let (lifeline, gone) = oneshot::channel();
            (factory(Lifeline { _held: Some(lifeline) }).start(), gone)
        };
        let (first, mut gone) = make();
        let (current, kept) = watch::channel(first);
        budget.started(clock::now());
        actix::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut gone => {}
                    () = current.closed() => return,
                }
                metrics.actor_restarted(name);
                match budget.died(clock::now()) {
                    Verdict::GiveUp => {
                        return error!(actor = name, "it failed too often; restart the server");
                    }
                    Verdict::RestartAfter(pause) => {
                        warn!(actor = name, ?pause, "it ended and is started again");
                        tokio::time::sleep(pause).await;
                    }
                }
                budget.started(clock::now());
                let (next, next_gone) = make();
                gone = next_gone;
                current.send_replace(next);
            }
        });
        Self(kept)
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
