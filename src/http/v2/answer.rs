//! Answers of models into an answer of the protocol.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header;
use bytes::Bytes;
use smallvec::SmallVec;

use super::super::answer::{JSON, too_much};
use super::super::errors::ApiError;
use super::super::limits::QueryLimits;
use super::errors;
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::traced::Answerer;
use clipper_domain::explain::ExplainedQuery;
use clipper_oip::{Answer, Defaults, OutputForm, Parts, TensorForm};
use clipper_scheduling::budget::Held;
use clipper_scheduling::ticket::{DefaultReason, Excess};

/// An answer up to this is written at once, and not counted.
const SHORT_BYTES: usize = 64 << 10;
/// Bytes of one piece of a longer one.
const PIECE_BYTES: usize = 32 << 10;

/// What is to be answered.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) takes_default: bool,
    pub(crate) form: OutputForm,
    /// Of models of type tensors.
    pub(crate) tensors: Option<TensorForm>,
    /// In the order of the rows.
    pub(crate) answers: SmallVec<[QueryAnswer; 1]>,
    /// What they take of the sum of all answers, where they have been counted.
    pub(crate) held: Option<Held>,
    /// The models that have answered.
    pub(crate) model: Option<Answerer>,
    /// Why, where the client asked for it.
    pub(crate) explained: Vec<ExplainedQuery>,
}

/// The HTTP answer.
pub(super) async fn respond(told: Told, limits: &QueryLimits) -> Result<HttpResponse, ApiError> {
    let form = told.form;
    let (parts, held) = written(told, limits, Told::write, bytes_of).await?;
    Ok(response(parts, form, held))
}

/// What is told, written by `write` within a number of bytes, and what it holds of the sum of all
/// answers. A long one is written away from the threads that answer queries; `size` says how long
/// it has become.
pub(crate) async fn written<T, E>(
    mut told: Told,
    limits: &QueryLimits,
    write: fn(&Told, usize) -> Result<T, E>,
    size: fn(&T) -> usize,
) -> Result<(T, Option<Held>), E>
where
    T: Send + 'static,
    E: From<ApiError> + Send + 'static,
{
    let bounds = &limits.answers;
    let max_bytes = bounds.max_bytes;
    let (least, held) = (told.least_bytes(), told.held.take());
    if least <= SHORT_BYTES {
        return Ok((write(&told, max_bytes)?, None));
    }
    let mut held = held.unwrap_or_else(|| bounds.all.hold());
    if least <= max_bytes && !held.resize(least) {
        return Err(too_much(Excess::InSum, None, bounds).into());
    }
    let Some(made) = limits.parsing.aside(least, move || write(&told, max_bytes)).await else {
        return Err(ApiError::unavailable("The answer could not be written").into());
    };
    let made = made?;
    if !held.resize(size(&made)) {
        return Err(too_much(Excess::InSum, None, bounds).into());
    }
    Ok((made, Some(held)))
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
            | QueryAnswer::Default { output, .. } => output.bytes(),
            QueryAnswer::Error(_) => 0,
        };
        self.answers.iter().map(bytes).sum()
    }

    fn write(&self, max_bytes: usize) -> Result<Parts, ApiError> {
        let rows = self.rows().map_err(|unanswered| unanswered.error())?;
        self.answer(&rows).write(max_bytes).map_err(errors::not_written)
    }

    /// What is told of each row, if each has something: a default output is no prediction unless
    /// it was asked for.
    pub(crate) fn rows(&self) -> Result<Rows<'_>, Unanswered<'_>> {
        let count = self.answers.len();
        let mut outputs = Vec::with_capacity(count);
        let mut defaults = Vec::new();
        let mut explanation = String::new();
        for (row, answer) in self.answers.iter().enumerate() {
            let unanswered = |why| Unanswered { row, rows: count, why };
            match answer {
                QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } => {
                    outputs.push(output.json());
                }
                QueryAnswer::Default { output, reason } if self.takes_default => {
                    if defaults.is_empty() {
                        explanation = reason.to_string();
                    }
                    defaults.push(row);
                    outputs.push(output.json());
                }
                QueryAnswer::Default { reason, .. } => {
                    return Err(unanswered(Why::Default(reason)));
                }
                QueryAnswer::Error(why) => return Err(unanswered(Why::Error(why))),
            }
        }
        Ok(Rows { outputs, defaults, explanation })
    }

    /// The answer that these rows make.
    pub(crate) fn answer<'a>(&'a self, rows: &'a Rows<'_>) -> Answer<'a> {
        let Rows { outputs, defaults, explanation } = rows;
        let defaults = Defaults { rows: defaults.clone(), explanation };
        Answer {
            model_name: &self.name,
            model_version: self.version.as_deref(),
            id: self.id.as_deref(),
            rows: outputs,
            defaults: self.takes_default.then_some(defaults),
            form: self.form,
        }
    }
}

/// What is told of each row.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    outputs: Vec<&'a [u8]>,
    defaults: Vec<usize>,
    explanation: String,
}

/// A row of which nothing is told.
#[derive(Debug)]
pub(crate) struct Unanswered<'a> {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(crate) why: Why<'a>,
}

#[derive(Debug)]
pub(crate) enum Why<'a> {
    /// There is only the default output.
    Default(&'a DefaultReason),
    /// The model's error, which the application passes on.
    Error(&'a str),
    /// An output that is no row of tensors, as a policy makes them.
    NoTensors,
}

impl Unanswered<'_> {
    pub(crate) fn error(&self) -> ApiError {
        let Self { row, rows, why } = self;
        match why {
            Why::Default(reason) => errors::no_prediction(*row, *rows, reason),
            Why::Error(why) => errors::model_error(*row, *rows, why),
            Why::NoTensors => errors::no_tensors(),
        }
    }
}

fn response(parts: Parts, form: OutputForm, held: Option<Held>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if form.binary {
        response.insert_header(("Inference-Header-Content-Length", parts.json.len()));
        response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
    } else {
        response.insert_header((header::CONTENT_TYPE, JSON.clone()));
    }
    let Parts { mut json, binary } = parts;
    let binary = binary.unwrap_or_default();
    if held.is_none() {
        json.extend_from_slice(&binary);
        return response.body(json);
    }
    response.body(Sent::new([json.into(), binary.into()].into_iter(), held))
}

/// A long answer on its way, in pieces; what it holds of the sum of all answers is given back when
/// it has gone.
pub(super) struct Sent {
    parts: VecDeque<Bytes>,
    bytes: usize,
    _held: Option<Held>,
}

impl Sent {
    pub(super) fn new(parts: impl Iterator<Item = Bytes>, held: Option<Held>) -> Self {
        let parts: VecDeque<Bytes> = parts.filter(|part| !part.is_empty()).collect();
        let bytes = parts.iter().map(Bytes::len).sum();
        Self { parts, bytes, _held: held }
    }
}

impl MessageBody for Sent {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let Some(part) = this.parts.front_mut() else { return Poll::Ready(None) };
        let piece = part.split_to(part.len().min(PIECE_BYTES));
        if part.is_empty() {
            this.parts.pop_front();
        }
        Poll::Ready(Some(Ok(piece)))
    }
}
