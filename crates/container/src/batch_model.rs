//! What a model has to do to be served by the loop of a container.

use std::sync::Arc;

use bytes::Bytes;
use clipper_domain::{InputType, Signature};
use clipper_tensors::batch::Group;

/// Why a model has no output for one input, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(pub String);

/// What a model makes of one input: a text, or why it has none.
pub type ModelOutput = Result<String, ModelError>;

/// A model as a container sees it: a batch of inputs in, one output per input out.
pub trait BatchModel {
    /// What the inputs are made of; announced to the server when the container registers.
    fn input_type(&self) -> InputType;

    /// Answers `inputs`, in their wire form, with one output each, in the same order.
    ///
    /// An input that cannot be predicted gets an error; it never spoils its neighbours.
    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput>;

    /// Of a model of type tensors: what goes in and comes out.
    fn signature(&self) -> Option<Arc<Signature>> {
        None
    }

    /// Answers rows of one shape, of a model of type tensors, by groups with as many rows in all.
    ///
    /// # Errors
    /// Why the model has no outputs for any of them.
    fn predict_tensors(&mut self, _rows: &Group) -> Result<Vec<Group>, ModelError> {
        Err(ModelError("this container takes no tensors".to_owned()))
    }
}

/// An error as an output, for a server that takes no errors: a JSON object with the key `error`.
#[must_use]
pub fn error_output(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}
