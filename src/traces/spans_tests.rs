//! Spans of made-up requests: whose parents, links and times they have.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::traces::otlp::Value;
use clipper_clock as clock;
use clipper_domain::explain::{BatchReason, CacheUse};
use clipper_domain::{AppName, TraceContext};
use clipper_scheduling::trace::{QueryTrace, TraceStep};

const SEED: u64 = 7;
const REPLICA: ReplicaId = ReplicaId(3);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn context() -> TraceContext {
    let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    TraceContext { parent: TraceParent::parse(text).unwrap(), state: Some("a=1".into()) }
}

fn to(batch: u64) -> SentTo {
    SentTo {
        batch: BatchId(batch),
        replica: REPLICA,
        queries: 2,
        reason: BatchReason::Full,
        gathered: Duration::ZERO,
        expected: None,
        is_cold: false,
        begins: true,
    }
}

/// A query that arrived 10 ms after its request had, took 80 ms, and went through these steps, at
/// times after its arrival.
fn query(
    began: Instant,
    default: Option<DefaultReason>,
    steps: &[(u64, TraceStep)],
) -> QueryRecord {
    let arrived = began + ms(10);
    let mut trace = QueryTrace::default();
    for (at, step) in steps {
        trace.note(*step, arrived + ms(*at));
    }
    let model = ModelRecord {
        model: ModelId::parse("m:1").unwrap(),
        of: (70, 5),
        weight: None,
        used: default.is_none(),
        default: default.clone(),
        cache: CacheUse::Miss,
        trace,
    };
    QueryRecord {
        query_id: 70,
        request_id: None,
        app: AppName::parse("a").unwrap(),
        arrived,
        latency: ms(80),
        objective: ms(500),
        default,
        policy: Arc::from("Default"),
        confidence: None,
        models: std::iter::once(model).collect(),
    }
}

/// A request of 100 ms that is answered with this status.
fn request(
    status: u16,
    queries: impl FnOnce(Instant) -> Vec<QueryRecord>,
) -> (FinishedRequest, Instant) {
    let began = clock::now();
    let call = Call::Http {
        method: "POST".into(),
        route: "/{app}/predict",
        path: "/a/predict".into(),
        is_tls: false,
    };
    let request = FinishedRequest {
        context: context(),
        parent: Some(SpanId(std::num::NonZeroU64::MIN)),
        call,
        request_id: Some("r1".into()),
        began,
        ended: Moment { at: began + ms(100), unix_nanos: 1_000_000_000 },
        end: CallEnd::Status(status),
        broken: None,
        queries: queries(began),
        left_out: 0,
    };
    (request, began)
}

fn spans_of(request: FinishedRequest) -> Vec<Span> {
    of(&request.into(), SEED)
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// Milliseconds after the request's beginning.
fn interval(span: &Span) -> (u64, u64) {
    let at = |nanos: u64| (nanos - 900_000_000) / 1_000_000;
    (at(span.start_time_unix_nano), at(span.end_time_unix_nano))
}

fn text(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|it| it.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::Text(text) => text,
        Value::Bool(is) => is.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
    })
}

fn sent(at: u64, batch: u64) -> (u64, TraceStep) {
    (at, TraceStep::Sent(to(batch)))
}

fn answered(at: u64, batch: u64) -> (u64, TraceStep) {
    (at, TraceStep::Answered(BatchId(batch), REPLICA, Some(ms(5))))
}

const QUEUED: (u64, TraceStep) = (1, TraceStep::Queued);

