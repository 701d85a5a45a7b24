//! Spans of what is known of requests and batches. Pure.
//!
//! A request's span is the parent of those of its queries: `admission`, `queue` for each model that
//! was asked, and `container` for each attempt. A batch has a span in a trace of its own, linked
//! with the containers' spans of its queries, and they with it.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::time::Duration;

use super::facts::{Call, CallEnd, Finished, FinishedBatch, FinishedRequest, Moment};
use super::otlp::{
    Code, KeyValue, Kind, Link, Span, Status, attribute, flags, shortened, span_id, trace_id,
};
use clipper_clock::Instant;
use clipper_domain::explain::{AttemptEnd, milliseconds};
use clipper_domain::{GONE, ModelId, Outcome, ReplicaId, SpanId, TraceId, TraceParent};
use clipper_scheduling::dispatch::BatchId;
use clipper_scheduling::explain::{ModelRecord, QueryRecord};
use clipper_scheduling::query_context::QueryContext;
use clipper_scheduling::ticket::DefaultReason;
use clipper_scheduling::trace::{Attempt, SentTo};

/// Statuses from here on are the server's fault.
const SERVER_ERRORS_FROM: u16 = 500;

/// Tells a query's own spans from those of its attempts, which are known by fewer numbers.
const OWN: u64 = u64::MAX;
const ADMISSION: u64 = 1;
const QUEUE: u64 = 2;

/// The spans of one that has ended; `seed` is that of the places of batches.
pub(super) fn of(finished: &Finished, seed: u64) -> Vec<Span> {
    match finished {
        Finished::Request(request) => RequestSpans::new(request, seed).spans(),
        Finished::Batch(batch) => vec![of_batch(batch, seed)],
    }
}

struct RequestSpans<'r> {
    of: &'r FinishedRequest,
    context: QueryContext,
    seed: u64,
}

/// From when to when.
type Interval = (Instant, Instant);

impl<'r> RequestSpans<'r> {
    fn new(of: &'r FinishedRequest, seed: u64) -> Self {
        Self { of, context: QueryContext::recorded(of.context.clone()), seed }
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = vec![self.server()];
        for query in &self.of.queries {
            self.add_query(query, &mut spans);
        }
        spans
    }

    fn span(&self, name: &str, kind: Kind, id: SpanId, (from, to): Interval) -> Span {
        let TraceParent { trace, span, .. } = self.of.context.parent;
        let moment = self.of.ended;
        let (start, end) = (moment.unix(from), moment.unix(to));
        Span {
            trace_id: trace_id(trace),
            span_id: span_id(id),
            trace_state: self.of.context.state.as_deref().unwrap_or_default().to_owned(),
            parent_span_id: span_id(span),
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: end.max(start),
            flags: flags(self.of.context.parent.flags(), false),
            ..Span::default()
        }
    }

    /// The span of the request.
    fn server(&self) -> Span {
        let FinishedRequest { context, parent, call, request_id, began, ended, end, .. } = self.of;
        let id = context.parent.span;
        let mut span = self.span(&name(call), Kind::Server, id, (*began, ended.at));
        span.parent_span_id = parent.map_or_else(Vec::new, span_id);
        span.flags = flags(context.parent.flags(), parent.is_some());
        of_call(call, *end, &mut span.attributes);
        if let Some((outcome, why)) = &self.of.broken {
            fail(&mut span, outcome, Some(why.as_str()));
        } else if let Some(error_type) = failure(call, *end) {
            fail(&mut span, &error_type, None);
        }
        let attributes = &mut span.attributes;
        if let Some(id) = request_id {
            attributes.push(attribute("clipper.request_id", id.as_str()));
        }
        let queries = &self.of.queries;
        if self.of.left_out > 0 {
            let all = (queries.len() + self.of.left_out) as u64;
            attributes.push(attribute("clipper.queries", all));
        }
        if let Some(first) = queries.first() {
            if self.of.left_out == 0 {
                attributes.push(attribute("clipper.queries", queries.len() as u64));
            }
            attributes.push(attribute("clipper.app", first.app.as_str()));
            attributes.push(attribute("clipper.policy", &*first.policy));
            attributes.push(attribute("clipper.slo_ms", milliseconds(first.objective)));
            let default = queries.iter().find_map(|query| query.default.as_ref());
            self.add_outcome(default, attributes);
        }
        span
    }

