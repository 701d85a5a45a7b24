//! Control messages are never lost: where a mailbox is full for a moment, they wait for room.
//!
//! Queries do not pass through mailboxes, so that what does is bounded by replicas, models and
//! changes, and the wait is short.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use tracing::debug;

/// Tells an actor, now or as soon as it has room. Whether it lives.
pub fn tell<A, M>(to: &Addr<A>, message: M) -> bool
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    match to.try_send(message) {
        Ok(()) => true,
        Err(SendError::Full(message)) => {
            let told = to.send(message);
            actix::spawn(async move {
                if told.await.is_err() {
                    debug!("an actor ended before it was told");
                }
            });
            true
        }
        Err(SendError::Closed(_)) => false,
    }
}

/// As [`tell`]; does something else with the message if the actor has ended.
pub fn tell_or<A, M>(to: &Addr<A>, message: M, otherwise: impl FnOnce(M))
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    match to.try_send(message) {
        Ok(()) => {}
        Err(SendError::Full(message)) => {
            tell(to, message);
        }
        Err(SendError::Closed(message)) => otherwise(message),
    }
}
