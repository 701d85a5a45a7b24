//! The HTTP frontends: text from outside becomes typed values here, and answers become text again.

mod accessed;
pub mod answer;
pub mod body;
pub mod cors;
pub mod describe;
mod edge;
pub mod errors;
mod events;
pub(crate) mod explaining;
mod feedback;
pub mod gate;
pub mod handed;
pub mod health;
mod holding;
pub mod limits;
pub mod management;
pub mod metrics;
mod named_errors;
pub mod parsing;
pub mod query;
mod rendering;
pub mod request_id;
pub mod schema;
pub mod serve;
pub mod trace_context;
mod traced;
pub mod v2;
