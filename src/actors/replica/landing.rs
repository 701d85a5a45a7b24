//! The outputs of one batch on their way to the queries that wait for them.
//!
//! To check that an output is text and JSON takes time by its length, and so does copying it. The
//! thread of a model serves other models too, so what is long goes to a thread of its own, a few at
//! a time.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, trace};

use crate::actors::plane::data_plane::DataPlane;
use clipper_rpc::receive::Held;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::DefaultReason;

/// An answer that is awaited and whole.
#[derive(Debug)]
pub(super) struct Landing {
    /// The queries, in the order in which they were sent.
    pub(super) flights: Arc<[Arc<Flight>]>,
    /// One for each of them.
    pub(super) outputs: Vec<Bytes>,
    /// Which of the outputs are errors, ascending.
    pub(super) errors: Vec<usize>,
    /// The memory that the answer takes.
    pub(super) held: Option<Held>,
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
        let mut errors = self.errors.iter().peekable();
        for (index, (flight, text)) in self.flights.iter().zip(&self.outputs).enumerate() {
            if tracing::enabled!(tracing::Level::TRACE) {
                trace!(query_ids = ?flight.query_ids(), "query answered");
            }
            end(plane, flight, text, errors.next_if_eq(&&index).is_some());
        }
        drop(self.outputs);
        drop(self.held);
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
