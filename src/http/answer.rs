//! The answer to a predict request: JSON in the original's form, long ones piece by piece.
//!
//! Outputs are shared: 10,000 equal inputs have one output of 64 KB in memory, and 640 MB of
//! answer. So an answer that is not short is written while it is sent; its length is known
//! before.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{self, HeaderValue};
use bytes::{BufMut, Bytes, BytesMut};

use super::errors::{self, ApiError, MODEL};
use crate::actors::apps::prediction::{Answers, QueryAnswer};
use clipper_scheduling::budget::Held;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::{AnswerBounds, Excess, UNCOUNTED_BYTES};

/// An answer up to this is written at once, and not counted.
const SHORT_BYTES: usize = UNCOUNTED_BYTES;
/// Bytes of one piece of a longer one.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces in a row before others on the thread have their turn.
const PIECES_IN_A_ROW: usize = 8;

/// The type of what is answered as JSON.
pub(super) static JSON: HeaderValue = HeaderValue::from_static("application/json");

const BATCH_START: &[u8] = b"{\"batch_predictions\":[";
const BATCH_END: &[u8] = b"]}";
const BEFORE_QUERY_ID: &[u8] = b"{\"query_id\":";
const BEFORE_OUTPUT: &[u8] = b",\"output\":";
const AFTER_OUTPUT: &[u8] = b",\"default\":false}";

/// The HTTP answer.
///
/// # Errors
/// 413 if it is over its limit, 503 if all answers together are over theirs.
pub fn respond(mut answers: Answers, bounds: &AnswerBounds) -> Result<HttpResponse, ApiError> {
    let held = answers.held.take();
    AnswerText(answers).respond(held, bounds)
}

/// The refusal of an answer that has, or would have, so many bytes.
#[must_use]
pub fn too_much(excess: Excess, bytes: Option<usize>, bounds: &AnswerBounds) -> ApiError {
    match excess {
        Excess::OfOne => {
            let (has, max) = (bytes.map(|bytes| format!("{bytes} bytes, ")), bounds.max_bytes);
            let has = has.unwrap_or_default();
            let cause = format!(
                "The answer has {has}more than http.answer_max_bytes = {max}: ask for fewer \
                 inputs at a time"
            );
            ApiError::new(errors::TOO_LARGE, cause)
        }
        Excess::InSum => {
            let max = bounds.all.max_bytes();
            let cause = format!("All answers under way are over http.answers_max_bytes = {max}");
            ApiError::new(errors::OVERLOADED, cause)
        }
    }
}

/// The JSON text of answers, written a part at a time.
#[derive(Debug)]
struct AnswerText(Answers);

impl AnswerText {
    fn respond(self, held: Option<Held>, bounds: &AnswerBounds) -> Result<HttpResponse, ApiError> {
        let mut response = HttpResponse::Ok();
        response.insert_header((header::CONTENT_TYPE, JSON.clone()));
        // The length of a short one need not be known.
        if let [QueryAnswer::Output(output)] = self.0.answers.as_slice()
            && output.json().len() < SHORT_BYTES / 2
        {
            let mut json = BytesMut::with_capacity(output.json().len() + 96);
            self.write(&mut json, 0);
            return Ok(response.body(json.freeze()));
        }
        let bytes = self.bytes();
        if bytes <= SHORT_BYTES {
            let mut json = BytesMut::with_capacity(bytes);
            for part in 0..self.parts() {
                self.write(&mut json, part);
            }
            return Ok(response.body(json.freeze()));
        }
        if bytes > bounds.max_bytes {
            return Err(too_much(Excess::OfOne, Some(bytes), bounds));
        }
        let mut held = held.unwrap_or_else(|| bounds.all.hold());
        if !held.resize(bytes) {
            return Err(too_much(Excess::InSum, None, bounds));
        }
        Ok(response.body(Streamed {
            text: self,
            bytes,
            part: 0,
            offset: 0,
            scratch: BytesMut::new(),
            in_a_row: 0,
            _held: held,
        }))
    }

    fn is_batch(&self) -> bool {
        self.0.answers.len() != 1
    }

    /// One for each answer; of a batch also its beginning and end.
    fn parts(&self) -> usize {
        self.0.answers.len() + if self.is_batch() { 2 } else { 0 }
    }

