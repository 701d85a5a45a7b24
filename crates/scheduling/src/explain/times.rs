//! Where the time of a query went.

use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::explain::{AttemptEnd, Times, milliseconds};

use crate::trace::QueryTrace;

/// Parts of a query's latency, which they add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub admission: Duration,
    pub queue: Duration,
    pub earlier: Duration,
    /// What the container did not compute; none where it does not say how long it did.
    pub network: Option<Duration>,
    pub container: Duration,
    pub answer: Duration,
}

impl Spans {
    /// Of a query that was answered `latency` after it had `arrived`. `waits_again`: after its last
    /// replica had failed it waited for another one.
    pub fn of(
        trace: &QueryTrace,
        (arrived, latency): (Instant, Duration),
        waits_again: bool,
    ) -> Self {
        let end = arrived + latency;
        let mut from = arrived;
        // It may have joined another one that had come long before.
        let mut until = |at: Option<Instant>| {
            let at = at.unwrap_or(end).clamp(from, end);
            at - std::mem::replace(&mut from, at)
        };
        let first = trace.attempts.iter().filter_map(|attempt| attempt.began).min();
        let decisive = trace.decisive();
        let ended = decisive.and_then(|attempt| attempt.ended);
        let mut spans = Self {
            admission: until(trace.queued),
            queue: until(first),
            earlier: until(decisive.and_then(|attempt| attempt.began)),
            network: None,
            container: until(ended.map(|(at, _)| at)),
            answer: until(None),
        };
        if let Some(computed) = decisive.and_then(|attempt| attempt.computed) {
            // It may say anything, and the query may have come when it had begun.
            let computed = computed.min(spans.container);
            spans.network = Some(spans.container.saturating_sub(computed));
            spans.container = computed;
        }
        if waits_again && ended.is_some_and(|(_, how)| how == AttemptEnd::Failed) {
            spans.queue += std::mem::take(&mut spans.answer);
        }
        spans
    }

    /// From the batch's beginning until its answer.
    pub fn replica(&self) -> Duration {
        self.container + self.network.unwrap_or_default()
    }

    pub fn times(&self) -> Times {
        Times {
            admission: milliseconds(self.admission),
            queue: milliseconds(self.queue),
            earlier_attempts: milliseconds(self.earlier),
            network: self.network.map(milliseconds),
            container: milliseconds(self.container),
            answer: milliseconds(self.answer),
        }
    }
}
