//! Everything on the container's side of the model RPC.
//!
//! A model container is a process of its own that connects to the server's RPC port and answers
//! batches (protocol page, sections 3 and 6). This module holds the containers in the box
//! ([`noop`], [`exec`] and [`python`]; ONNX has a crate of its own) and the loop that those in Rust
//! share ([`session`]).
//!
//! Architecture invariant: nothing in here knows the server's actors; a container started by hand
//! on another machine runs the same code as a supervised child.

pub mod exec;
pub mod lifeline;
pub mod noop;
pub mod processes;
pub mod python;
pub mod session;

use bytes::Bytes;

pub use session::{ContainerOptions, RuntimeError, run, run_until};

use clipper_domain::InputType;

/// What a model makes of one input: a text, or why it has none.
pub type ModelOutput = Result<String, String>;

/// A model as a container sees it: a batch of inputs in, one output per input out.
pub trait BatchModel {
    /// What the inputs are made of; announced to the server when the container registers.
    fn input_type(&self) -> InputType;

    /// Answers `inputs`, in their wire form, with one output each, in the same order.
    ///
    /// An input that cannot be predicted gets an error; it never spoils its neighbours.
    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput>;
}

/// An error as an output, for a server that takes no errors: a JSON object with the key `error`.
#[must_use]
pub fn error_output(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}
