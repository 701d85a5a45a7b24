//! `ModelStreamInfer`: requests in a row, each with one answer, in the order of the requests, or in
//! pieces, which come when they come.

use std::rc::Rc;

use bytes::Bytes;
use clipper_grpc::{Reply, Status, framed};
use clipper_oip::grpc::ModelInferResponse;
use futures_util::StreamExt as _;
use futures_util::stream::{FuturesOrdered, LocalBoxStream, SelectAll};

use super::infer::{InferAnswer, of_stream, response};
use super::pieces::Frame;
use super::reader::{Arrived, Context, Reader};
use super::refusal::Refusal;
use super::said::Said;
use super::service::{REFLECTION, Service};
use super::traced;
use crate::http::serve::calls::Calls;
use crate::http::v2::answer::{self, Told};

/// What answers one request.
enum StreamedAnswer<'s> {
    Whole(Frame),
    Pieces(LocalBoxStream<'s, Frame>),
}

impl Service {
    /// Answers until the client has sent all. A request that is refused has its error for an
    /// answer, and the stream goes on; what cannot be read ends it.
    pub(super) async fn infer_stream(
        &self,
        reader: &mut Reader,
        reply: &mut Reply,
        context: Context,
        calls: &Rc<Calls>,
    ) -> Result<(), Refusal> {
        reply.begin()?;
        let mut answers = FuturesOrdered::new();
        let mut pieces = SelectAll::new();
        let mut ended = None;
        loop {
            let has_room = answers.len() + pieces.len() < self.settings.stream_requests_max;
            tokio::select! {
                biased;
                answer = answers.next(), if !answers.is_empty() => match answer {
                    Some(StreamedAnswer::Whole((frame, _held))) => reply.message(frame).await?,
                    Some(StreamedAnswer::Pieces(frames)) => pieces.push(frames),
                    None => {}
                },
                piece = pieces.next(), if !pieces.is_empty() => {
                    if let Some((frame, _held)) = piece {
                        reply.message(frame).await?;
                    }
                }
                arrived = reader.next(), if ended.is_none() && has_room => match arrived {
                    Ok(Some(arrived)) => {
                        answers.push_back(self.stream_answer(arrived, context.clone()));
                    }
                    Ok(None) => ended = Some(Ok(())),
                    Err(refusal) => ended = Some(Err(refusal)),
                },
                () = calls.closing(), if ended.is_none() => ended = Some(Err(Refusal::stopping())),
                () = reply.given_up() => return Err(Refusal::gone()),
                else => break,
            }
            if answers.is_empty() && pieces.is_empty() && ended.is_some() {
                break;
            }
        }
        ended.unwrap_or(Ok(()))
    }

    async fn stream_answer(&self, arrived: Arrived, mut context: Context) -> StreamedAnswer<'_> {
        let (mut id, mut said) = (String::new(), Said::default());
        // A message may have waited for those before it, which is its client's choice.
        context.receive_time = None;
        let mut open = traced::begin(&self.v2.plane, &mut context, "ModelStreamInfer");
        let answered = async {
            let message = arrived.message(self.claim(), self.limits()).await?;
            let read = self.read(message, context, &mut id).await?;
            if self.is_in_pieces(&read.target, read.asked.infer.inputs.len()) {
                return Ok(StreamedAnswer::Pieces(self.pieces(read, open.take()).await?));
            }
            let InferAnswer { told, asked: _asked } = self.ask(read).await?;
            said = Said::of(&told);
            let whole = answer::written(told, self.limits(), stream_frame, Bytes::len).await?;
            Ok(StreamedAnswer::Whole(whole))
        };
        match answered.await {
            Ok(answer) => {
                traced::end(open, &Status::ok());
                answer
            }
            Err(refusal) => {
                let refusal: Refusal = refusal;
                traced::end(open, &refusal.status);
                self.count(&refusal);
                let mut response = ModelInferResponse { id, ..ModelInferResponse::default() };
                said.put_in(&mut response);
                StreamedAnswer::Whole((of_stream(response, refusal.status.message, true), None))
            }
        }
    }

    /// Answers questions about what is served.
    pub(super) async fn reflect(
        &self,
        reader: &mut Reader,
        reply: &mut Reply,
        calls: &Rc<Calls>,
    ) -> Result<(), Refusal> {
        reply.begin()?;
        loop {
            let arrived = tokio::select! {
                biased;
                arrived = reader.next() => arrived?,
                () = calls.closing() => return Err(Refusal::stopping()),
            };
            let Some(arrived) = arrived else { return Ok(()) };
            let question = arrived.decoded(self.limits()).await?;
            reply.message(framed(&REFLECTION.answer(question))).await?;
        }
    }
}

fn stream_frame(told: &Told, max_bytes: usize) -> Result<Bytes, Refusal> {
    let mut response = response(told, max_bytes)?;
    Said::of(told).put_in(&mut response);
    Ok(of_stream(response, String::new(), true))
}
