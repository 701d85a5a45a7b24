//! What a model's batcher and its replicas tell each other: one kind of message each way, so that
//! they stay in order.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_scheduling::dispatch::{BatchId, Departure, Unanswered};
use clipper_scheduling::flight::Flight;

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
    Left { replica: ReplicaId, cause: Departure },
}
