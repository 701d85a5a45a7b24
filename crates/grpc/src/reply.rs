//! What a call is answered.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use clipper_clock as clock;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::details;
use crate::status::Status;

/// The client has given the call up, or does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client does not take the answer")]
pub struct Gone;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ACCEPTS: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The answer to a call. Dropped without an end, the call is reset.
#[derive(Debug)]
pub struct Reply {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    /// What is still to be said beside the messages.
    metadata: HeaderMap,
    /// For the client to make room for some of it.
    patience: Duration,
    /// Bytes of messages that have gone.
    sent: u64,
}

impl Reply {
    pub(crate) fn new(respond: SendResponse<Bytes>, patience: Duration) -> Self {
        Self { respond, stream: None, metadata: HeaderMap::new(), patience, sent: 0 }
    }

    /// Says something in the headers of the answer, or in its trailers if those have gone.
    pub fn say(&mut self, name: HeaderName, value: HeaderValue) {
        self.metadata.insert(name, value);
    }

    /// Sends a message that is in its frame, as fast as the client takes it.
    ///
    /// # Errors
    /// It takes nothing for too long, or has gone.
    pub async fn message(&mut self, frame: Bytes) -> Result<(), Gone> {
        let (patience, bytes) = (self.patience, frame.len() as u64);
        send(self.stream()?, frame, patience).await?;
        self.sent += bytes;
        Ok(())
    }

    /// Bytes of messages that have gone, in their frames.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// The headers have gone, whether or not a message follows soon.
    ///
    /// # Errors
    /// The client has gone.
    pub fn begin(&mut self) -> Result<(), Gone> {
        self.stream().map(drop)
    }

    fn stream(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        let stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let response = response(std::mem::take(&mut self.metadata));
            self.respond.send_response(response, false).map_err(|_| Gone)?
        };
        Ok(self.stream.insert(stream))
    }

    /// The last of it.
    ///
    /// # Errors
    /// The client has given the call up.
    pub fn end(mut self, status: &Status) -> Result<(), Gone> {
        if let Some(stream) = &mut self.stream {
            let mut trailers = self.metadata;
            put(status, &mut trailers);
            return stream.send_trailers(trailers).map_err(|_| Gone);
        }
        let mut response = response(self.metadata);
        put(status, response.headers_mut());
        self.respond.send_response(response, true).map(drop).map_err(|_| Gone)
    }

    /// Waits until the client gives the call up.
    pub async fn given_up(&mut self) {
        let _ = match &mut self.stream {
            Some(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }
}

/// Sends bytes as fast as the client takes them.
pub(crate) async fn send(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    patience: Duration,
) -> Result<(), Gone> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        if stream.capacity() == 0 {
            let room = poll_fn(|cx| stream.poll_capacity(cx));
            match tokio::time::timeout_at(clock::now() + patience, room).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Err(Gone),
                Err(_late) => {
                    stream.send_reset(Reason::CANCEL);
                    return Err(Gone);
                }
            }
        }
        let piece = bytes.split_to(stream.capacity().min(bytes.len()));
        if !piece.is_empty() {
            stream.send_data(piece, false).map_err(|_| Gone)?;
        }
    }
    Ok(())
}

fn response(metadata: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    *headers = metadata;
    let content_type = HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, content_type);
    headers.insert(ACCEPTS, HeaderValue::from_static("identity,deflate,gzip,zstd"));
    response
}

fn put(status: &Status, headers: &mut HeaderMap) {
    headers.insert(STATUS, status.code.header());
    if let Some(message) = status.message_header() {
        headers.insert(MESSAGE, message);
    }
    if let Some(pushback) = status.pushback_header() {
        headers.insert(PUSHBACK, pushback);
    }
    if let Some(details) = details::header(status) {
        headers.insert(DETAILS, details);
    }
}
