//! Everything on the container's side of the model RPC.
//!
//! A model container is a process of its own that connects to the server's RPC port and answers
//! batches (docs/container-protocol.md). This module holds the containers in the box
//! ([`noop`], [`exec`] and [`python`]; ONNX has a crate of its own) and the loop that those in Rust
//! share ([`session`]).
//!
//! Architecture invariant: nothing in here knows the server's actors; a container started by hand
//! on another machine runs the same code as a supervised child.

mod address;
pub mod allowed;
mod batch_model;
pub mod confine;
pub mod exec;
pub mod fence;
pub mod lifeline;
mod link;
pub mod noop;
pub mod processes;
pub mod python;
pub mod session;
mod session_error;
mod tensors;

pub use address::{AddressError, ServerAddress};
pub use batch_model::{BatchModel, ModelError, ModelOutput, error_output};
pub use link::ContainerKey;
pub use session::{ContainerOptions, run, run_until};
