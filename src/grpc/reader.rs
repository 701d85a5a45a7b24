//! The messages of a call, read within the limits of bodies over HTTP.

use std::rc::Rc;

use bytes::Bytes;
use clipper_clock::{self as clock, Instant};
use clipper_grpc::{FRAME_HEAD_BYTES, HeaderMap, Messages, Packed, Part};
use clipper_oip::Encoding;
use clipper_scheduling::budget::Held;
use clipper_scheduling::quota::Claim;
use futures_util::FutureExt as _;

use super::accessed::Noted;
use super::refusal::Refusal;
use crate::http::body::{self, Body, BodyLimits, Pieces};
use crate::http::errors::{self, ApiError};
use crate::http::explaining::Explaining;
use crate::http::limits::QueryLimits;
use crate::http::opening::{self, Opened};
use crate::http::serve::receive_time::ReceiveTime;

/// Messages up to this are not counted among all bodies under way: less than a connection takes
/// for each call anyway.
const UNCOUNTED_BYTES: usize = 1 << 10;

/// What the headers of a call say of its messages.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// When the client stops to wait.
    pub(super) deadline: Option<Instant>,
    /// Of messages that are compressed; `None`: one that is not known.
    pub(super) encoding: Option<Encoding>,
    /// All headers.
    pub(super) metadata: Rc<HeaderMap>,
    /// What they say to those who explain the answers.
    pub(super) explaining: Explaining,
    /// Where what is learnt of the call is noted.
    pub(super) noted: Noted,
    /// When a message that has just been read had come, where that is known.
    pub(super) receive_time: Option<ReceiveTime>,
}

impl Context {
    /// When a message that has just been read had come.
    pub(super) fn arrived(&self) -> Instant {
        self.receive_time.as_ref().map_or_else(clock::now, ReceiveTime::last)
    }
}

/// Reads the messages of one call.
#[derive(Debug)]
pub(super) struct Reader {
    messages: Messages,
    limits: BodyLimits,
    context: Context,
    under_way: Option<BegunMessage>,
}

/// A message that has begun.
#[derive(Debug)]
struct BegunMessage {
    pieces: Pieces,
    received: usize,
    is_packed: bool,
    until: Instant,
}

/// A message as it came, and until when its call has time.
#[derive(Debug)]
pub(super) struct Arrived {
    body: Body,
    deadline: Option<Instant>,
}

/// A message in one piece, and what it holds of the sum of all bodies.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) held: Option<Held>,
    /// What it takes of limits.
    pub(super) claim: Claim,
}

impl Reader {
    pub(super) fn new(messages: Messages, limits: &BodyLimits, context: Context) -> Self {
        Self { messages, limits: limits.clone(), context, under_way: None }
    }

