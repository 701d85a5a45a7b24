//! One request of `ModelStreamInfer` with many answers: a model that answers in pieces, which
//! Triton calls decoupled.

use bytes::Bytes;
use clipper_grpc::Code;
use clipper_oip::grpc::ModelInferResponse;
use clipper_scheduling::budget::Held;
use futures_util::stream::{self, LocalBoxStream, StreamExt as _};
use smallvec::{SmallVec, smallvec};

use super::accessed::Noted;
use super::infer::{Read, of_stream, response};
use super::refusal::Refusal;
use super::said;
use super::service::Service;
use super::traced;
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::streaming::{StreamEnd, StreamStep, Streaming};
use crate::http::v2::answer::{self, Told};
use crate::http::v2::arrival::Asked;
use crate::http::v2::ask::{self, Meant};
use crate::http::v2::generate;
use crate::http::v2::target::Target;
use crate::traces::request::OpenRequest;

/// A frame, and what it holds of the sum of all answers.
pub(super) type Frame = (Bytes, Option<Held>);

/// The frames of one answer in pieces.
struct AnswerFrames<'s> {
    service: &'s Service,
    streaming: Streaming,
    /// Of an answer that has no rows yet.
    told: Told,
    wants_empty_final: bool,
    /// Where is noted how it ends.
    noted: Noted,
    /// Its span: that of a client that has gone, unless it ends otherwise.
    open: Option<OpenRequest>,
    has_ended: bool,
    /// Lives until the answer has been sent.
    _asked: Asked,
}

impl Service {
    /// Whether the answers of a request for these models come in pieces.
    pub(super) fn is_in_pieces(&self, target: &Target, rows: usize) -> bool {
        let [id] = &target.served[..] else { return false };
        let handle = self.v2.plane.directory.get(&id.name, &id.version);
        rows == 1 && target.models.len() == 1 && handle.is_some_and(|model| model.has_lanes())
    }

    /// The frames that answer a request.
    pub(super) async fn pieces(
        &self,
        read: Read,
        mut open: Option<OpenRequest>,
    ) -> Result<LocalBoxStream<'_, Frame>, Refusal> {
        let Read { name, version, target, mut asked, arrived, wants_empty_final, noted } = read;
        let meant = Meant { name: &name, version: version.as_deref(), target: &target };
        let streaming = match generate::stream(&self.v2, &meant, &mut asked, arrived).await {
            Ok(streaming) => streaming,
            Err(error) => {
                let refusal = Refusal::from(error);
                traced::end(open.take(), &refusal.status);
                return Err(refusal);
            }
        };
        let infer = &mut asked.infer;
        let told = Told {
            version: ask::answered_by(&target),
            name,
            id: infer.id.take(),
            takes_default: infer.takes_default,
            form: infer.output,
            tensors: None,
            answers: SmallVec::new(),
            held: None,
            model: None,
            explained: Vec::new(),
        };
        let pieces = AnswerFrames {
            service: self,
            streaming,
            told,
            wants_empty_final,
            noted,
            open,
            has_ended: false,
            _asked: asked,
        };
        let frames = stream::unfold(pieces, |mut pieces| async move {
            loop {
                let step = pieces.streaming.next().await?;
                if let Some(frame) = pieces.frame(step).await {
                    return Some((frame, pieces));
                }
            }
        });
        Ok(frames.boxed_local())
    }
}

impl AnswerFrames<'_> {
    async fn frame(&mut self, step: StreamStep) -> Option<Frame> {
        if let StreamStep::End(end) = &step {
            self.note(end);
        }
        match step {
            StreamStep::Piece(output) => {
                Some(self.row(QueryAnswer::Output(output), piece_frame).await)
            }
            StreamStep::End(StreamEnd::Complete) => {
                let is_wanted = self.wants_empty_final || self.streaming.explained().is_some();
                is_wanted.then(|| (of_stream(self.empty(), String::new(), true), None))
            }
            StreamStep::End(StreamEnd::Default { output, reason }) if self.told.takes_default => {
                Some(self.row(QueryAnswer::Default { output, reason }, last_frame).await)
            }
            StreamStep::End(end) => Some(self.refused(&generate::failure(&end).into())),
        }
    }

    /// How it ended, for the access log and its span.
    fn note(&mut self, end: &StreamEnd) {
        self.has_ended = true;
        self.noted.streamed(end);
        let Some(open) = &mut self.open else { return };
        if end.is_answer(self.told.takes_default) {
            return open.answered(Code::Ok as u16);
        }
        open.answered(Refusal::from(generate::failure(end)).status.code as u16);
        let (outcome, why) = end.outcome();
        open.broke_off(outcome, &why.unwrap_or_default());
    }

    async fn row(
        &self,
        answer: QueryAnswer,
        write: fn(&Told, usize) -> Result<Bytes, Refusal>,
    ) -> Frame {
        let Told { name, version, id, takes_default, form, .. } = &self.told;
        let told = Told {
            name: name.clone(),
            version: version.clone(),
            id: id.clone(),
            takes_default: *takes_default,
            form: *form,
            tensors: None,
            answers: smallvec![answer],
            held: None,
            model: None,
            explained: self.streaming.explained().cloned().into_iter().collect(),
        };
        match answer::written(told, self.service.limits(), write, Bytes::len).await {
            Ok(frame) => frame,
            Err(refusal) => self.refused(&refusal),
        }
    }

    fn refused(&self, refusal: &Refusal) -> Frame {
        self.service.count(refusal);
        (of_stream(self.empty(), refusal.status.message.clone(), true), None)
    }

    /// Whose answer it is, and nothing of it.
    fn empty(&self) -> ModelInferResponse {
        let mut response = ModelInferResponse {
            model_name: self.told.name.clone(),
            model_version: self.told.version.clone().unwrap_or_default(),
            id: self.told.id.clone().unwrap_or_default(),
            ..ModelInferResponse::default()
        };
        said::put_in(self.streaming.explained(), &mut response);
        response
    }
}

impl Drop for AnswerFrames<'_> {
    fn drop(&mut self) {
        if !self.has_ended
            && let Some(end) = self.noted.dropped()
        {
            self.note(&end);
        }
    }
}

fn piece_frame(told: &Told, max_bytes: usize) -> Result<Bytes, Refusal> {
    Ok(of_stream(response(told, max_bytes)?, String::new(), false))
}

fn last_frame(told: &Told, max_bytes: usize) -> Result<Bytes, Refusal> {
    let mut response = response(told, max_bytes)?;
    said::put_in(told.explained.first(), &mut response);
    Ok(of_stream(response, String::new(), true))
}
