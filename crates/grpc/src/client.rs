//! Just enough of a client for a load generator and tests: one connection, unary calls.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::details;
use crate::frame::{Frames, Part};
use crate::status::{Code, Status};
use crate::timeout;

/// What the server may send before it has been read.
const WINDOW_BYTES: u32 = 4 << 20;
/// Longest answer.
const ANSWER_MAX: usize = 256 << 20;

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    #[error("the connection failed: {0}")]
    Connection(#[from] h2::Error),
    #[error("what came is no answer of gRPC")]
    Malformed,
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    uri: Uri,
    timeout: Option<HeaderValue>,
    /// Sent with every call.
    pub metadata: HeaderMap,
}

impl Client {
    /// Speaks over `io`; the second value is the connection, which has to be polled. `path` is that
    /// of the method that is called, `host` that of the server.
    ///
    /// # Errors
    /// The other side does not speak HTTP/2, or the names do not form an address.
    pub async fn open<I: AsyncRead + AsyncWrite + Unpin>(
        io: I,
        host: &str,
        path: &str,
        timeout: Option<Duration>,
    ) -> Result<(Self, impl Future<Output = ()> + use<I>), CallFailure> {
        let uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build();
        let uri = uri.map_err(|_| CallFailure::Malformed)?;
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = builder.handshake(io).await?;
        let timeout = timeout.and_then(|t| HeaderValue::try_from(timeout::write(t)).ok());
        // Its calls fail with it.
        let driven = async move { drop(connection.await) };
        Ok((Self { requests, uri, timeout, metadata: HeaderMap::new() }, driven))
    }

    /// The same client with a key for servers that ask for one; one that no header can carry is
    /// left out.
    #[must_use]
    pub fn with_key(mut self, key: Option<&str>) -> Self {
        if let Some(value) = key.and_then(|k| HeaderValue::try_from(format!("Bearer {k}")).ok()) {
            self.metadata.insert(http::header::AUTHORIZATION, value);
        }
        self
    }

    /// Makes a call with one message, in its frame, for one.
    ///
    /// # Errors
    /// See [`CallFailure`]; a status other than OK is none.
    pub async fn call(&mut self, frame: Bytes) -> Result<(Status, Bytes), CallFailure> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.metadata);
        let content_type = HeaderValue::from_static("application/grpc");
        headers.insert(http::header::CONTENT_TYPE, content_type);
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        if let Some(timeout) = &self.timeout {
            headers.insert("grpc-timeout", timeout.clone());
        }
        std::future::poll_fn(|cx| self.requests.poll_ready(cx)).await?;
        let (answer, mut body) = self.requests.send_request(request, false)?;
        body.send_data(frame, true)?;
        let answer = answer.await?;
        if answer.status() != StatusCode::OK {
            return Err(CallFailure::Malformed);
        }
        if let Some(status) = status(answer.headers()) {
            return Ok((status, Bytes::new()));
        }
        let mut body = answer.into_body();
        let message = message(&mut body).await?;
        let trailers = body.trailers().await?.ok_or(CallFailure::Malformed)?;
        Ok((status(&trailers).ok_or(CallFailure::Malformed)?, message))
    }
}

async fn message(body: &mut h2::RecvStream) -> Result<Bytes, CallFailure> {
    let mut frames = Frames::new(ANSWER_MAX);
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(data) = body.data().await {
        let mut data = data?;
        body.flow_control().release_capacity(data.len())?;
        while let Some(part) = frames.next(&mut data).map_err(|_| CallFailure::Malformed)? {
            if let Part::Bytes(bytes) = part {
                if first.is_empty() && rest.is_empty() {
                    first = bytes;
                } else {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                    rest.extend_from_slice(&bytes);
                }
            }
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn status(headers: &http::HeaderMap) -> Option<Status> {
    let code = Code::parse(headers.get("grpc-status")?.as_bytes());
    let message = headers.get("grpc-message").map(|text| Status::read_message(text.as_bytes()));
    let details = headers.get("grpc-status-details-bin");
    let retry_after = details.and_then(|details| details::retry_after(details.as_bytes()));
    Some(Status { retry_after, ..Status::new(code, message.unwrap_or_default()) })
}
