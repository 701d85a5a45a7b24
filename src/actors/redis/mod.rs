//! The metadata and the list of replicas shared with others, in Redis.

mod absences;
mod changes;
mod loss;
mod malformed;
mod not_recorded;
mod notices;
mod reconciling;
mod rollouts;
mod rows;
pub mod session;
mod states;
pub mod watcher;
