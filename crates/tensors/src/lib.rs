//! Inputs and outputs of models of type tensors: a query is one row of named tensors.
//!
//! [`row`] is the form in which a row waits in queues and in the cache. [`json`] reads and writes
//! rows as clients see them, [`batch`] joins the rows of a batch for a container and takes its
//! answer apart, [`sample`] makes rows up. All of it is pure; every length that comes from outside
//! is checked before anything is made for it.

pub mod batch;
pub mod fault;
pub mod json;
pub mod nested;
pub mod row;
pub mod sample;
pub mod write;

pub use fault::{Fault, RowError};
pub use row::{Part, Tensor, Tensors};
pub use write::put_json;
