//! The log of metadata changes and what is derived from it.
//!
//! [`event`] is the durable alphabet, [`journal`] the append-only log (on sled), [`projection`] the state that
//! replaying gives. Predictions never come here.

pub mod event;
pub mod journal;
pub mod projection;
