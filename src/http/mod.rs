//! The HTTP frontends: text from outside becomes typed values here, and answers become text again.

pub mod body;
pub mod errors;
pub mod health;
pub mod management;
pub mod metrics;
pub mod query;
pub mod schema;
