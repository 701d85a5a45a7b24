//! Answers in pieces: what a container that gives them says, and what it is told.
//!
//! Such a container has lanes: it answers so many queries at the same time, each in a batch of its
//! own. Pieces go straight to the request that waits for them; the batcher hears of the end only.
//! A query that nobody waits for any more is taken back, and its lane is free when the container
//! says that it has ended.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::debug;

use super::super::batch_span::{self, BatchEnd};
use super::lane_state::{Lanes, Piecewise, Rung};
use super::{Container, InFlight};
use crate::actors::replica::dispatch::FromReplica;
use crate::metrics::RpcEnd;
use clipper_clock as clock;
use clipper_rpc::codec::Extensions;
use clipper_rpc::streams::{StreamNews, StreamOrder, encode_order};
use clipper_scheduling::dispatch::Query as _;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::output::Output;
use clipper_scheduling::stream::NoPlace;
use clipper_scheduling::ticket::DefaultReason;
use clipper_scheduling::trace::TraceStep;

impl Container {
    /// Tells the batcher of this replica, once it is known how many queries it takes.
    pub(super) fn announce_when_known(
        &mut self,
        attached: oneshot::Sender<()>,
        ctx: &mut Context<Self>,
    ) {
        match &mut self.lanes {
            Lanes::Awaited(waiting) => *waiting = Some(attached),
            Lanes::None | Lanes::Known(_) => self.announce(attached, ctx),
        }
    }

    /// Opens the stream of a query that is about to be sent alone, if it may be answered in pieces.
    pub(super) fn open_stream(
        &mut self,
        message_id: u32,
        flights: &[Arc<Flight>],
        ctx: &mut Context<Self>,
    ) -> Option<Piecewise> {
        let ([flight], Some(_)) = (flights, self.lanes.known()) else { return None };
        let due = flight.deadline.saturating_duration_since(clock::now());
        // By then it has an answer or a piece of it, or nobody waits any more.
        ctx.run_later(due, Self::cancel_unwanted);
        let stream = Arc::clone(flight.stream()?);
        let bounds = &self.plane.streams;
        let (credit, piece_max_bytes) = (bounds.pieces_max, bounds.piece_max_bytes);
        stream.listen(&self.bell);
        let order = StreamOrder::Open { message_id, pieces: credit, piece_max_bytes };
        encode_order(&mut self.unwritten, order);
        Some(Piecewise { stream, credit })
    }

    pub(super) fn hear_stream(&mut self, news: StreamNews, bytes: usize, ctx: &mut Context<Self>) {
        if !self.identity.accepted().has(Extensions::STREAMS) {
            let text = "it sent an answer in pieces without having announced that it does";
            return self.end(RpcEnd::Protocol, text, ctx);
        }
        match news {
            StreamNews::Lanes(lanes) => {
                self.count_unasked(bytes, ctx);
                let Lanes::Awaited(waiting) = &mut self.lanes else {
                    let text = "it said twice how many queries it answers at the same time";
                    return self.end(RpcEnd::Protocol, text, ctx);
                };
                let waiting = waiting.take();
                self.lanes = Lanes::Known(lanes.min(self.plane.rpc.lanes_max));
                if let Some(attached) = waiting {
                    self.announce(attached, ctx);
                }
            }
            StreamNews::Piece { message_id, text } => self.piece(message_id, &text, bytes, ctx),
            StreamNews::End { message_id, error } => {
                self.end_stream(message_id, error.as_ref(), bytes, ctx);
                self.asked.set(!self.in_flight.is_empty() || self.late_answers > 0);
            }
        }
    }

    fn piece(&mut self, message_id: u32, text: &Bytes, bytes: usize, ctx: &mut Context<Self>) {
        let found = self.in_flight.iter_mut().find(|batch| batch.message_id == message_id);
        let Some(batch) = found else {
            // Of an answer that was given up or has ended.
            return self.stray_piece(bytes, ctx);
        };
        let Some(piecewise) = &mut batch.piecewise else {
            let text = "it sent a piece of an answer that was not to come in pieces";
            return self.end(RpcEnd::Protocol, text, ctx);
        };
        let Some(credit) = piecewise.credit.checked_sub(1) else {
            return self.end(RpcEnd::Protocol, "it sent more pieces than it was asked for", ctx);
        };
        piecewise.credit = credit;
        let max = self.plane.streams.piece_max_bytes as usize;
        if text.len() > max {
            let has = text.len();
            let text = format!(
                "it sent a piece of {has} bytes, more than serving.stream_piece_max_bytes = {max}"
            );
            return self.end(RpcEnd::Protocol, text, ctx);
        }
        let [flight] = &batch.flights[..] else { return };
        if batch.is_cancelled {
            return;
        }
        let flight = Arc::clone(flight);
        let failed = match Output::from_text(text) {
            None => Some(Arc::from("A piece of the model's answer is not UTF-8 text")),
            Some(_) if !flight.begin_stream(self.last_heard) => None,
            Some(piece) => match piecewise.stream.push(piece) {
                Ok(()) => return,
                Err(NoPlace::TooMany) => {
                    let text = "it sent more pieces than there is room for";
                    return self.end(RpcEnd::Protocol, text, ctx);
                }
                Err(NoPlace::InSum) => Some(Arc::from(
                    "The pieces of all answers that wait for their callers are over \
                     serving.streams_max_bytes",
                )),
            },
        };
        // Nobody waits for more of it.
        if let Some(why) = failed {
            self.plane.cache.abort(&flight, DefaultReason::Failed(why));
        }
        self.cancel(message_id, ctx);
        self.write(ctx);
    }

