//! The outputs of one batch on their way to the queries that wait for them.
//!
//! To check that an output is text and JSON takes time by its length, and so does copying it. The
//! thread of a model serves other models too, so what is long goes to a thread of its own, a few at
//! a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, trace};

use crate::actors::plane::data_plane::DataPlane;
use clipper_clock::Instant;
use clipper_domain::{ReplicaId, Signature};
use clipper_rpc::receive::Held;
use clipper_scheduling::dispatch::{BatchId, Query as _};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::output::{Output, TensorRow};
use clipper_scheduling::ticket::DefaultReason;
use clipper_scheduling::trace::TraceStep;
use clipper_tensors::batch::{Content, Group};

/// What a replica has answered to a batch.
#[derive(Debug)]
pub(super) struct LandedBatch {
    pub(super) outputs: Vec<Bytes>,
    /// Which of them are errors, ascending.
    pub(super) errors: Vec<usize>,
    /// How long it says that it computed.
    pub(super) computed: Option<Duration>,
    /// The memory that the answer takes.
    pub(super) held: Option<Held>,
}

/// An answer that is awaited and whole.
#[derive(Debug)]
pub(super) struct Landing {
    /// The queries, in the order in which they were sent.
    pub(super) flights: Arc<[Arc<Flight>]>,
    pub(super) outputs: Outputs,
    /// Which batch was answered when, and by whom.
    pub(super) batch: BatchId,
    pub(super) replica: ReplicaId,
    pub(super) answered: Instant,
    /// How long the container says that it computed.
    pub(super) computed: Option<Duration>,
    /// The memory that the answer takes.
    pub(super) held: Option<Held>,
}

/// What a replica has answered.
#[derive(Debug)]
pub(super) enum Outputs {
    /// One for each query.
    Texts {
        outputs: Vec<Bytes>,
        /// Which of them are errors, ascending.
        errors: Vec<usize>,
    },
    Tensors(TensorOutputs),
}

/// Groups of as many rows as there are queries.
#[derive(Debug)]
pub(super) struct TensorOutputs {
    pub(super) signature: Arc<Signature>,
    pub(super) groups: Vec<Group>,
}

impl Landing {
    /// Ends the queries: here, or elsewhere if that takes long. `bytes` are those of the outputs.
    pub(super) fn land(self, plane: &Arc<DataPlane>, bytes: usize) {
        if bytes <= plane.rpc.large_answer_bytes {
            return self.end_all(plane);
        }
        let plane = Arc::clone(plane);
        actix::spawn(async move {
            // Never closed.
            let Ok(_turn) = Arc::clone(&plane.large_answers).acquire_owned().await else { return };
            let ended = tokio::task::spawn_blocking(move || self.end_all(&plane));
            if ended.await.is_err() {
                debug!("the outputs of a batch were lost; their queries get default outputs");
            }
        });
    }

    fn end_all(self, plane: &DataPlane) {
        if tracing::enabled!(tracing::Level::TRACE) {
            for flight in self.flights.iter() {
                trace!(query_ids = ?flight.query_ids(), "query answered");
            }
        }
        let Self { flights, outputs, batch, replica, answered, computed, held } = self;
        let step = TraceStep::Answered(batch, replica, computed);
        let flights = flights.iter().inspect(|flight| flight.note_step(step, answered));
        match outputs {
            Outputs::Texts { outputs, errors } => {
                let mut errors = errors.iter().peekable();
                for (index, (flight, text)) in flights.zip(&outputs).enumerate() {
                    end(plane, flight, text, errors.next_if_eq(&&index).is_some());
                }
            }
            Outputs::Tensors(outputs) => outputs.end_all(plane, flights),
        }
        drop(held);
    }
}

impl TensorOutputs {
    /// Each row is copied, so that what the cache keeps holds nothing of its neighbours.
    fn end_all<'f>(self, plane: &DataPlane, mut flights: impl Iterator<Item = &'f Arc<Flight>>) {
        let Self { signature, groups } = self;
        for group in groups {
            if let Content::Error(why) = &group.content {
                let reason = DefaultReason::Model(Arc::from(String::from_utf8_lossy(why)));
                let failed = flights.by_ref().take(group.rows);
                failed.for_each(|flight| plane.cache.abort(flight, reason.clone()));
                continue;
            }
            for (bytes, flight) in group.rows().zip(flights.by_ref()) {
                let row = TensorRow { signature: Arc::clone(&signature), bytes };
                plane.cache.land(flight, Output::from_tensors(row));
            }
        }
    }
}

/// Ends one query by what the model made of it. An error is not kept: the model may be better the
/// next time.
fn end(plane: &DataPlane, flight: &Arc<Flight>, text: &[u8], is_error: bool) {
    let reason = if is_error {
        DefaultReason::Model(Arc::from(String::from_utf8_lossy(text)))
    } else if let Some(output) = Output::from_text(text) {
        return plane.cache.land(flight, output);
    } else {
        DefaultReason::Failed(Arc::from("The model's output is not UTF-8 text"))
    };
    plane.cache.abort(flight, reason);
}
