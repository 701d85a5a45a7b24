//! What a container is told of the traces that a batch's queries belong to.

use std::sync::Arc;

use clipper_rpc::codec::Extensions;
use clipper_rpc::traces::encode_traces;
use clipper_rpc::wire::WireChunks;
use clipper_scheduling::dispatch::BatchId;
use clipper_scheduling::flight::Flight;

/// Tells a container that wants to know it of the traces of `flights`, which are about to be sent
/// in that order.
pub(super) fn hand_on_traces<'f>(
    out: &mut WireChunks,
    (message_id, batch): (u32, BatchId),
    accepted: Extensions,
    flights: impl Iterator<Item = &'f Arc<Flight>>,
) {
    if accepted.has(Extensions::TRACES) {
        let items = flights.enumerate().filter_map(|(at, of)| Some((at, of.handed_on(batch)?)));
        encode_traces(out, message_id, items);
    }
}
