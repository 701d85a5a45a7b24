//! The spans of batches: one for each that a replica was sent, linked with those of its queries.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::plane::data_plane::DataPlane;
use crate::traces::facts::{FinishedBatch, Moment};
use clipper_domain::explain::AttemptEnd;
use clipper_domain::{ModelId, ReplicaId};
use clipper_scheduling::dispatch::BatchId;
use clipper_scheduling::flight::Flight;

/// How a replica has ended a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum BatchEnd<'e> {
    /// It says that it computed so long.
    Answered(Option<Duration>),
    /// Why it failed.
    Failed(&'e str),
}

/// Leaves the span of a batch that ends now, where spans are made and any of its queries has one.
/// While they still wait: from their end on they are not known.
pub(super) fn leave(
    plane: &DataPlane,
    (model, replica): (&ModelId, ReplicaId),
    (batch, flights): (BatchId, &[Arc<Flight>]),
    end: BatchEnd<'_>,
) {
    let (Some(traces), Some(first)) = (&plane.traces, flights.first()) else { return };
    let (mut links, max) = (Vec::new(), traces.batch_links_max());
    let left_out = flights.iter().map(|flight| flight.add_spans(batch, &mut links, max)).sum();
    if links.is_empty() {
        return;
    }
    let trace = first.trace();
    let Some(attempt) = trace.attempts.iter().find(|attempt| attempt.to.batch == batch) else {
        return;
    };
    let (end, computed, error) = match end {
        BatchEnd::Answered(computed) => (AttemptEnd::Answered, computed, None),
        BatchEnd::Failed(why) => (AttemptEnd::Failed, None, Some(why.to_owned())),
    };
    traces.batch(FinishedBatch {
        model: model.clone(),
        serial: first.key.model,
        replica,
        to: attempt.to,
        began: attempt.began.unwrap_or(attempt.sent),
        ended: Moment::now(),
        end,
        error,
        computed,
        links,
        links_left_out: left_out,
    });
}
