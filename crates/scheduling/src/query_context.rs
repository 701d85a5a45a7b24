//! The trace that a request's queries belong to, as far as it is handed on: to containers, and to
//! the spans of batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clipper_domain::{SpanId, TraceContext};

use super::batch_id::BatchId;

/// The trace of a request.
#[derive(Debug)]
pub struct QueryContext {
    context: TraceContext,
    is_recorded: bool,
    /// What is known of its queries has been kept, to become spans.
    is_kept: AtomicBool,
}

/// The same as the queries of a ticket carry it.
#[derive(Debug, Clone)]
pub struct Carried {
    pub context: Arc<QueryContext>,
    /// So many of the ticket's queries, the first ones, have spans.
    pub spans: usize,
}

/// One attempt at a query: of whom, at which model (its serial number), in which batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptOf {
    pub query_id: u64,
    pub model: u64,
    pub batch: BatchId,
}

impl QueryContext {
    /// One that is handed on as it came.
    #[must_use]
    pub fn passed_on(context: TraceContext) -> Self {
        Self { context, is_recorded: false, is_kept: AtomicBool::new(false) }
    }

    /// One in which the request has a span of its own: that of `context`.
    #[must_use]
    pub fn recorded(context: TraceContext) -> Self {
        Self { context, is_recorded: true, is_kept: AtomicBool::new(false) }
    }

    /// Whether the request and its queries have spans.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// What is known of its queries has been kept.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
    }

    /// The request's own place, or whoever's it came from.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// The span of a query at a container.
    #[must_use]
    pub fn span(&self, of: AttemptOf) -> SpanId {
        self.context.parent.span.below(&[of.query_id, of.model, of.batch.0])
    }

    /// What a container is told: of a recorded request the span that waits for it is what its own
    /// ones are below.
    #[must_use]
    pub fn handed_on(&self, of: AttemptOf) -> TraceContext {
        if self.is_recorded { self.context.at(self.span(of)) } else { self.context.clone() }
    }
}

#[cfg(test)]
mod tests {
    use clipper_domain::TraceParent;

    use super::*;

    #[test]
    fn a_recorded_one_is_handed_on_with_the_span_of_the_attempt() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(text).unwrap();
        let context = TraceContext { parent, state: Some("a=1".into()) };
        let of = |batch| AttemptOf { query_id: 7, model: 1, batch: BatchId(batch) };
        let passed_on = QueryContext::passed_on(context.clone());
        assert_eq!(passed_on.handed_on(of(3)), context);
        let recorded = QueryContext::recorded(context.clone());
        let (first, second) = (recorded.handed_on(of(3)), recorded.handed_on(of(4)));
        assert_ne!(first.parent.span, second.parent.span);
        assert_eq!((first.parent.trace, first.parent.flags()), (parent.trace, 1));
        assert_eq!((first.parent.span, first.state), (recorded.span(of(3)), context.state));
    }
}
