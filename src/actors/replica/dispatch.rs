//! What a model's batcher and its replicas tell each other: one kind of message each way, so that
//! they stay in order.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_scheduling::cache::PredictionCache;
use clipper_scheduling::dispatch::{BatchId, Departure, Unanswered};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::DefaultReason;

/// To a `Container`. Sender: its `Batcher`; a deployment, which tries a replica out.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum ToReplica {
    /// One batch; the replica is idle or about to be (invariant C1).
    Run {
        /// Its name, for its sender.
        batch: BatchId,
        /// At least one.
        flights: Arc<[Arc<Flight>]>,
    },
    /// It hangs, in words: end the connection.
    GiveUp(Arc<str>),
}

/// To a `Batcher`. Sender: the `Container` of one of its replicas.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum FromReplica {
    /// The replica is attached.
    Ready {
        replica: ReplicaId,
        container: Recipient<ToReplica>,
        /// What an earlier batcher has sent it.
        unanswered: Vec<Unanswered<Arc<Flight>>>,
        /// Of one that answers in pieces: so many queries at the same time, each by itself.
        lanes: Option<u32>,
        /// Told when it is among those that get queries.
        attached: oneshot::Sender<()>,
    },
    /// It has answered a batch, and the queries were told.
    Done {
        replica: ReplicaId,
        batch: BatchId,
        /// When the answer was read.
        answered: Instant,
    },
    /// It is gone, or was detached.
    Left {
        replica: ReplicaId,
        cause: Departure,
        /// What it has not answered.
        owed: Owed,
    },
}

/// Queries that a replica gives back. Nobody else has them where the batcher ends before it has
/// read that: whoever drops them ends them.
#[derive(Debug)]
pub struct Owed {
    cache: Arc<PredictionCache>,
    flights: Vec<Arc<Flight>>,
    why: Arc<str>,
}

impl Owed {
    pub(super) fn new(
        cache: Arc<PredictionCache>,
        flights: impl Iterator<Item = Arc<Flight>>,
        why: Arc<str>,
    ) -> Self {
        Self { cache, flights: flights.collect(), why }
    }

    /// They are somebody's who ends them.
    pub fn take_over(mut self) {
        self.flights.clear();
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        for flight in &self.flights {
            self.cache.abort(flight, DefaultReason::Failed(Arc::clone(&self.why)));
        }
    }
}