    /// The answer that a part holds.
    fn answer_at(&self, part: usize) -> Option<(usize, &QueryAnswer)> {
        let index = if self.is_batch() { part.checked_sub(1)? } else { part };
        Some((index, self.0.answers.get(index)?))
    }

    /// The output in the middle of a part, where it has one that is written by itself.
    fn output_at(&self, part: usize) -> Option<&Output> {
        match self.answer_at(part) {
            Some((index, QueryAnswer::Output(output))) if self.0.explained.get(index).is_none() => {
                Some(output)
            }
            _ => None,
        }
    }

    /// Bytes of the whole text. Reads no output, only their lengths.
    fn bytes(&self) -> usize {
        let mut scratch = BytesMut::new();
        let mut sum = 0;
        for part in 0..self.parts() {
            let whole = (self.output_at(part), self.answer_at(part));
            sum += if let (Some(output), Some((index, _))) = whole {
                // Of most answers nothing has to be written to know their length.
                let query_id = self.0.first_query_id + index as u64;
                usize::from(index > 0)
                    + BEFORE_QUERY_ID.len()
                    + query_id.checked_ilog10().map_or(1, |log| log as usize + 1)
                    + BEFORE_OUTPUT.len()
                    + output.json().len()
                    + AFTER_OUTPUT.len()
            } else {
                scratch.clear();
                self.write_before_output(&mut scratch, part);
                scratch.len()
            };
        }
        sum
    }

    fn write(&self, json: &mut BytesMut, part: usize) {
        self.write_before_output(json, part);
        if let Some(output) = self.output_at(part) {
            json.put_slice(output.json());
            json.put_slice(AFTER_OUTPUT);
        }
    }

    /// A part up to the model's output; the whole of a part without one.
    fn write_before_output(&self, json: &mut BytesMut, part: usize) {
        let Some((index, answer)) = self.answer_at(part) else {
            json.put_slice(if part == 0 { BATCH_START } else { BATCH_END });
            return;
        };
        if index > 0 {
            json.put_u8(b',');
        }
        let explained = self.0.explained.get(index);
        let query_id = self.0.first_query_id + index as u64;
        json.put_slice(BEFORE_QUERY_ID);
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(json.writer(), &query_id);
        match answer {
            QueryAnswer::Output(output) => {
                json.put_slice(BEFORE_OUTPUT);
                if explained.is_some() {
                    json.put_slice(output.json());
                    json.put_slice(AFTER_OUTPUT);
                }
            }
            QueryAnswer::Sure { output, confidence } => {
                json.put_slice(BEFORE_OUTPUT);
                json.put_slice(output.json());
                json.put_slice(b",\"default\":false,\"confidence\":");
                let four_digits = (confidence * 1e4).round() / 1e4;
                let _ = serde_json::to_writer(json.writer(), &four_digits);
                json.put_u8(b'}');
            }
            // It has no output, so that nobody takes it for an answer.
            QueryAnswer::Error(why) => {
                let _ = write!(json.writer(), ",\"error\":\"{}\",\"cause\":", MODEL.error);
                let _ = serde_json::to_writer(json.writer(), &**why);
                json.put_u8(b'}');
            }
            QueryAnswer::Default { output, reason } => {
                json.put_slice(BEFORE_OUTPUT);
                json.put_slice(output.json());
                json.put_slice(b",\"default\":true,\"default_explanation\":");
                let _ = serde_json::to_writer(json.writer(), &reason.to_string());
                json.put_u8(b'}');
            }
        }
        if let Some(explained) = explained {
            json.truncate(json.len() - 1);
            json.put_slice(b",\"explain\":");
            let _ = serde_json::to_writer(json.writer(), explained);
            json.put_u8(b'}');
        }
    }
}

/// A long answer on its way.
struct Streamed {
    text: AnswerText,
    bytes: usize,
    /// What is written next, and how many bytes of it have been.
    part: usize,
    offset: usize,
    scratch: BytesMut,
    in_a_row: usize,
    _held: Held,
}

impl Streamed {
    /// Adds what fits of the part at `self.part`; true = the whole of it has been written.
    fn add(&mut self, piece: &mut BytesMut) -> bool {
        self.scratch.clear();
        self.text.write_before_output(&mut self.scratch, self.part);
        let output = self.text.output_at(self.part);
        let end = if output.is_some() { AFTER_OUTPUT } else { b"" };
        let sections = [&self.scratch[..], output.map_or(&[][..], |o| o.json()), end];
        let mut start = 0;
        for section in sections {
            let done = self.offset.saturating_sub(start);
            start += section.len();
            let rest = section.get(done..).unwrap_or_default();
            let fits = rest.get(..PIECE_BYTES.saturating_sub(piece.len())).unwrap_or(rest);
            piece.put_slice(fits);
            self.offset += fits.len();
            if fits.len() < rest.len() {
                return false;
            }
        }
        self.part += 1;
        self.offset = 0;
        true
    }
}

