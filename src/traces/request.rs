//! The trace of a request while it is answered.

use std::sync::Arc;

use parking_lot::Mutex;
use smol_str::SmolStr;

use super::facts::{Call, CallEnd, FinishedRequest, Moment};
use super::otlp::shortened;
use super::{Begun, Traces};
use clipper_clock::Instant;
use clipper_domain::{SpanId, TraceContext, TraceId, TraceParent};
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::query_context::{Carried, QueryContext};

/// The trace of a request, and where what is known of its queries is collected if it is recorded.
#[derive(Debug)]
pub struct RequestTrace {
    context: Arc<QueryContext>,
    queries_max: usize,
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    queries: Vec<QueryRecord>,
    left_out: usize,
}

impl RequestTrace {
    /// One that containers are told of as it came.
    #[must_use]
    pub fn passed_on(came: TraceContext) -> Self {
        Self::of(QueryContext::passed_on(came), 0)
    }

    fn of(context: QueryContext, queries_max: usize) -> Self {
        Self { context: Arc::new(context), queries_max, collected: Mutex::default() }
    }

    /// The trace's id.
    #[must_use]
    pub fn id(&self) -> TraceId {
        self.context.context().parent.trace
    }

    /// What its queries carry with them.
    #[must_use]
    pub fn context(&self) -> &Arc<QueryContext> {
        &self.context
    }

    /// The same for the queries of a ticket, in the order of the request's.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried { context: Arc::clone(&self.context), spans: self.queries_max }
    }

    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.context.is_recorded()
    }

    /// Where its span is, if it has one.
    #[must_use]
    pub fn span(&self) -> Option<TraceParent> {
        self.is_recorded().then(|| self.context.context().parent)
    }

    /// Keeps what `record` knows of its `queries`, if it is recorded.
    pub fn keep(&self, queries: usize, record: impl Fn(usize) -> Option<QueryRecord>) {
        if !self.is_recorded() {
            return;
        }
        let mut collected = self.collected.lock();
        let room = self.queries_max.saturating_sub(collected.queries.len());
        collected.queries.extend((0..queries.min(room)).filter_map(record));
        collected.left_out += queries.saturating_sub(room);
        drop(collected);
        self.context.keep();
    }
}

/// A request with a span, under way. Dropping it ends the span.
#[derive(Debug)]
pub struct OpenRequest {
    traces: Arc<Traces>,
    trace: Arc<RequestTrace>,
    parent: Option<SpanId>,
    call: Option<Call>,
    request_id: Option<SmolStr>,
    began: Instant,
    end: CallEnd,
    broken: Option<(&'static str, SmolStr)>,
}

impl OpenRequest {
    /// Begins the span of a request that came at `began` with this trace; none if it is not
    /// recorded. `call`: what was asked, and the id of the request.
    #[must_use]
    pub fn begin(
        traces: &Arc<Traces>,
        (came, began): (Option<&TraceContext>, Instant),
        call: impl FnOnce() -> (Call, Option<SmolStr>),
    ) -> Option<Self> {
        let Begun { context, parent } = traces.begin(came)?;
        let (call, request_id) = call();
        let trace = RequestTrace::of(QueryContext::recorded(context), traces.queries_max);
        Some(Self {
            traces: Arc::clone(traces),
            trace: Arc::new(trace),
            parent,
            call: Some(call),
            request_id,
            began,
            end: CallEnd::GivenUp,
            broken: None,
        })
    }

    #[must_use]
    pub fn trace(&self) -> &Arc<RequestTrace> {
        &self.trace
    }

    /// It is answered with this status.
    pub fn answered(&mut self, status: u16) {
        self.end = CallEnd::Status(status);
    }

    /// Its answer broke off after its head had gone, by this outcome and for this reason.
    pub fn broke_off(&mut self, outcome: &'static str, why: &str) {
        self.broken = Some((outcome, shortened(why).into()));
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let Collected { queries, left_out } = std::mem::take(&mut *self.trace.collected.lock());
        let request = FinishedRequest {
            context: self.trace.context.context().clone(),
            parent: self.parent,
            call,
            request_id: self.request_id.take(),
            began: self.began,
            ended: Moment::now(),
            end: self.end,
            broken: self.broken.take(),
            queries,
            left_out,
        };
        self.traces.queue.push(request.into());
    }
}
