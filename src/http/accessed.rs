//! The access log's lines of requests over HTTP: what a request and its answer say of themselves.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::web::Bytes;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use pin_project_lite::pin_project;

use super::errors::ErrorLabel;
use super::{gate, request_id, trace_context};
use crate::access::table::{Port, asked};
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::streaming::StreamEnd;
use crate::logging::access::{AccessLog, Ended, Line, log};
use crate::metrics::Outcome;
use clipper_clock::{self as clock, Instant};

/// A longer answer has its line when it has been sent, a shorter one when it is there.
const SHORT_BYTES: u64 = 64 << 10;

/// A request that will have a line, perhaps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    log: &'static AccessLog,
    at: Instant,
}

/// Notes when a request has begun, if anybody wants to know.
pub(super) fn begin() -> Option<Begun> {
    log().map(|log| Begun { log, at: clock::now() })
}

/// How many bytes of a body came, in its request's extensions.
struct Received(usize);

/// Notes how many bytes of its body a request had.
pub(super) fn received(request: &HttpRequest, bytes: usize) {
    if log().is_some() && bytes > 0 {
        request.extensions_mut().insert(Received(bytes));
    }
}

/// What will have come of a query when its answer, which comes in pieces, has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Later(Rc<RefCell<Option<Ended>>>);

impl Later {
    /// It has ended.
    pub(super) fn ended(&self, end: &StreamEnd) {
        let of = |outcome: Outcome, reason: Option<String>| Ended {
            queries: 1,
            defaults: usize::from(outcome != Outcome::Prediction),
            outcome: outcome.label(),
            reason,
        };
        let ended = match end {
            StreamEnd::Complete => of(Outcome::Prediction, None),
            StreamEnd::Default { reason, .. } | StreamEnd::Broken(reason) => {
                of(reason.outcome(), Some(reason.to_string()))
            }
            StreamEnd::Error(why) => of(Outcome::ModelError, Some(why.to_string())),
            StreamEnd::Cut => of(Outcome::Late, Some("cut at serving.stream_max_ms".to_owned())),
        };
        *self.0.borrow_mut() = Some(ended);
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

/// Where the end of an answer in pieces is noted, if anybody wants to know.
pub(super) fn later() -> Option<Later> {
    log().map(|_| Later::default())
}

/// What came of the queries of a request, if anybody wants to know.
pub(super) fn ended(answers: &[QueryAnswer]) -> Option<Ended> {
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

impl Begun {
    /// The answer, whose line is written when it has been sent.
    pub(super) fn answered(self, port: Port, response: ServiceResponse) -> ServiceResponse {
        let is_error = response.status().as_u16() >= 400;
        let extensions = response.response().extensions();
        let is_default = extensions.get::<Ended>().is_some_and(|ended| ended.defaults > 0);
        let later = extensions.get::<Later>().cloned();
        drop(extensions);
        // Of one in pieces it is not known before its end.
        if later.is_none() && !self.log.wants(is_error || is_default) {
            return response;
        }
        let mut line = self.line(port, &response);
        let size = response.response().body().size();
        let is_head = response.request().method() == actix_web::http::Method::HEAD;
        match size {
            BodySize::Sized(bytes) if bytes <= SHORT_BYTES || is_head => {
                line.bytes_out = Some(if is_head { 0 } else { bytes });
                self.end(&mut line);
                response
            }
            BodySize::None => {
                self.end(&mut line);
                response
            }
            BodySize::Sized(_) | BodySize::Stream => {
                line.is_cut = true;
                let sent = Sent { begun: self, line, later };
                response.map_body(|_, body| BoxBody::new(Counted { body, sent }))
            }
        }
    }

    fn end(self, line: &mut Line) {
        line.duration = clock::now().saturating_duration_since(self.at);
        self.log.write(line);
    }

    fn line(self, port: Port, response: &ServiceResponse) -> Line {
        let (request, told) = (response.request(), response.response().extensions());
        let app = asked(port, request.path()).1.map(std::borrow::Cow::into_owned);
        let received = request.extensions().get::<Received>().map_or(0, |received| received.0);
        Line {
            port: port.name(),
            address: client(self.log, request),
            key: gate::holder(request).map(|key| key.name.to_string()),
            method: request.method().as_str().to_owned(),
            path: request.path().to_owned(),
            status: response.status().as_u16(),
            bytes_in: Some(received as u64),
            bytes_out: Some(0),
            request_id: request_id::of(request).map(Into::into),
            trace_id: trace_context::of(request).map(|it| it.parent.trace.to_string()),
            app,
            error: told.get::<ErrorLabel>().map(|label| label.0),
            ended: told.get::<Ended>().cloned(),
            ..Line::default()
        }
    }
}

/// A line that waits for the end of its answer.
struct Sent {
    begun: Begun,
    line: Line,
    later: Option<Later>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let Self { begun, line, later } = self;
        if let Some(later) = later.take() {
            line.ended = later.taken();
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
        sent: Sent,
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