impl MessageBody for Streamed {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        if this.part == this.text.parts() {
            return Poll::Ready(None);
        }
        if this.in_a_row == PIECES_IN_A_ROW {
            this.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.in_a_row += 1;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES && this.part < this.text.parts() && this.add(&mut piece) {}
        Poll::Ready(Some(Ok(piece.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use clipper_scheduling::budget::Budget;
    use clipper_scheduling::ticket::DefaultReason;
    use futures_util::future::poll_fn;

    use super::*;

    fn output(text: &str) -> QueryAnswer {
        QueryAnswer::Output(Output::from_text(text.as_bytes()).unwrap())
    }

    fn answers(answers: Vec<QueryAnswer>) -> AnswerText {
        let (model, explained) = (None, Vec::new());
        let answers = answers.into();
        AnswerText(Answers { answers, first_query_id: 9, held: None, model, explained })
    }

    fn limits(max_bytes: usize, all: usize) -> AnswerBounds {
        AnswerBounds { max_bytes, all: Budget::new(all) }
    }

    async fn text(response: HttpResponse) -> String {
        let mut body = Box::pin(response.into_body());
        let BodySize::Sized(size) = body.size() else { panic!("no length") };
        let mut text = Vec::new();
        while let Some(piece) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
            let piece = piece.unwrap();
            assert!(piece.len() <= SHORT_BYTES, "{}", piece.len());
            text.extend_from_slice(&piece);
        }
        assert_eq!(text.len() as u64, size);
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn answers_have_the_originals_form() {
        let limits = limits(1 << 20, 1 << 20);
        let one = answers(vec![output("7")]).respond(None, &limits).unwrap();
        assert_eq!(text(one).await, r#"{"query_id":9,"output":7,"default":false}"#);
        let why = QueryAnswer::Error("no".into());
        let default = Output::from_text(b"-1").unwrap();
        let late = QueryAnswer::Default { output: default, reason: DefaultReason::Late };
        let batch = answers(vec![output("7"), why, late]).respond(None, &limits).unwrap();
        let expected = concat!(
            r#"{"batch_predictions":[{"query_id":9,"output":7,"default":false},"#,
            r#"{"query_id":10,"error":"Model error","cause":"no"},"#,
            r#"{"query_id":11,"output":-1,"default":true,"default_explanation":"#,
            r#""Failed to retrieve a prediction response within the specified latency SLO"}]}"#,
        );
        assert_eq!(text(batch).await, expected);
        let none = answers(vec![]).respond(None, &limits).unwrap();
        assert_eq!(text(none).await, r#"{"batch_predictions":[]}"#);
    }

    #[tokio::test]
    async fn a_long_answer_comes_in_pieces_and_is_the_same() {
        let limits = limits(64 << 20, 64 << 20);
        let long = format!("\"{}\"", "x".repeat(100_000));
        for n in [1, 2, 30] {
            let list = (0..n).map(|_| output(&long)).collect();
            let whole = answers(list);
            let mut expected = BytesMut::new();
            (0..whole.parts()).for_each(|part| whole.write(&mut expected, part));
            let response = whole.respond(None, &limits).unwrap();
            assert!(limits.all.used() >= n * 100_000);
            assert_eq!(text(response).await.as_bytes(), &expected[..], "{n}");
            assert_eq!(limits.all.used(), 0);
        }
    }

    #[test]
    fn an_answer_over_a_limit_is_refused_with_its_name() {
        let long = || answers(vec![output(&format!("\"{}\"", "x".repeat(100_000)))]);
        let error = long().respond(None, &limits(99_999, 1 << 20)).unwrap_err();
        assert!(error.status == 413 && error.cause.contains("http.answer_max_bytes = 99999"));
        let error = long().respond(None, &limits(1 << 20, 99_999)).unwrap_err();
        assert!(error.status == 503 && error.cause.contains("http.answers_max_bytes = 99999"));
    }
}
