//! A request of plain HTTP over HTTP/2, and what it is answered.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{Request, Response};

use crate::reply::{self, Gone};

/// A request that has come.
#[derive(Debug)]
pub struct Exchange {
    pub head: Parts,
    pub body: Pieces,
    pub answer: Answer,
}

impl Exchange {
    pub(crate) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        patience: Duration,
    ) -> Self {
        let (head, body) = request.into_parts();
        let answer = Answer { respond, stream: None, patience };
        Self { head, body: Pieces(body), answer }
    }
}

/// The body of a request as it comes.
#[derive(Debug)]
pub struct Pieces(RecvStream);

/// The client has given the request up, or has broken the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request does not go on: {0}")]
pub struct Cut(String);

impl Pieces {
    /// Whether nothing more comes.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_end_stream()
    }

    /// The next piece; `None` after the last. What has been handed over no longer counts against
    /// the client's window: whoever reads keeps the account of it.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let piece = ready!(self.0.poll_data(cx));
        if let Some(Ok(piece)) = &piece {
            // Fails only once the stream has ended.
            let _ = self.0.flow_control().release_capacity(piece.len());
        }
        Poll::Ready(piece.map(|piece| piece.map_err(|error| Cut(error.to_string()))))
    }
}

/// The answer to a request. Dropped without an end, the request is reset.
#[derive(Debug)]
pub struct Answer {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    /// For the client to make room for some of it.
    patience: Duration,
}

impl Answer {
    /// Sends the head, after which a body comes unless this `is_all`.
    ///
    /// # Errors
    /// The client has gone.
    pub fn head(&mut self, head: Response<()>, is_all: bool) -> Result<(), Gone> {
        let stream = self.respond.send_response(head, is_all).map_err(|_| Gone)?;
        self.stream = (!is_all).then_some(stream);
        Ok(())
    }

    /// Sends a piece of the body, as fast as the client takes it.
    ///
    /// # Errors
    /// It takes nothing for too long, or has gone.
    pub async fn piece(&mut self, piece: Bytes) -> Result<(), Gone> {
        let stream = self.stream.as_mut().ok_or(Gone)?;
        reply::send(stream, piece, self.patience).await
    }

    /// The body is whole.
    pub fn end(mut self) {
        if let Some(stream) = &mut self.stream {
            // Who has gone needs no end.
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    /// The body cannot be made whole.
    pub fn fail(mut self) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Waits until the client gives the request up.
    pub async fn given_up(&mut self) {
        let _ = match &mut self.stream {
            Some(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }
}