    /// The next message; `None` when the client has sent all. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Arrived>, Refusal> {
        loop {
            // Most parts are there: no timer is needed for them.
            let part = match self.messages.next().now_or_never() {
                Some(part) => part?,
                None => self.in_time().await?,
            };
            match part {
                None => return Ok(None),
                Some(Part::Begin { packed, .. }) => self.begin(packed)?,
                Some(Part::Bytes(bytes)) => self.push(bytes)?,
                Some(Part::End) => {
                    if let Some(message) = self.under_way.take() {
                        return Ok(Some(self.whole(message)));
                    }
                }
            }
        }
    }

    fn begin(&mut self, packed: Packed) -> Result<(), Refusal> {
        self.context.noted.received(FRAME_HEAD_BYTES);
        let is_packed = match (packed, self.context.encoding) {
            (Packed::No, _) => false,
            (Packed::Yes, Some(Encoding::Identity)) => {
                return Err(Refusal::invalid(
                    "grpc-encoding: a compressed message, but no encoding",
                ));
            }
            (Packed::Yes, Some(_)) => true,
            (Packed::Yes, None) => {
                let cause = format!("grpc-encoding: only {} are read", Encoding::NAMES);
                return Err(Refusal::unimplemented(cause));
            }
            (Packed::Unknown(flag), _) => {
                return Err(Refusal::invalid(format!("a message begins with {flag}, not 0 or 1")));
            }
        };
        self.under_way = Some(BegunMessage {
            pieces: Pieces::uncounted(UNCOUNTED_BYTES),
            received: 0,
            is_packed,
            until: clock::now() + self.limits.request,
        });
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.context.noted.received(bytes.len());
        let Some(message) = &mut self.under_way else { return Ok(()) };
        message.received += bytes.len();
        if message.pieces.push(bytes, message.received, &self.limits) {
            Ok(())
        } else {
            Err(body::too_much_in_sum(&self.limits).into())
        }
    }

    fn whole(&self, message: BegunMessage) -> Arrived {
        let encoding = self.context.encoding.filter(|_| message.is_packed);
        let encoding = encoding.unwrap_or(Encoding::Identity);
        let body = message.pieces.finish().encoded(encoding);
        Arrived { body, deadline: self.context.deadline }
    }

    /// The next part; between two messages the client may take its time, until its deadline.
    async fn in_time(&mut self) -> Result<Option<Part>, Refusal> {
        let pause = self
            .under_way
            .as_ref()
            .map(|message| (clock::now() + self.limits.idle).min(message.until));
        let until = pause.into_iter().chain(self.context.deadline).min();
        let Some(until) = until else { return Ok(self.messages.next().await?) };
        match tokio::time::timeout_at(until, self.messages.next()).await {
            Ok(part) => Ok(part?),
            Err(_) if self.context.deadline == Some(until) => Err(Refusal::deadline()),
            Err(_) => {
                let cause = "The message did not come in time (http.client_request_timeout_ms, \
                             http.request_timeout_ms)";
                Err(ApiError::new(errors::TIMEOUT, cause).into())
            }
        }
    }
}

/// The one message of a call that has one, which counts against what `claim` does. Its client has
/// the time of a request for it.
pub(super) async fn only(
    reader: &mut Reader,
    claim: Claim,
    limits: &QueryLimits,
) -> Result<Message, Refusal> {
    let until = clock::now() + limits.bodies.request;
    let arrived = match reader.next().now_or_never() {
        Some(arrived) => arrived?,
        None => tokio::time::timeout_at(until, reader.next()).await.map_err(|_| {
            ApiError::new(errors::TIMEOUT, "No message came (http.request_timeout_ms)")
        })??,
    };
    let arrived = arrived.ok_or_else(|| Refusal::invalid("the call has no message"))?;
    arrived.message(claim, limits).await
}

/// What a message says.
pub(super) fn decoded<M: prost::Message + Default>(message: &Message) -> Result<M, Refusal> {
    let unread = |error| Refusal::invalid(format!("the message cannot be read: {error}"));
    M::decode(message.bytes.clone()).map_err(unread)
}

impl Arrived {
    /// Likewise, of one that has just come.
    pub(super) async fn decoded<M: prost::Message + Default>(
        self,
        limits: &QueryLimits,
    ) -> Result<M, Refusal> {
        decoded(&self.message(Claim::default(), limits).await?)
    }

    /// The message in one piece, decompressed within its call's deadline, and within the time that
    /// a request has; its claim pays for what came and for what comes of it.
    pub(super) async fn message(
        self,
        mut claim: Claim,
        limits: &QueryLimits,
    ) -> Result<Message, Refusal> {
        let Self { body, deadline } = self;
        claim.grow(body.size()).map_err(ApiError::from)?;
        let within = (&limits.bodies, &limits.parsing);
        let whole = |Opened { text, held, .. }: Opened| Ok((text, held));
        let at_most = clock::now() + limits.bodies.request;
        let due = deadline.map_or(at_most, |deadline| deadline.min(at_most));
        let made = opening::opened(body, &mut claim, within, Some(due), whole).await;
        let (bytes, held) = made.map_err(|error| {
            let is_over = deadline.is_some_and(|deadline| deadline <= clock::now());
            if is_over { Refusal::deadline() } else { error.into() }
        })?;
        Ok(Message { bytes, held, claim })
    }
}
