//! How actors and processes are kept alive, told things without loss, and watched.
//!
//! [`supervised`] is the one loop that starts again what has ended, within the one kind of
//! [`budget`]; [`kept`] applies it to actors, `children` to processes. [`control`] is how control
//! messages are told, [`watchdog`] sees threads that do not get round to them.

pub mod budget;
pub mod control;
pub mod kept;
#[cfg(test)]
pub(crate) mod paused;
pub(crate) mod supervised;
pub mod watchdog;
