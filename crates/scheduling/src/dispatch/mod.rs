//! Who computes which query when: one pure state machine for one model version (invariant S1).
//!
//! [`Dispatcher::on`] takes an [`Event`] and the time and says what to do, as [`Action`]s. It does
//! no IO and reads no clock, so that the simulation beside this crate runs it through years of
//! faults from a seed. It alone owns what follows from events: the queue, which replicas there are
//! and what each of them has been sent, second attempts, the figures that queries are admitted by,
//! what has been learned of latencies, inputs that kill replicas, and when a replica hangs.
//!
//! - [`event`], [`action`]: what goes in and what comes out. [`dispatcher`]: the state.
//! - [`queue`]: what waits, by deadline and fair between applications.
//! - [`replicas`]: which replica is next. [`assignment`]: what one has been sent.
//! - [`sending`]: batches are made and sent. [`ending`]: they are answered, or fail.
//! - [`hedge`]: second attempts at what takes suspiciously long. [`busy`]: when a replica hangs.
//! - [`poison`]: inputs that have killed replicas.

mod action;
mod assignment;
mod busy;
mod dispatcher;
mod ending;
mod event;
mod hedge;
mod poison;
mod query;
mod queue;
mod replicas;
mod sending;
#[cfg(test)]
mod tests;

pub use self::action::{Action, Count};
pub use self::busy::BusyLimits;
pub use self::dispatcher::{Dispatcher, Limits};
pub use self::event::{Arrival, Departure, Event, Unanswered};
pub use self::query::Query;
pub use super::batch_id::BatchId;
