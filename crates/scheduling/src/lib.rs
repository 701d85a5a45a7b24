//! A query between its request and its answer: pure structs that the data-plane actors wrap.
//!
//! - [`dispatch`]: who computes which query when; one state machine, and the heart of it all.
//! - [`load`]: how much there is to do, and how much more can be done in time.
//! - [`quota`]: how much somebody may ask for.
//! - [`share`]: applications that share a model.
//! - [`intake`]: where queries wait until their model's thread takes them.
//! - [`ticket`]: what a request waits on: one slot per query.
//! - [`flight`]: one computation of one input, with everybody who waits for it.
//! - [`stream`]: an answer in pieces on its way.
//! - [`cache`]: finished outputs and unfinished flights by model and input.
//! - [`batch`]: how many queries the next message to a replica carries; [`latency`]: what it has
//!   learned; [`gather`]: whether a small batch waits a little for a fuller one.
//! - [`spin_wait`]: whether a model's thread stays awake for the next message.
//! - [`run`]: counting what queries have in common.
//! - [`trace`]: what has happened to a query; [`explain`]: why it was answered so; [`recent`]: of
//!   which queries that is still known, and [`pace`]: of how many in a second.
//! - [`parse`], [`feedback`], [`tensor_bodies`]: request [`bodies`] into inputs in wire form.
//! - [`output`]: a model's text into JSON, and its tensors.

pub mod batch;
mod batch_id;
pub mod bodies;
pub mod budget;
pub mod cache;
pub mod cache_key;
pub mod dispatch;
pub mod explain;
pub mod feedback;
pub mod flight;
pub mod gather;
pub mod intake;
pub mod latency;
pub mod load;
mod notes;
pub mod output;
pub mod pace;
pub mod parse;
pub mod query_context;
pub mod quota;
pub mod recent;
pub mod run;
pub mod share;
pub mod spin_wait;
pub mod stream;
pub mod tensor_bodies;
mod tensor_output;
pub mod ticket;
pub mod trace;
mod update;
mod visitors;
