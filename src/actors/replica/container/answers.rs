//! Answers of a replica: those that are awaited, and others.

use actix::prelude::*;
use tracing::debug;

use super::super::batch_span::{self, BatchEnd};
use super::super::landing::{LandedBatch, Landing, Outputs};
use super::{Container, InFlight};
use crate::actors::replica::dispatch::FromReplica;
use crate::metrics::RpcEnd;
use crate::rpc::reader::UNASKED_LIMITS;
use clipper_clock as clock;
use clipper_rpc::codec::{AnswerLimits, Extensions};

impl Container {
    pub(super) fn answer_limits(&self) -> AnswerLimits {
        let rpc = &self.plane.rpc;
        let accepted = self.identity.accepted();
        let errors = accepted.has(Extensions::QUERY_ERRORS);
        let error_max_bytes = errors.then_some(rpc.model_error_max_bytes as usize);
        let joined = accepted.has(Extensions::JOINED);
        let computed = accepted.has(Extensions::COMPUTED);
        AnswerLimits { outputs_max: rpc.frames_max, error_max_bytes, joined, computed }
    }

    /// An answer that nobody awaits: of a batch that was given up, or of no batch at all.
    pub(super) fn stray_answer(
        &mut self,
        message_id: u32,
        outputs: usize,
        bytes: usize,
        ctx: &mut Context<Self>,
    ) {
        if let Some(serving) = &self.serving {
            serving.model.metrics.stray_answer();
        }
        debug!(replica = %self.identity.replica, message_id, "stray answer ignored");
        let max = UNASKED_LIMITS.message_max_bytes;
        if self.late_answers > 0 {
            self.late_answers -= 1;
        } else if bytes > max || outputs > UNASKED_LIMITS.frames_max {
            let text = format!("it sent an answer of {bytes} bytes that nobody awaited");
            self.end(RpcEnd::Flood, text, ctx);
        }
        self.count_unasked(bytes, ctx);
    }

    pub(super) fn answer(
        &mut self,
        position: usize,
        LandedBatch { outputs, errors, computed, held }: LandedBatch,
        bytes: usize,
        ctx: &mut Context<Self>,
    ) {
        let answered = clock::now();
        let Some(batch) = self.in_flight.get(position) else { return };
        let sent = batch.flights.len();
        let (outputs, errors) = match &self.identity.signature {
            Some(signature) => match self.tensor_outputs(signature, &outputs, sent) {
                Ok(outputs) => outputs,
                Err(error) => return self.end(RpcEnd::Protocol, error.to_string(), ctx),
            },
            None if outputs.len() != sent => {
                let text = format!("it answered {} outputs to {sent} inputs", outputs.len());
                return self.end(RpcEnd::OutputCount, text, ctx);
            }
            None => {
                let count = errors.len();
                (Outputs::Texts { outputs, errors }, count)
            }
        };
        let message_id = batch.message_id;
        let Some(InFlight { flights, batch, .. }) = self.in_flight.remove(position) else { return };
        let _span = self.span(message_id).entered();
        debug!(queries = flights.len(), "batch answered");
        if let Some(serving) = self.serving.as_ref().filter(|_| errors > 0) {
            serving.model.metrics.model_errors(errors);
        }
        let replica = self.identity.replica;
        let who = (&self.identity.model, replica);
        let end = BatchEnd::Answered(computed);
        batch_span::leave(&self.plane, who, (batch, &flights[..]), end);
        let landing = Landing { flights, outputs, batch, replica, answered, computed, held };
        landing.land(&self.plane, bytes);
        self.busy_heartbeats = 0;
        self.tell_batcher(FromReplica::Done { replica, batch, answered });
    }
}
