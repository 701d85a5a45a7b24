//! How actors are kept alive, told things without loss, and watched.

pub mod budget;
pub mod control;
pub mod kept;
pub mod watchdog;