    /// What came of a query, or of the first default among several.
    fn add_outcome(&self, default: Option<&DefaultReason>, attributes: &mut Vec<KeyValue>) {
        let outcome = match (default, &self.of.broken) {
            (Some(reason), _) => reason.outcome().label(),
            (None, Some((outcome, _))) => outcome,
            (None, None) if self.of.end == CallEnd::GivenUp => GONE,
            (None, None) => Outcome::Prediction.label(),
        };
        attributes.push(attribute("clipper.outcome", outcome));
        if let Some(reason) = default {
            attributes.push(attribute("clipper.default_reason", reason.to_string()));
        }
    }

    fn add_query(&self, query: &QueryRecord, spans: &mut Vec<Span>) {
        let end = query.arrived + query.latency;
        let place = query.query_id;
        let id = |what, model| self.of.context.parent.span.below(&[place, OWN, what, model]);
        let of_query = || attribute("clipper.query_id", place);
        // The models were asked by then, each in a moment.
        let queued = query.models.iter().filter_map(|model| model.trace.queued).min();
        let admitted = queued.unwrap_or(end).clamp(query.arrived, end);
        let interval = (query.arrived, admitted);
        let mut admission = self.span("admission", Kind::Internal, id(ADMISSION, 0), interval);
        admission.attributes.push(of_query());
        self.add_outcome(query.default.as_ref(), &mut admission.attributes);
        if let Some(confidence) = query.confidence {
            admission.attributes.push(attribute("clipper.confidence", confidence));
        }
        // It has no other span where the cache had the output.
        if let [model] = &query.models[..] {
            of_model(&model.model, &mut admission.attributes);
            of_record(model, &mut admission.attributes);
        }
        spans.push(admission);
        for model in &query.models {
            if let Some(queued) = model.trace.queued {
                let began = model.trace.attempts.iter().filter_map(|it| it.began).min();
                let from = queued.clamp(query.arrived, end);
                let interval = (from, began.unwrap_or(end).clamp(from, end));
                let id = id(QUEUE, model.of.1);
                let mut queue = self.span("queue", Kind::Internal, id, interval);
                queue.attributes.push(of_query());
                of_model(&model.model, &mut queue.attributes);
                of_record(model, &mut queue.attributes);
                spans.push(queue);
            }
            for attempt in &model.trace.attempts {
                let mut container = self.container(query, model, attempt);
                container.attributes.push(of_query());
                spans.push(container);
            }
        }
    }

    fn container(&self, query: &QueryRecord, model: &ModelRecord, attempt: &Attempt) -> Span {
        let end = query.arrived + query.latency;
        let of = model.attempt(attempt);
        // An equal query may have been under way long before.
        let from = attempt.began.unwrap_or(attempt.sent).clamp(query.arrived, end);
        let to = attempt.ended.map_or(end, |(at, _)| at).clamp(from, end);
        let id = self.context.span(of);
        let mut span = self.span("container", Kind::Client, id, (from, to));
        of_model(&model.model, &mut span.attributes);
        of_attempt(&attempt.to, attempt.computed, &mut span.attributes);
        let (kind, how) = (attempt.kind, attempt.ended.map(|(_, how)| how));
        let how = how.unwrap_or(AttemptEnd::Unanswered);
        span.attributes.push(attribute("clipper.attempt", kind.label()));
        span.attributes.push(attribute("clipper.attempt.end", how.label()));
        if how == AttemptEnd::Failed {
            fail(&mut span, "failed", None);
        }
        let (trace, batch) = batch_place(self.seed, of.model, of.batch);
        let flags = flags(self.of.context.parent.flags(), false);
        span.links.push(Link { trace_id: trace_id(trace), span_id: span_id(batch), flags });
        span
    }
}

