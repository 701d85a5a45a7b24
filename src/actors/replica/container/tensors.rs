//! Batches of a replica that takes and gives tensors.

use std::sync::Arc;

use bytes::Bytes;

use super::super::landing::{Outputs, TensorOutputs};
use super::Container;
use super::handed_on::hand_on_traces;
use crate::actors::replica::dispatch::FromReplica;
use clipper_clock as clock;
use clipper_domain::{Input, Signature};
use clipper_rpc::tensors;
use clipper_rpc::wire::WireChunks;
use clipper_scheduling::dispatch::BatchId;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::DefaultReason;
use clipper_tensors::batch::{self, BatchError, Content, Expected};
use clipper_tensors::row::RowCheck;

impl Container {
    /// Queues a batch; gives back its queries in the order in which they are sent. Those that are
    /// none of this container are answered at once; `None` where no others are left.
    pub(super) fn encode_tensors(
        &mut self,
        message_id: u32,
        batch: BatchId,
        flights: Arc<[Arc<Flight>]>,
    ) -> Option<Arc<[Arc<Flight>]>> {
        let signature = self.identity.signature.clone();
        let specs = signature.as_ref().map(|signature| signature.inputs()).unwrap_or_default();
        let mut check = RowCheck::new(specs);
        let (taken, others): (Vec<&Arc<Flight>>, Vec<_>) =
            flights.iter().partition(move |flight| check.takes(&flight.input().0));
        if !others.is_empty() {
            let why = format!("Model {} takes other tensors", self.identity.model);
            let reason = DefaultReason::Failed(why.into());
            for flight in others {
                self.plane.cache.abort(flight, reason.clone());
            }
        }
        if taken.is_empty() {
            let (replica, answered) = (self.identity.replica, clock::now());
            self.tell_batcher(FromReplica::Done { replica, batch, answered });
            return None;
        }
        let inputs: Vec<&Input> = taken.iter().map(|flight| flight.input()).collect();
        let accepted = self.identity.accepted();
        let before = |out: &mut WireChunks, order: &[usize]| {
            let sent = order.iter().filter_map(|at| taken.get(*at).copied());
            hand_on_traces(out, (message_id, batch), accepted, sent);
        };
        let order = tensors::encode_predict(&mut self.unwritten, message_id, &inputs, before);
        if order.len() == flights.len() && order.is_sorted() {
            return Some(flights);
        }
        Some(order.iter().filter_map(|at| taken.get(*at)).map(|f| Arc::clone(f)).collect())
    }

    /// Takes the items of an answer for `rows` queries apart, whose elements stay where they are.
    pub(super) fn tensor_outputs(
        &self,
        signature: &Arc<Signature>,
        items: &[Bytes],
        rows: usize,
    ) -> Result<(Outputs, usize), BatchError> {
        let error_max_bytes = self.plane.rpc.model_error_max_bytes as usize;
        let specs = signature.outputs();
        let expected = Expected { specs, rows: Some(rows), error_max_bytes };
        let groups = batch::parse(items, expected)?;
        let errors = groups.iter().filter(|group| matches!(group.content, Content::Error(_)));
        let errors = errors.map(|group| group.rows).sum();
        let signature = Arc::clone(signature);
        Ok((Outputs::Tensors(TensorOutputs { signature, groups }), errors))
    }
}
