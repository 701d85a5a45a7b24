//! Model versions: which ones run, and who decides which replica computes what.

pub mod batcher;
mod dispatching;
pub mod model;
pub mod registry;
mod spin;
