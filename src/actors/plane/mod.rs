//! What the way of a query shares over all threads.

pub mod arbiters;
pub mod data_plane;
pub mod directory;
pub mod kept_curves;
pub mod learned;
pub mod learned_states;
pub mod recent;
pub mod rollout_outcomes;
