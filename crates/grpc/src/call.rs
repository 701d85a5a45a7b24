//! One call: what its headers say, the messages that come and those that go.

use std::time::Duration;

use bytes::Bytes;
use clipper_clock::{self as clock, Instant};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::limits::Limits;
use crate::messages::Messages;
use crate::reply::Reply;
use crate::timeout;

/// A call that has come.
#[derive(Debug)]
pub struct Call {
    /// `/package.Service/Method`
    pub path: String,
    pub arrived: Instant,
    /// The header `grpc-timeout`: how long the client waits.
    pub timeout: Option<Duration>,
    /// The header `grpc-timeout` is there and cannot be read.
    pub has_broken_timeout: bool,
    /// The header `grpc-encoding`, for messages that are compressed.
    pub encoding: Option<Vec<u8>>,
    /// All headers of the call.
    pub metadata: HeaderMap,
    pub messages: Messages,
    pub reply: Reply,
}

impl Call {
    /// `None`: a request that is no call of gRPC; it has been answered.
    pub(crate) fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        limits: &Limits,
    ) -> Option<Self> {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).map(http::HeaderValue::as_bytes);
        let is_grpc = header("content-type").is_some_and(is_grpc);
        if head.method != Method::POST || !is_grpc {
            let mut response = Response::new(());
            *response.status_mut() = if is_grpc {
                StatusCode::METHOD_NOT_ALLOWED
            } else {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            };
            // A client that has gone needs no answer.
            let _ = respond.send_response(response, true);
            return None;
        }
        let waits = header("grpc-timeout");
        let timeout = waits.and_then(timeout::parse);
        Some(Self {
            arrived: clock::now(),
            timeout,
            has_broken_timeout: waits.is_some() && timeout.is_none(),
            encoding: header("grpc-encoding").filter(|name| *name != b"identity").map(Into::into),
            path: head.uri.path().to_owned(),
            metadata: head.headers,
            messages: Messages::new(body, limits),
            reply: Reply::new(respond, limits.write),
        })
    }
}

/// `application/grpc`, `application/grpc+proto`, both with or without parameters.
fn is_grpc(content_type: &[u8]) -> bool {
    let Some(rest) = content_type.strip_prefix(b"application/grpc") else { return false };
    rest.is_empty() || rest.starts_with(b"+proto") || rest.starts_with(b";")
}
