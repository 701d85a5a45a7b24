//! The trace that a request over HTTP belongs to: the one of its headers `traceparent` and
//! `tracestate`, or where spans are made one that begins here.
//!
//! [`of`] has it, for whoever names it in a log line or an answer. A request that is recorded has
//! its open span among its extensions, which ends with the answer's head, or with the last piece of
//! an answer in pieces.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};

use crate::traces::request::OpenRequest;
use clipper_domain::TraceContext;

/// Names of the headers.
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

static PARENT: HeaderName = HeaderName::from_static(TRACE_PARENT);
static STATE: HeaderName = HeaderName::from_static(TRACE_STATE);

/// What the headers of a request say.
fn of_headers(headers: &HeaderMap) -> Option<TraceContext> {
    // Of most requests that is all.
    headers.get(&PARENT)?;
    let all = |name| headers.get_all(name).map(HeaderValue::as_bytes);
    TraceContext::of(all(&PARENT), all(&STATE))
}

/// What the metadata of a call over gRPC say.
#[must_use]
pub(crate) fn of_metadata(metadata: &clipper_grpc::HeaderMap) -> Option<TraceContext> {
    metadata.get(TRACE_PARENT)?;
    let all = |name| metadata.get_all(name).into_iter().map(AsRef::as_ref);
    TraceContext::of(all(TRACE_PARENT), all(TRACE_STATE))
}

/// The trace that a request belongs to: with the span of the request where that is recorded, else
/// with the caller's.
#[must_use]
pub fn of(request: &HttpRequest) -> Option<TraceContext> {
    let began = request.extensions().get::<TraceContext>().cloned();
    began.or_else(|| of_headers(request.headers()))
}

/// The open span of a request whose answer goes on after its head.
pub(super) fn take(request: &HttpRequest) -> Option<OpenRequest> {
    request.extensions_mut().remove::<OpenRequest>()
}

/// Ends the span of a request that is answered with this status, if it has one here.
pub(super) fn end(request: &HttpRequest, status: StatusCode) {
    if let Some(mut open) = take(request) {
        open.answered(status.as_u16());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(all: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append((*name).clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_trace_is_that_of_its_headers() {
        let one = of_headers(&headers(&[(&PARENT, GOOD), (&STATE, "a=1"), (&STATE, "b=2")]));
        let one = one.unwrap();
        assert_eq!(one.parent.to_string(), GOOD);
        assert_eq!(one.state.as_deref(), Some("a=1,b=2"));
        assert_eq!(of_headers(&headers(&[(&STATE, "a=1")])), None);
        assert_eq!(of_headers(&headers(&[(&PARENT, "00-1-2-3"), (&STATE, "a=1")])), None);
        assert_eq!(of_headers(&headers(&[(&PARENT, GOOD), (&PARENT, GOOD)])), None);
    }
}