#[test]
fn a_query_has_spans_below_its_request_with_the_times_that_were_measured() {
    let steps = [QUEUED, sent(20, 9), answered(70, 9)];
    let (request, _) = request(200, |began| vec![query(began, None, &steps)]);
    let finished = request.into();
    let spans = of(&finished, SEED);
    assert_eq!(spans.len(), finished.spans());
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /{app}/predict", "admission", "queue", "container"]);
    let intervals: Vec<_> = spans.iter().map(interval).collect();
    assert_eq!(intervals, [(0, 100), (10, 11), (11, 30), (30, 80)]);
    let context = context();
    let trace = trace_id(context.parent.trace);
    assert!(spans.iter().all(|span| span.trace_id == trace && span.trace_state == "a=1"));
    assert_eq!(spans[0].span_id, span_id(context.parent.span));
    assert_eq!(spans[0].parent_span_id, [0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((spans[0].kind(), spans[0].flags & 0x300), (Kind::Server, 0x300));
    assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), 4);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/{app}/predict"),
        ("url.path", "/a/predict"),
        ("url.scheme", "http"),
        ("http.response.status_code", "200"),
        ("clipper.app", "a"),
        ("clipper.queries", "1"),
        ("clipper.request_id", "r1"),
        ("clipper.outcome", "prediction"),
        ("clipper.slo_ms", "500"),
    ] {
        assert_eq!(text(&spans[0], key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(spans[0].status, None);
    for (key, value) in [
        ("clipper.model", "m"),
        ("clipper.version", "1"),
        ("clipper.replica", "3"),
        ("clipper.batch.size", "2"),
        ("clipper.computed_ms", "5"),
        ("clipper.attempt", "first"),
        ("clipper.attempt.end", "answered"),
    ] {
        assert_eq!(text(&spans[3], key).as_deref(), Some(value), "{key}");
    }
}

#[test]
fn a_batch_and_its_queries_are_linked_both_ways() {
    let steps = [QUEUED, sent(20, 9), answered(70, 9)];
    let (request, began) = request(200, |began| vec![query(began, None, &steps)]);
    let recorded = QueryContext::recorded(request.context.clone());
    let handed_on = recorded.handed_on(
        request.queries[0].models[0].attempt(&request.queries[0].models[0].trace.attempts[0]),
    );
    let batch = FinishedBatch {
        model: ModelId::parse("m:1").unwrap(),
        serial: 5,
        replica: REPLICA,
        to: to(9),
        began: began + ms(30),
        ended: Moment { at: began + ms(80), unix_nanos: 980_000_000 },
        end: AttemptEnd::Answered,
        error: None,
        computed: None,
        links: vec![handed_on.parent; 3],
        links_left_out: 2,
    };
    let batches = of(&batch.into(), SEED);
    let spans = spans_of(request);
    let (container, batch) = (named(&spans, "container")[0], &batches[0]);
    assert_eq!(container.links.len(), 1);
    assert_eq!(container.links[0].trace_id, batch.trace_id);
    assert_eq!(container.links[0].span_id, batch.span_id);
    assert_eq!(batch.links[0].trace_id, container.trace_id);
    assert_eq!(batch.links[0].span_id, container.span_id);
    assert_eq!((batch.links.len(), batch.dropped_links_count), (3, 2));
    assert_ne!(batch.trace_id, container.trace_id);
    assert!(batch.parent_span_id.is_empty());
    assert_eq!(interval(batch), interval(container));
    assert_eq!(text(batch, "clipper.batch.reason").as_deref(), Some("full"));
}

#[test]
fn each_attempt_has_a_span() {
    let failed = (40, TraceStep::Failed(BatchId(9)));
    let steps = [QUEUED, sent(20, 9), failed, sent(45, 10), answered(70, 10)];
    let (request, _) = request(200, |began| vec![query(began, None, &steps)]);
    let spans = spans_of(request);
    let containers = named(&spans, "container");
    let ends: Vec<_> = containers.iter().map(|it| text(it, "clipper.attempt.end")).collect();
    assert_eq!(ends, [Some("failed".to_owned()), Some("answered".to_owned())]);
    let kinds: Vec<_> = containers.iter().map(|it| text(it, "clipper.attempt")).collect();
    assert_eq!(kinds, [Some("first".to_owned()), Some("retry".to_owned())]);
    assert_eq!([interval(containers[0]), interval(containers[1])], [(30, 50), (55, 80)]);
    assert_eq!(containers[0].status.as_ref().unwrap().code(), Code::Error);
    assert_eq!(text(containers[0], "error.type").as_deref(), Some("failed"));
    assert_eq!(containers[1].status, None);
}

#[test]
fn a_default_output_says_why_and_is_no_failure_of_the_request() {
    let steps = [QUEUED, sent(20, 9)];
    let late = || Some(DefaultReason::Late);
    let (request, _) = request(200, |began| vec![query(began, late(), &steps)]);
    let spans = spans_of(request);
    assert_eq!(text(&spans[0], "clipper.outcome").as_deref(), Some("late"));
    assert!(text(&spans[0], "clipper.default_reason").unwrap().contains("latency SLO"));
    assert_eq!((&spans[0].status, text(&spans[0], "error.type")), (&None, None));
    let container = named(&spans, "container")[0];
    assert_eq!(text(container, "clipper.attempt.end").as_deref(), Some("unanswered"));
    assert_eq!(interval(container), (30, 90), "until the query was answered");
}

#[test]
fn times_of_others_are_cut_to_those_of_the_query() {
    // It has joined one that was under way long before, and its batch ends after it.
    let arrived_later = |began: Instant| {
        let steps = [(0, TraceStep::Queued), sent(1, 9), answered(500, 9)];
        let mut query = query(began, None, &steps);
        let trace = &mut query.models[0].trace;
        trace.queued = Some(began);
        trace.attempts[0].began = Some(began);
        vec![query]
    };
    let (request, _) = request(200, arrived_later);
    let spans = spans_of(request);
    let intervals: Vec<_> = spans.iter().map(interval).collect();
    assert_eq!(intervals, [(0, 100), (10, 10), (10, 10), (10, 90)]);
}

#[test]
fn what_fails_by_the_servers_fault_is_an_error() {
    let status = |status: u16| spans_of(request(status, |_| Vec::new()).0).remove(0);
    let failed = status(503);
    assert_eq!(failed.status.as_ref().unwrap().code(), Code::Error);
    assert_eq!(text(&failed, "error.type").as_deref(), Some("503"));
    let refused = status(422);
    assert_eq!((&refused.status, text(&refused, "error.type")), (&None, None));
    let mut left = request(200, |_| Vec::new()).0;
    left.end = CallEnd::GivenUp;
    let left = spans_of(left).remove(0);
    assert_eq!(text(&left, "error.type").as_deref(), Some("given_up"));
    let mut call = request(14, |_| Vec::new()).0;
    call.call = Call::Grpc { service: "s", method: "m" };
    let call = spans_of(call).remove(0);
    assert_eq!((call.name.as_str(), call.status.is_some()), ("s/m", true));
    assert_eq!(text(&call, "rpc.grpc.status_code").as_deref(), Some("14"));
}

#[test]
fn an_answer_in_pieces_that_broke_off_is_an_error_and_says_why() {
    let steps = [QUEUED, sent(20, 9)];
    let why = DefaultReason::Failed("the replica is gone".into());
    let (mut broken, _) = request(200, |began| vec![query(began, Some(why), &steps)]);
    broken.broken = Some((Outcome::Failed.label(), "the replica is gone".into()));
    let spans = spans_of(broken);
    let status = spans[0].status.as_ref().unwrap();
    assert_eq!((status.code(), status.message.as_str()), (Code::Error, "the replica is gone"));
    assert_eq!(text(&spans[0], "error.type").as_deref(), Some("failed"));
    assert_eq!(text(&spans[0], "http.response.status_code").as_deref(), Some("200"));
    // Of one that its client gave up nothing has come.
    let (mut left, _) = request(200, |began| vec![query(began, None, &steps)]);
    left.end = CallEnd::GivenUp;
    let spans = spans_of(left);
    assert_eq!(text(&spans[0], "error.type").as_deref(), Some("given_up"));
    for span in &spans[..2] {
        assert_eq!(text(span, "clipper.outcome").as_deref(), Some("gone"), "{}", span.name);
    }
    let attempt = text(named(&spans, "container")[0], "clipper.attempt.end");
    assert_eq!(attempt.as_deref(), Some("unanswered"));
}

#[test]
fn long_texts_are_cut() {
    let why = DefaultReason::Model("é".repeat(10_000).into());
    let (request, _) = request(200, |began| vec![query(began, Some(why), &[])]);
    let spans = spans_of(request);
    let reason = text(&spans[0], "clipper.default_reason").unwrap();
    assert!((1_000..=1_024).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn a_batch_has_a_place_of_its_own() {
    let place = |model, batch| batch_place(7, model, BatchId(batch));
    assert_eq!(place(1, 2), place(1, 2));
    assert_ne!(place(1, 2), place(2, 1));
    assert_ne!(place(1, 2), place(1, 3));
}