    fn stray_piece(&mut self, bytes: usize, ctx: &mut Context<Self>) {
        if let Some(late) = self.late_pieces.checked_sub(1) {
            self.late_pieces = late;
        } else {
            if let Some(serving) = &self.serving {
                serving.model.metrics.stray_answer();
            }
            self.count_unasked(bytes, ctx);
        }
    }

    fn end_stream(
        &mut self,
        message_id: u32,
        error: Option<&Bytes>,
        bytes: usize,
        ctx: &mut Context<Self>,
    ) {
        let answered = clock::now();
        let at = self.in_flight.iter().position(|batch| batch.message_id == message_id);
        let Some(at) = at else { return self.stray_answer(message_id, 1, bytes, ctx) };
        if self.in_flight.get(at).is_none_or(|batch| batch.piecewise.is_none()) {
            let text = "it ended an answer that was not to come in pieces";
            return self.end(RpcEnd::Protocol, text, ctx);
        }
        let Some(ended) = self.in_flight.remove(at) else { return };
        let InFlight { batch, flights, piecewise, is_cancelled, .. } = ended;
        let _span = self.span(message_id).entered();
        debug!(failed = error.is_some(), "answer in pieces ended");
        let who = (&self.identity.model, self.identity.replica);
        batch_span::leave(&self.plane, who, (batch, &flights[..]), BatchEnd::Answered(None));
        let step = TraceStep::Answered(batch, self.identity.replica, None);
        for flight in flights.iter() {
            if !is_cancelled {
                flight.note_step(step, answered);
            }
            if let Some(text) = error {
                if let Some(serving) = &self.serving {
                    serving.model.metrics.model_errors(1);
                }
                let text = Arc::from(String::from_utf8_lossy(text));
                self.plane.cache.abort(flight, DefaultReason::Model(text));
            } else if is_cancelled {
                // It is not complete.
                self.plane.cache.abort(flight, DefaultReason::Late);
            } else {
                if let Some(piecewise) = &piecewise {
                    piecewise.stream.complete();
                }
                self.plane.cache.land(flight, Output::null());
            }
        }
        let replica = self.identity.replica;
        self.tell_batcher(FromReplica::Done { replica, batch, answered });
    }

    /// Takes back a query that nobody waits for any more. The container has to end it soon: a lane
    /// that is stuck takes the others' time.
    fn cancel(&mut self, message_id: u32, ctx: &mut Context<Self>) {
        let found = self.in_flight.iter_mut().find(|batch| batch.message_id == message_id);
        let Some(batch) = found.filter(|batch| !batch.is_cancelled) else { return };
        batch.is_cancelled = true;
        encode_order(&mut self.unwritten, StreamOrder::Cancel { message_id });
        let limit = Duration::from_millis(self.plane.rpc.silence_timeout_ms);
        ctx.run_later(limit, move |container, ctx| {
            if container.in_flight.iter().any(|batch| batch.message_id == message_id) {
                let text = "it did not end an answer that nobody waits for \
                            (rpc.silence_timeout_ms)";
                container.end(RpcEnd::Hung, text, ctx);
            }
        });
    }

    fn cancel_unwanted(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let is_unwanted = |batch: &&InFlight| {
            let awaited = |flight: &Arc<Flight>| flight.awaited_until(now).is_some();
            let left = batch.piecewise.as_ref().is_some_and(|answer| !answer.stream.is_wanted());
            !batch.is_cancelled && (left || !batch.flights.iter().any(awaited))
        };
        let unwanted = self.in_flight.iter().filter(is_unwanted);
        let unwanted: Vec<u32> = unwanted.map(|batch| batch.message_id).collect();
        for message_id in unwanted {
            self.cancel(message_id, ctx);
        }
        self.write(ctx);
    }

    /// What is left of answers in pieces when nobody waits for any of them.
    pub(super) fn give_up_streams(&mut self, unanswered: &[InFlight]) {
        for InFlight { message_id, piecewise, is_cancelled, .. } in unanswered {
            let Some(Piecewise { credit, .. }) = piecewise else { continue };
            self.late_pieces = self.late_pieces.saturating_add(*credit);
            if !is_cancelled {
                let message_id = *message_id;
                encode_order(&mut self.unwritten, StreamOrder::Cancel { message_id });
            }
        }
    }
}

impl StreamHandler<Rung> for Container {
    fn handle(&mut self, _: Rung, ctx: &mut Self::Context) {
        if self.end.is_some() {
            return;
        }
        for InFlight { message_id, piecewise, is_cancelled, .. } in &mut self.in_flight {
            let Some(piecewise) = piecewise.as_mut().filter(|_| !*is_cancelled) else { continue };
            let pieces = piecewise.stream.take_credits();
            if pieces > 0 {
                piecewise.credit += pieces;
                let order = StreamOrder::Credit { message_id: *message_id, pieces };
                encode_order(&mut self.unwritten, order);
            }
        }
        self.cancel_unwanted(ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
