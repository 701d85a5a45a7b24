//! Model versions: which ones run, and who decides which replica computes what.

pub mod batcher;
mod dispatching;
mod lanes;
pub mod model;
pub mod registry;
mod spin;