fn of_batch(batch: &FinishedBatch, seed: u64) -> Span {
    let (trace, id) = batch_place(seed, batch.serial, batch.to.batch);
    let moment: Moment = batch.ended;
    let (start, end) = (moment.unix(batch.began), moment.unix(moment.at));
    let links = batch.links.iter().map(|place| Link {
        trace_id: trace_id(place.trace),
        span_id: span_id(place.span),
        flags: flags(place.flags(), false),
    });
    let mut span = Span {
        trace_id: trace_id(trace),
        span_id: span_id(id),
        name: "batch".to_owned(),
        kind: Kind::Internal.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end.max(start),
        links: links.collect(),
        dropped_links_count: u32::try_from(batch.links_left_out).unwrap_or(u32::MAX),
        flags: flags(1, false),
        ..Span::default()
    };
    of_model(&batch.model, &mut span.attributes);
    let to = SentTo { replica: batch.replica, ..batch.to };
    of_attempt(&to, batch.computed, &mut span.attributes);
    span.attributes.push(attribute("clipper.batch.reason", batch.to.reason.label()));
    if !batch.to.gathered.is_zero() {
        let gathered = milliseconds(batch.to.gathered);
        span.attributes.push(attribute("clipper.batch.gathered_ms", gathered));
    }
    if batch.end == AttemptEnd::Failed {
        fail(&mut span, "failed", batch.error.as_deref());
    }
    span
}

/// Where the span of a batch is: in a trace of its own, which is linked with those of its queries.
fn batch_place(seed: u64, model: u64, batch: BatchId) -> (TraceId, SpanId) {
    let numbers = [model, batch.0];
    let trace = TraceId::of(seed, &numbers);
    (trace, SpanId(NonZeroU64::MIN.saturating_add(seed)).below(&numbers))
}

fn name(call: &Call) -> String {
    match call {
        Call::Http { method, route, .. } => format!("{method} {route}"),
        Call::Grpc { service, method } => format!("{service}/{method}"),
    }
}

/// By the conventions of OpenTelemetry for HTTP and gRPC.
fn of_call(call: &Call, end: CallEnd, attributes: &mut Vec<KeyValue>) {
    match call {
        Call::Http { method, route, path, is_tls } => {
            attributes.push(attribute("http.request.method", method.as_str()));
            attributes.push(attribute("http.route", *route));
            attributes.push(attribute("url.path", path.as_str()));
            attributes.push(attribute("url.scheme", if *is_tls { "https" } else { "http" }));
        }
        Call::Grpc { service, method } => {
            attributes.push(attribute("rpc.system", "grpc"));
            attributes.push(attribute("rpc.service", *service));
            attributes.push(attribute("rpc.method", *method));
        }
    }
    let key = match call {
        Call::Http { .. } => "http.response.status_code",
        Call::Grpc { .. } => "rpc.grpc.status_code",
    };
    if let CallEnd::Status(status) = end {
        attributes.push(attribute(key, u64::from(status)));
    }
}

/// By what a call has failed, if it has: over HTTP by the server's fault, as conventions have it.
fn failure(call: &Call, end: CallEnd) -> Option<Cow<'static, str>> {
    /// Unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
    const OF_GRPC: [u16; 6] = [2, 4, 12, 13, 14, 15];
    let CallEnd::Status(status) = end else { return Some("given_up".into()) };
    let is_failure = match call {
        Call::Http { .. } => status >= SERVER_ERRORS_FROM,
        Call::Grpc { .. } => OF_GRPC.contains(&status),
    };
    is_failure.then(|| status.to_string().into())
}

fn of_model(model: &ModelId, attributes: &mut Vec<KeyValue>) {
    attributes.push(attribute("clipper.model", model.name.as_str()));
    attributes.push(attribute("clipper.version", model.version.as_str()));
}

fn of_record(model: &ModelRecord, attributes: &mut Vec<KeyValue>) {
    attributes.push(attribute("clipper.cache", model.cache.label()));
    if let Some(weight) = model.weight {
        attributes.push(attribute("clipper.weight", weight));
    }
    attributes.push(attribute("clipper.used", model.used));
}

/// Of a batch, or of a query in it.
fn of_attempt(to: &SentTo, computed: Option<Duration>, attributes: &mut Vec<KeyValue>) {
    // The names of lanes say nothing to anybody.
    if to.replica <= ReplicaId(u32::MAX / 2) {
        attributes.push(attribute("clipper.replica", u64::from(to.replica.0)));
    }
    attributes.push(attribute("clipper.batch.size", u64::from(to.queries)));
    if let Some(computed) = computed {
        attributes.push(attribute("clipper.computed_ms", milliseconds(computed)));
    }
}

fn fail(span: &mut Span, error_type: &str, why: Option<&str>) {
    span.attributes.push(attribute("error.type", error_type));
    let message = shortened(why.unwrap_or_default()).to_owned();
    span.status = Some(Status { code: Code::Error.into(), message });
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
