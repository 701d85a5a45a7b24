//! Where one model's answers to some queries are.

use smallvec::SmallVec;

use clipper_clock::Instant;
use clipper_scheduling::ticket::{Answer, Ticket};

/// Answers of one model.
#[derive(Debug)]
pub enum ModelProgress {
    /// Here, in input order.
    Ready(SmallVec<[Answer; 1]>),
    /// On their way; closed at the deadline.
    Waiting {
        /// What to wait on.
        ticket: Ticket,
        deadline: Instant,
    },
}
