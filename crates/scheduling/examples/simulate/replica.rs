//! A simulated replica, as the dispatcher has to see it.

use std::collections::VecDeque;
use std::sync::Arc;

use clipper_clock::Instant;
use clipper_scheduling::dispatch::BatchId;

use crate::query::SimQuery;

/// A batch that a replica has been sent, as the dispatcher sees it.
#[derive(Debug)]
pub struct SimBatch {
    pub id: BatchId,
    /// The connection tells its messages apart, whatever the batches in them are called.
    pub message: u64,
    pub queries: Arc<[SimQuery]>,
    /// It is computed since then.
    pub began: Option<Instant>,
}

#[derive(Debug)]
pub struct SimReplica {
    /// Tells connections apart that have the same name.
    pub connection: u64,
    /// One of several of a container that answers in pieces.
    pub is_lane: bool,
    pub is_alive: bool,
    pub is_hung: bool,
    /// Its batches take so many times as long as they should.
    pub times: u32,
    pub batches: VecDeque<SimBatch>,
    pub idle_since: Instant,
}
