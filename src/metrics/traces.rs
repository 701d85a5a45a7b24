//! What is counted of the export of traces.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of a span, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanEnd {
    /// The collector has taken it.
    Exported,
    /// There was no room for it (`traces.queue_spans_max`, `traces.queue_max_bytes`).
    QueueFull,
    /// There was no connection to the collector.
    Unreachable,
    /// The collector did not answer in time.
    TimedOut,
    /// The collector answered with another status than 200.
    Refused,
    /// The collector's answer is none of OTLP.
    Garbled,
    /// The collector took others of its message and not this one.
    Rejected,
    /// The server ended before it could be exported.
    Stopped,
}

impl SpanEnd {
    /// Each, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Exported,
        Self::QueueFull,
        Self::Unreachable,
        Self::TimedOut,
        Self::Refused,
        Self::Garbled,
        Self::Rejected,
        Self::Stopped,
    ];

    /// The text of the label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Garbled => "garbled",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        }
    }
}

/// Spans by what became of them, and those that wait.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    ended: [AtomicU64; SpanEnd::ALL.len()],
    queued: AtomicU64,
    passed_over: AtomicU64,
}

impl TraceMetrics {
    pub fn ended(&self, how: SpanEnd, spans: usize) {
        if let Some(count) = self.ended.get(how as usize) {
            count.fetch_add(spans as u64, Relaxed);
        }
    }

    #[must_use]
    pub fn count(&self, how: SpanEnd) -> u64 {
        self.ended.get(how as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// A request is not recorded although its caller wants that.
    pub fn passed_over(&self) {
        self.passed_over.fetch_add(1, Relaxed);
    }

    #[must_use]
    pub fn count_passed_over(&self) -> u64 {
        self.passed_over.load(Relaxed)
    }

    pub fn set_queued(&self, spans: usize) {
        self.queued.store(spans as u64, Relaxed);
    }

    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }
}
