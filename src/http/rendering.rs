//! The JSON of tensors, made away from the threads that answer queries where that takes long.

use super::errors::ApiError;
use super::parsing::Parsing;
use crate::actors::apps::prediction::{Answers, QueryAnswer};

/// Tensors up to this are written as JSON where they are.
const SHORT_BYTES: usize = 32 << 10;

/// Answers whose outputs all have their JSON, or will quickly.
pub(super) async fn rendered(answers: Answers, parsing: &Parsing) -> Result<Answers, ApiError> {
    let tensors = |answer: &QueryAnswer| match answer {
        QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } => {
            output.tensors().map_or(0, |tensors| tensors.bytes.len())
        }
        QueryAnswer::Default { .. } | QueryAnswer::Error(_) => 0,
    };
    let bytes: usize = answers.answers.iter().map(tensors).sum();
    if bytes <= SHORT_BYTES {
        return Ok(answers);
    }
    let write = move || {
        for answer in &answers.answers {
            if let QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } = answer {
                // It is kept with the output.
                let _ = output.json();
            }
        }
        answers
    };
    let made = Box::pin(parsing.aside(bytes, write)).await;
    made.ok_or_else(|| ApiError::unavailable("The answer could not be written"))
}
