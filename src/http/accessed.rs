//! The access log's lines of requests over HTTP: what a request and its answer say of themselves.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::web::Bytes;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use pin_project_lite::pin_project;

use super::errors::ErrorLabel;
use super::{request_id, trace_context};
use crate::access::table::{Port, asked};
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::streaming::StreamEnd;
use crate::logging::access::{AccessLog, Ended, Line, log};
use crate::metrics::Outcome;
use clipper_clock::{self as clock, Instant};
use clipper_domain::{AccessKey, RequestId, TraceId};

/// A longer answer has its line when it has been sent, a shorter one when it is there.
const SHORT_BYTES: u64 = 64 << 10;

/// The log, and when a request has begun.
#[derive(Debug, Clone, Copy)]
struct LoggedRequest {
    log: &'static AccessLog,
    at: Instant,
}

/// A request that will have a line, perhaps. Dropped before it is answered, it has one that says
/// that its client has gone.
#[derive(Debug)]
pub(super) struct Awaited {
    begun: LoggedRequest,
    port: Port,
    address: Option<IpAddr>,
    method: Method,
    uri: Uri,
    id: Option<RequestId>,
    noted: Rc<NotedRequest>,
    is_answered: bool,
}

/// What is learnt of a request on its way; in its extensions, too.
#[derive(Debug, Default)]
struct NotedRequest {
    /// Bytes of its body, once that is whole.
    received: Cell<Option<usize>>,
    trace: Cell<Option<TraceId>>,
    key: OnceCell<Arc<AccessKey>>,
}

/// Notes that a request has begun, if anybody wants to know.
pub(super) fn begin(port: Port, request: &ServiceRequest) -> Option<Box<Awaited>> {
    let log = log()?;
    let noted = NotedRequest::default();
    noted.trace.set(trace_context::of(request.request()).map(|it| it.parent.trace));
    let noted = Rc::new(noted);
    request.extensions_mut().insert(Rc::clone(&noted));
    Some(Box::new(Awaited {
        begun: LoggedRequest { log, at: clock::now() },
        port,
        address: client(log, request.request()),
        method: request.method().clone(),
        uri: request.uri().clone(),
        id: request_id::named(request.request()),
        noted,
        is_answered: false,
    }))
}

fn noted(request: &HttpRequest, note: impl FnOnce(&NotedRequest)) {
    if log().is_some()
        && let Some(noted) = request.extensions().get::<Rc<NotedRequest>>()
    {
        note(noted);
    }
}

/// Notes how many bytes of its body a request had.
pub(super) fn received(request: &HttpRequest, bytes: usize) {
    noted(request, |noted| noted.received.set(Some(bytes)));
}

/// Notes the trace that a request is recorded in.
pub(super) fn traced(request: &HttpRequest, id: TraceId) {
    noted(request, |noted| noted.trace.set(Some(id)));
}

/// Notes whose key a request was let in by.
pub(super) fn is_of(request: &HttpRequest, key: &Arc<AccessKey>) {
    noted(request, |noted| drop(noted.key.set(Arc::clone(key))));
}

/// What will have come of a query when its answer, which comes in pieces, has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Later(Rc<RefCell<Option<Ended>>>);

impl Later {
    /// It has ended.
    pub(super) fn ended(&self, end: &StreamEnd) {
        *self.0.borrow_mut() = Some(of_stream(end));
    }

    /// What came of it, where it has ended.
    pub(super) fn taken(&self) -> Option<Ended> {
        self.0.borrow_mut().take()
    }

    /// Its answer, which says so at its end.
    pub(super) fn note(&self, response: &mut HttpResponse) {
        response.extensions_mut().insert(self.clone());
    }
}

/// What came of a query that is answered in pieces.
pub(crate) fn of_stream(end: &StreamEnd) -> Ended {
    let (outcome, reason) = end.outcome();
    Ended::of_one(outcome, reason)
}

/// Where the end of an answer in pieces is noted, if anybody wants to know.
pub(super) fn later() -> Option<Later> {
    log().map(|_| Later::default())
}

/// What came of the queries of a request, if anybody wants to know.
pub(crate) fn ended(answers: &[QueryAnswer]) -> Option<Ended> {
    log()?;
    let mut ended =
        Ended { queries: answers.len(), outcome: Outcome::Prediction.label(), ..Ended::default() };
    for answer in answers {
        let (outcome, reason) = match answer {
            QueryAnswer::Output(_) | QueryAnswer::Sure { .. } => continue,
            QueryAnswer::Default { reason, .. } => (reason.outcome(), reason.to_string()),
            QueryAnswer::Error(why) => (Outcome::ModelError, why.to_string()),
        };
        if ended.defaults == 0 {
            ended.outcome = outcome.label();
            ended.reason = Some(reason);
        }
        ended.defaults += 1;
    }
    Some(ended)
}

