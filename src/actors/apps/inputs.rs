//! How the bodies of an application's requests become inputs: by its input type, or by the
//! signature of the model that is asked.

use std::sync::Arc;

use super::prediction::AppFacts;
use crate::actors::plane::directory::{ModelEntry, ModelHandle};
use clipper_domain::{Input, InputType, Signature};
use clipper_scheduling::bodies::{BodyError, Feedback, PredictBody};
use clipper_scheduling::feedback::{InputsOf, feedback_body};
use clipper_scheduling::ticket::DefaultReason;
use clipper_scheduling::{parse, tensor_bodies};
use clipper_tensors::row::RowCheck;

/// What is needed to read a body of an application.
#[derive(Debug, Clone)]
pub struct AppInputs {
    pub facts: Arc<AppFacts>,
    /// Its models.
    pub linked: Vec<Arc<ModelEntry>>,
}

/// That of the first of these models which has one, in a version or in the current one.
#[must_use]
pub fn signature(linked: &[Arc<ModelEntry>], version: Option<&str>) -> Option<Arc<Signature>> {
    linked.iter().find_map(|entry| {
        let handle = match version {
            Some(version) => entry.version(version),
            None => entry.current(),
        };
        handle?.signature()
    })
}

/// Reads a predict body.
///
/// # Errors
/// See [`BodyError`].
pub fn predict_body(
    text: &[u8],
    facts: &AppFacts,
    linked: &[Arc<ModelEntry>],
    inputs_max: usize,
) -> Result<PredictBody, BodyError> {
    let key_field = facts.key_field.as_ref();
    match facts.spec.input_type {
        InputType::Tensors => {
            let signature = |version: Option<&str>| signature(linked, version);
            tensor_bodies::predict_body(text, signature, inputs_max, key_field)
        }
        input_type => parse::keyed_predict_body(text, input_type, inputs_max, key_field),
    }
}

/// Reads an update body.
///
/// # Errors
/// See [`BodyError`].
pub fn update_body(
    text: &[u8],
    facts: &AppFacts,
    linked: &[Arc<ModelEntry>],
    items_max: usize,
) -> Result<Feedback, BodyError> {
    let form = facts.feedback_form();
    match facts.spec.input_type {
        InputType::Tensors => {
            let signature = signature(linked, None);
            feedback_body(text, InputsOf::Tensors(signature.as_deref()), form, items_max)
        }
        input_type => feedback_body(text, InputsOf::Type(input_type), form, items_max),
    }
}

/// Whether these are inputs of a model. They were read by the signature of one, and another, or
/// another version, may be asked.
#[must_use]
pub fn are_of(inputs: &[Input], model: &ModelHandle) -> bool {
    if model.spec.input_type != InputType::Tensors {
        return true;
    }
    let Some(signature) = model.signature() else { return false };
    let mut check = RowCheck::new(signature.inputs());
    inputs.iter().all(|input| check.takes(&input.0))
}

/// Why a model cannot be asked for inputs that are none of its.
#[must_use]
pub fn not_of(model: &ModelHandle) -> DefaultReason {
    if model.signature().is_none() {
        return DefaultReason::NoReplica;
    }
    let id = &model.spec.id;
    DefaultReason::Failed(format!("Model {id} takes other tensors than its application").into())
}
