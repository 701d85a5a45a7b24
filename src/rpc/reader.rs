//! Reads the messages of a registered container within the limits that hold for all of them.
//!
//! In slices: after [`SLICE_BYTES`] the other connections of the thread have their turn. What is
//! larger than a few kilobytes needs a share of the memory for receiving
//! ([`clipper_rpc::receive`]), and is only taken at all while an answer is awaited.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use clipper_clock as clock;
use clipper_config::RpcConfig;
use clipper_rpc::curve::Session;
use clipper_rpc::receive::{FREE_BYTES, Held, ReceiveBudget, Share, Verdict};
use clipper_rpc::zmtp::{Decoder, Incoming, Limits, LimitsOf, ZmtpError};
use futures_util::Stream;
use tokio::io::AsyncRead;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

/// Most that is read of one connection before others have their turn: about a tenth of a
/// millisecond of copying.
const SLICE_BYTES: usize = 256 << 10;
/// A connection that has to wait for memory looks again after this.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// The buffer of a connection that reads small messages, and the room in it that is worth a read.
const BUFFER_BYTES: usize = 8 << 10;
const ROOM_MIN_BYTES: usize = 64;
/// What a container may send although nothing is asked of it: heartbeats, its metadata and build,
/// late answers of a usual size.
pub const UNASKED_LIMITS: Limits = Limits {
    frames_max: 64,
    frame_max_bytes: 32 << 10,
    message_max_bytes: 32 << 10,
    of: LimitsOf::Unasked,
};

/// One message while an answer is awaited.
#[must_use]
pub fn answer_limits(config: &RpcConfig) -> Limits {
    Limits {
        frames_max: config.frames_max,
        frame_max_bytes: config.frame_max_bytes,
        message_max_bytes: config.message_max_bytes,
        of: LimitsOf::Answers,
    }
}

/// Whether answers of a container are awaited. Set by its actor, read where its bytes arrive.
#[derive(Debug, Clone, Default)]
pub struct AwaitsAnswers(Arc<AtomicBool>);

impl AwaitsAnswers {
    /// Says so from now on.
    pub fn set(&self, asked: bool) {
        self.0.store(asked, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub struct Received {
    /// The message or command.
    pub incoming: Incoming,
    /// The memory of a large message, in use until this is dropped.
    pub held: Option<Held>,
}

/// Why nothing more is read of a connection.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A rule of the transport or a limit of its messages; or the connection failed.
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    /// Memory was needed for messages that still arrived.
    #[error(
        "its message stopped arriving while memory was needed for others (rpc.receive_max_bytes)"
    )]
    GivenUp,
}

/// The reading half of a connection as a stream of messages.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    decoder: Decoder,
    buffer: BytesMut,
    answers: Limits,
    asked: AwaitsAnswers,
    share: Share,
    /// Set while there is no room for what arrives.
    pause: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<R> Reader<R> {
    /// Reads `io`; `unread` is what was read of it too much before. `answers` are the limits while
    /// something is asked.
    pub fn new(
        io: R,
        unread: &[u8],
        answers: Limits,
        asked: AwaitsAnswers,
        budget: &ReceiveBudget,
    ) -> Self {
        let decoder = Decoder::new(UNASKED_LIMITS);
        let share = budget.share();
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES.max(unread.len()));
        buffer.extend_from_slice(unread);
        Self { io, decoder, buffer, answers, asked, share, pause: None, ended: false }
    }

    /// The same of a connection that may be encrypted.
    #[must_use]
    pub fn with_session(mut self, session: Option<&Session>) -> Self {
        self.decoder = self.decoder.with_session(session);
        self
    }

    fn decode(&mut self) -> Result<Option<Received>, ReadError> {
        self.decoder.set_next_limits(if self.asked.get() { self.answers } else { UNASKED_LIMITS });
        let Some(incoming) = self.decoder.next(&mut self.buffer)? else { return Ok(None) };
        let held = matches!(incoming, Incoming::Message(_)).then(|| self.share.whole()).flatten();
        Ok(Some(Received { incoming, held }))
    }

    /// Makes sure that what the buffer has room for may be held.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let bytes = self.decoder.held_bytes() + self.buffer.capacity();
            if bytes <= FREE_BYTES && self.share.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.share.hold(bytes, clock::now(), cx.waker()) {
                Verdict::Granted => return Poll::Ready(Ok(())),
                Verdict::GivenUp => return Poll::Ready(Err(ReadError::GivenUp)),
                Verdict::Wait => self.pause = Some(Box::pin(tokio::time::sleep(ROOM_PAUSE))),
            }
        }
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads once; the number of bytes, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        if self.buffer.capacity() - self.buffer.len() < ROOM_MIN_BYTES {
            self.buffer.reserve(ROOM_MIN_BYTES);
        }
        ready!(self.poll_room(cx))?;
        let mut slice = (&mut self.buffer).limit(SLICE_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut slice);
        read.map_err(|error| ZmtpError::Io(error).into())
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, ReadError>> {
        let mut slice = SLICE_BYTES;
        loop {
            if self.share.is_given_up() {
                return Poll::Ready(Err(ReadError::GivenUp));
            }
            if let Some(received) = self.decode()? {
                return Poll::Ready(Ok(Some(received)));
            }
            if slice == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_fill(cx))? {
                0 => return Poll::Ready(Ok(None)),
                read => slice = slice.saturating_sub(read),
            }
        }
    }
}

impl<R: AsyncRead + Unpin> Stream for Reader<R> {
    type Item = Result<Received, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = self.get_mut();
        if reader.ended {
            return Poll::Ready(None);
        }
        let received = ready!(reader.poll_received(cx)).transpose();
        // After an error the decoder must not be used again.
        reader.ended = !matches!(received, Some(Ok(_)));
        Poll::Ready(received)
    }
}