/// Notes what came of them with their answer.
pub(super) fn note(response: &mut HttpResponse, ended: Option<Ended>) {
    if let Some(ended) = ended {
        response.extensions_mut().insert(ended);
    }
}

fn client(log: &AccessLog, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let forwarded = || {
        let values = request.headers().get_all("x-forwarded-for");
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.collect::<Vec<_>>().join(",")
    };
    Some(log.client(peer, forwarded))
}

impl Awaited {
    /// The answer, whose line is written when it has been sent.
    pub(super) fn answered(mut self, response: ServiceResponse) -> ServiceResponse {
        self.is_answered = true;
        let is_error = response.status().as_u16() >= 400;
        let extensions = response.response().extensions();
        let is_default = extensions.get::<Ended>().is_some_and(|ended| ended.defaults > 0);
        let later = extensions.get::<Later>().cloned();
        drop(extensions);
        // Of one in pieces it is not known before its end.
        if later.is_none() && !self.begun.log.wants(is_error || is_default) {
            return response;
        }
        let mut line = self.line_of(&response);
        let size = response.response().body().size();
        let is_head = self.method == Method::HEAD;
        match size {
            BodySize::Sized(bytes) if bytes <= SHORT_BYTES || is_head => {
                line.bytes_out = Some(if is_head { 0 } else { bytes });
                self.begun.end(&mut line);
                response
            }
            BodySize::None => {
                self.begun.end(&mut line);
                response
            }
            BodySize::Sized(_) | BodySize::Stream => {
                line.is_cut = true;
                let sent = SentLine { begun: self.begun, line, later };
                response.map_body(|_, body| BoxBody::new(Counted { body, sent }))
            }
        }
    }

    /// It has ended without an answer of its own: by an error with this status.
    pub(super) fn failed(mut self, status: StatusCode) {
        self.is_answered = true;
        let mut line = self.line();
        line.status = Some(status.as_u16());
        if self.begun.log.wants(true) {
            self.begun.end(&mut line);
        }
    }

    /// What is known of the request by itself.
    fn line(&self) -> Line {
        let path = self.uri.path();
        let received = self.noted.received.get();
        Line {
            port: self.port.name(),
            address: self.address,
            key: self.noted.key.get().map(|key| key.name.to_string()),
            method: self.method.as_str().to_owned(),
            path: path.to_owned(),
            bytes_in: received.map(|bytes| bytes as u64),
            bytes_out: Some(0),
            request_id: self.id.as_ref().map(ToString::to_string),
            trace_id: self.noted.trace.get().map(|trace| trace.to_string()),
            app: asked(self.port, path).1.map(Cow::into_owned),
            ..Line::default()
        }
    }

    /// With its answer.
    fn line_of(&self, response: &ServiceResponse) -> Line {
        let told = response.response().extensions();
        let line = self.line();
        Line {
            status: Some(response.status().as_u16()),
            bytes_in: Some(line.bytes_in.unwrap_or(0)),
            error: told.get::<ErrorLabel>().map(|label| label.0),
            ended: told.get::<Ended>().cloned(),
            ..line
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.is_answered && self.begun.log.wants(true) {
            self.begun.end(&mut Line { is_cut: true, is_gone: true, ..self.line() });
        }
    }
}

impl LoggedRequest {
    fn end(self, line: &mut Line) {
        line.duration = clock::now().saturating_duration_since(self.at);
        self.log.write(line);
    }
}

/// A line that waits for the end of its answer.
struct SentLine {
    begun: LoggedRequest,
    line: Line,
    later: Option<Later>,
}

impl Drop for SentLine {
    fn drop(&mut self) {
        let Self { begun, line, later } = self;
        if let Some(later) = later.take() {
            line.ended = later.taken();
            line.is_gone = line.is_cut && line.ended.is_none();
            let is_default = line.ended.as_ref().is_some_and(|ended| ended.defaults > 0);
            if !begun.log.wants(is_default || line.is_cut) {
                return;
            }
        }
        begun.end(line);
    }
}

pin_project! {
    /// A body whose bytes are counted on their way.
    struct Counted {
        #[pin]
        body: BoxBody,
        sent: SentLine,
    }
}

impl MessageBody for Counted {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        let size = this.body.size();
        let polled = this.body.poll_next(cx);
        let line = &mut this.sent.line;
        match &polled {
            Poll::Ready(Some(Ok(piece))) => {
                let sent = line.bytes_out.unwrap_or(0) + piece.len() as u64;
                line.bytes_out = Some(sent);
                line.is_cut = size != BodySize::Sized(sent);
            }
            Poll::Ready(None) => line.is_cut = false,
            _ => {}
        }
        polled
    }
}
