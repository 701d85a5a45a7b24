//! What the dispatcher is told.

use std::sync::Arc;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use smallvec::SmallVec;

use crate::batch_id::BatchId;
use crate::share::Share;

/// Queries of one request.
#[derive(Debug)]
pub struct Arrival<Q> {
    pub share: Share,
    /// When they are due. For one that has come before, with a later deadline, this one counts.
    pub deadline: Instant,
    /// At least one.
    pub queries: SmallVec<[Q; 1]>,
}

/// What a replica has been sent by an earlier dispatcher and has not answered.
#[derive(Debug)]
pub struct Unanswered<Q> {
    pub batch: BatchId,
    /// At least one.
    pub queries: Arc<[Q]>,
}

#[derive(Debug)]
pub enum Event<'a, Q> {
    /// Queries have come; they are taken out.
    Arrived(&'a mut Vec<Arrival<Q>>),
    /// A replica takes batches from now on.
    Joined {
        /// Which; one that had the same name has left.
        replica: ReplicaId,
        /// In the order in which they were sent, at most two.
        unanswered: Vec<Unanswered<Q>>,
        /// It is one of several of a container that answers in pieces: it takes one query at a
        /// time, for as long as that takes.
        is_lane: bool,
    },
    /// A replica is gone.
    Left { replica: ReplicaId, cause: Departure },
    /// A replica has answered a batch, and each of its queries was told the answer.
    Done {
        replica: ReplicaId,
        /// Which of its batches.
        batch: BatchId,
    },
    /// A time that `Action::Wake` has named has come, or any other.
    Time,
}

/// Why a replica is gone.
#[derive(Debug, Clone)]
pub enum Departure {
    /// It was told to go: what it had is nobody's fault.
    Orderly(Arc<str>),
    /// It died or hung: perhaps by what it had. In words.
    Died(Arc<str>),
    /// It broke a rule: perhaps with what it had, but that is not held against the input.
    Broke(Arc<str>),
    /// Its answer was larger than the limit with this name and value allows.
    AnswerTooLarge(Arc<str>),
}
