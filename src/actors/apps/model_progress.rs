//! Where one model's answers to some queries are.

use smallvec::SmallVec;

use clipper_clock::Instant;
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason, Excess, Ticket};

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

impl ModelProgress {
    /// Whether there is an output for this query by now.
    pub(super) fn has_output(&self, index: usize) -> bool {
        match self {
            Self::Ready(answers) => matches!(answers.get(index), Some(Answer::Output(_))),
            Self::Waiting { ticket, .. } => ticket.has_output(index),
        }
    }

    /// Waits for them, until the deadline.
    pub(super) async fn in_time(&self) {
        if let Self::Waiting { ticket, deadline } = self {
            let _ = tokio::time::timeout_at(*deadline, ticket.filled()).await;
        }
    }

    /// Takes what has arrived; what has not is late.
    ///
    /// # Errors
    /// They take too much room.
    pub(super) fn close(self) -> Result<Closed, Excess> {
        match self {
            Self::Ready(answers) => Ok(Closed { answers, held: None }),
            Self::Waiting { ticket, .. } => ticket.close(),
        }
    }

    /// No model answers these queries, for one reason.
    pub(super) fn defaults(queries: usize, reason: DefaultReason) -> Self {
        Self::Ready(smallvec::smallvec![Answer::Default(reason); queries])
    }
}
