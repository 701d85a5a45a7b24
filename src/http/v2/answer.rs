//! Answers of models into an answer of the protocol.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header;
use bytes::Bytes;
use smallvec::SmallVec;

use super::super::answer::too_much;
use super::super::errors::ApiError;
use super::super::limits::QueryLimits;
use super::errors;
use crate::actors::apps::prediction::QueryAnswer;
use clipper_oip::{Answer, Defaults, OutputForm, Parts};
use clipper_scheduling::budget::Held;
use clipper_scheduling::ticket::Excess;

/// An answer up to this is written at once, and not counted.
const SHORT_BYTES: usize = 64 << 10;
/// Bytes of one piece of a longer one.
const PIECE_BYTES: usize = 32 << 10;

/// What is to be answered.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) id: Option<String>,
    pub(super) takes_default: bool,
    pub(super) form: OutputForm,
    /// In the order of the rows.
    pub(super) answers: SmallVec<[QueryAnswer; 1]>,
    /// What they take of the sum of all answers, where they have been counted.
    pub(super) held: Option<Held>,
}

/// The HTTP answer. A long one is made away from the threads that answer queries.
pub(super) async fn respond(
    mut told: Told,
    limits: &QueryLimits,
) -> Result<HttpResponse, ApiError> {
    let bounds = &limits.answers;
    let max_bytes = bounds.max_bytes;
    let (least, form, held) = (told.least_bytes(), told.form, told.held.take());
    if least <= SHORT_BYTES {
        return Ok(response(told.write(max_bytes)?, form, None));
    }
    let mut held = held.unwrap_or_else(|| bounds.all.hold());
    if least <= max_bytes && !held.resize(least) {
        return Err(too_much(Excess::InSum, None, bounds));
    }
    let Some(parts) = limits.parsing.aside(least, move || told.write(max_bytes)).await else {
        return Err(ApiError::unavailable("The answer could not be written"));
    };
    let parts = parts?;
    if !held.resize(bytes_of(&parts)) {
        return Err(too_much(Excess::InSum, None, bounds));
    }
    Ok(response(parts, form, Some(held)))
}

fn bytes_of(parts: &Parts) -> usize {
    parts.json.len() + parts.binary.as_ref().map_or(0, Vec::len)
}

impl Told {
    /// What the outputs alone take, at least.
    fn least_bytes(&self) -> usize {
        let bytes = |answer: &QueryAnswer| match answer {
            QueryAnswer::Output(output)
            | QueryAnswer::Sure { output, .. }
            | QueryAnswer::Default { output, .. } => output.json().len(),
            QueryAnswer::Error(_) => 0,
        };
        self.answers.iter().map(bytes).sum()
    }

    fn write(&self, max_bytes: usize) -> Result<Parts, ApiError> {
        let count = self.answers.len();
        let mut rows = Vec::with_capacity(count);
        let mut defaults = Vec::new();
        let mut explanation = String::new();
        for (row, answer) in self.answers.iter().enumerate() {
            match answer {
                QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } => {
                    rows.push(output.json());
                }
                QueryAnswer::Default { output, reason } if self.takes_default => {
                    if defaults.is_empty() {
                        explanation = reason.to_string();
                    }
                    defaults.push(row);
                    rows.push(output.json());
                }
                QueryAnswer::Default { reason, .. } => {
                    return Err(errors::no_prediction(row, count, reason));
                }
                QueryAnswer::Error(why) => return Err(errors::model_error(row, count, why)),
            }
        }
        let defaults = Defaults { rows: defaults, explanation: &explanation };
        let answer = Answer {
            model_name: &self.name,
            model_version: self.version.as_deref(),
            id: self.id.as_deref(),
            rows: &rows,
            defaults: self.takes_default.then_some(defaults),
            form: self.form,
        };
        answer.write(max_bytes).map_err(errors::not_written)
    }
}

fn response(parts: Parts, form: OutputForm, held: Option<Held>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if form.binary {
        response.insert_header(("Inference-Header-Content-Length", parts.json.len()));
        response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
    } else {
        response.insert_header((header::CONTENT_TYPE, "application/json"));
    }
    let Parts { mut json, binary } = parts;
    let binary = binary.unwrap_or_default();
    if held.is_none() {
        json.extend_from_slice(&binary);
        return response.body(json);
    }
    response.body(Sent { json: json.into(), binary: binary.into(), _held: held })
}

/// A long answer on its way, in pieces; what it holds of the sum of all answers is given back when
/// it has gone.
struct Sent {
    json: Bytes,
    binary: Bytes,
    _held: Option<Held>,
}

impl MessageBody for Sent {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized((self.json.len() + self.binary.len()) as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let part = if this.json.is_empty() { &mut this.binary } else { &mut this.json };
        let piece = part.split_to(part.len().min(PIECE_BYTES));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}
