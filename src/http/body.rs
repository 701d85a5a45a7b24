//! Reads a request body within its limits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;
use smallvec::SmallVec;

use super::accessed;
use super::errors::{self, ApiError, shown};
use super::serve::connection::Connection;
use clipper_clock::{self as clock, Instant};
use clipper_config::HttpConfig;
use clipper_oip::Encoding;
use clipper_scheduling::budget::{Budget, Held};
use clipper_scheduling::quota::Claim;

/// A body over its limit, but by less than this factor, is read and thrown away, so that the
/// client, still busy sending, sees the 413 and not a reset connection. A larger one is cut off.
const DRAIN_TIMES: usize = 2;

/// Bodies up to this are not counted in sum: about what the buffers of a connection hold anyway.
const UNCOUNTED_BYTES: usize = 16 << 10;

/// What clients of a protocol know of bodies, by name.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What a body is.
    body: &'static str,
    /// The setting that says how long one may be.
    setting: &'static str,
    /// What names how a body is compressed.
    pub encoding: &'static str,
}

impl Terms {
    pub const HTTP: Self =
        Self { body: "body", setting: "http.body_max_bytes", encoding: "Content-Encoding" };

    /// Those of gRPC, where this setting says how long a message may be.
    #[must_use]
    pub fn grpc(setting: &'static str) -> Self {
        Self { body: "message", setting, encoding: "grpc-encoding" }
    }
}

#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Largest body, bytes; above it 413.
    pub max_bytes: usize,
    /// Longest pause between two pieces of it; then 408.
    pub idle: Duration,
    /// From the first byte of a request to its last; then 408.
    pub request: Duration,
    /// All bodies under way; above it 503.
    pub all: Arc<Budget>,
    pub terms: Terms,
}

impl BodyLimits {
    /// 413 by the limit of one body.
    #[must_use]
    pub fn too_large(&self) -> ApiError {
        let Terms { body, setting, .. } = self.terms;
        ApiError::new(
            errors::TOO_LARGE,
            format!("The {body} is over {setting} = {}", self.max_bytes),
        )
    }
}

impl From<&HttpConfig> for BodyLimits {
    fn from(config: &HttpConfig) -> Self {
        Self {
            max_bytes: config.body_max_bytes,
            idle: Duration::from_millis(config.client_request_timeout_ms),
            request: Duration::from_millis(config.request_timeout_ms),
            all: Budget::new(config.bodies_max_bytes),
            terms: Terms::HTTP,
        }
    }
}

/// Largest part of a body in memory: one that grew by being copied would hold up its worker.
const PART_BYTES: usize = 256 << 10;

/// A whole body, in the parts that it was read in. What it holds of the sum of all bodies is given
/// back when it is dropped.
#[derive(Debug)]
pub struct Body {
    parts: SmallVec<[Bytes; 1]>,
    bytes: usize,
    held: Option<Held>,
    encoding: Encoding,
}

impl Body {
    /// A body that is in one piece.
    #[must_use]
    pub fn of(text: Bytes, held: Option<Held>) -> Self {
        let bytes = text.len();
        Self { parts: SmallVec::from_buf([text]), bytes, held, encoding: Encoding::Identity }
    }

    /// Bytes that came.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// What it holds of the sum of all bodies, to be kept as long as anything made of it.
    pub fn take_held(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// How it is compressed: by what it has to be inflated before anything can be read in it.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The same bytes, which are compressed.
    #[must_use]
    pub fn encoded(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// The text, of one that is not packed, in one piece: copied, unless it came in one.
    #[must_use]
    pub fn join(self) -> Bytes {
        let Self { mut parts, bytes, held: _held, .. } = self;
        if parts.len() == 1 {
            return parts.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(bytes);
        // Each part is given back before the next one is copied.
        for part in parts {
            whole.extend_from_slice(&part);
        }
        whole.freeze()
    }
}

/// Reads the whole body.
///
/// # Errors
/// 413 over the limit, 503 when all bodies together are over theirs, 408 when the client is too
/// slow, 400 when the framing is broken, 415 when it is compressed in a way that is not read.
pub async fn read(
    request: &HttpRequest,
    payload: Payload,
    limits: &BodyLimits,
) -> Result<Body, ApiError> {
    read_within(request, payload, limits, &mut Claim::default()).await
}

/// [`read`] for somebody who may be limited: what is not within the claim is thrown away, so that
/// the client sees why.
///
/// # Errors
/// Also 429 by the claim, and 413 where no wait would help.
pub async fn read_within(
    request: &HttpRequest,
    mut payload: Payload,
    limits: &BodyLimits,
    claim: &mut Claim,
) -> Result<Body, ApiError> {
    let drain_max = limits.max_bytes.saturating_mul(DRAIN_TIMES);
    let declared = declared_bytes(request).unwrap_or(0);
    if declared > drain_max {
        return Err(limits.too_large());
    }
    if declared > UNCOUNTED_BYTES && declared <= limits.max_bytes && !limits.all.has_room(declared)
    {
        return Err(too_much_in_sum(limits));
    }
    let mut claimed = if declared > limits.max_bytes { 0 } else { declared };
    let encoding = encoding(request);
    let mut refused = claim.grow(claimed).err().map(ApiError::from);
    let connection = request.conn_data::<Rc<Connection>>();
    let mut pieces = Pieces::uncounted(UNCOUNTED_BYTES);
    let mut received: usize = 0;
    let mut reader = BodyReader { limits, connection: connection.map(|it| &**it), whole: None };
    while let Some(chunk) = reader.next(&mut payload).await? {
        let chunk =
            chunk.map_err(|broken| ApiError::new(errors::BROKEN_BODY, broken.to_string()))?;
        received = received.saturating_add(chunk.len());
        if received > claimed && received <= limits.max_bytes && refused.is_none() {
            refused = claim.grow(received - claimed).err().map(ApiError::from);
            claimed = received;
        }
        if received <= limits.max_bytes && refused.is_none() {
            if !pieces.push(chunk, received, limits) {
                return Err(too_much_in_sum(limits));
            }
        } else {
            pieces = Pieces::uncounted(UNCOUNTED_BYTES);
            if received > drain_max {
                break;
            }
        }
    }
    if received > limits.max_bytes {
        return Err(limits.too_large());
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    if let Some(connection) = connection {
        connection.body_read();
    }
    accessed::received(request, received);
    Ok(Body { encoding: encoding?, ..pieces.finish() })
}

/// How the body of a request is compressed.
fn encoding(request: &HttpRequest) -> Result<Encoding, ApiError> {
    let mut named = request.headers().get_all(CONTENT_ENCODING);
    let Some(name) = named.next() else { return Ok(Encoding::Identity) };
    let read = Encoding::parse(name.as_bytes()).filter(|_| named.next().is_none());
    read.ok_or_else(|| {
        let name = shown(&String::from_utf8_lossy(name.as_bytes()));
        let cause = format!("Content-Encoding '{name}' is not one of: {}", Encoding::NAMES);
        ApiError::new(errors::ENCODING, cause)
    })
}

/// Reads and forgets the body of a request that is refused anyway, if it is small: the connection
/// then lives on.
pub async fn skip(request: &HttpRequest, payload: Payload, limits: &BodyLimits) {
    if declared_bytes(request).is_some_and(|declared| declared <= UNCOUNTED_BYTES) {
        // What is wrong with it does not matter any more.
        let _ = read(request, payload, limits).await;
    }
}

type Piece = Option<Result<Bytes, actix_web::error::PayloadError>>;

/// Reads a body, for as long as may be waited for it.
struct BodyReader<'a> {
    limits: &'a BodyLimits,
    /// What came by HTTP/2 has none.
    connection: Option<&'a Connection>,
    /// The deadline of the whole request, once it was asked.
    whole: Option<Instant>,
}

impl BodyReader<'_> {
    fn whole(&mut self) -> Instant {
        *self.whole.get_or_insert_with(|| match self.connection {
            Some(connection) => connection.request_deadline(),
            None => clock::now() + self.limits.request,
        })
    }

    /// The next piece; 408 after a pause, or at the deadline of the whole request.
    async fn next(&mut self, payload: &mut Payload) -> Result<Piece, ApiError> {
        let idle = self.limits.idle;
        let piece = payload.next();
        let came = if let Some(connection) = self.connection {
            connection.piece(piece, || self.whole().min(clock::now() + idle)).await
        } else {
            tokio::time::timeout_at(self.whole().min(clock::now() + idle), piece).await.ok()
        };
        came.ok_or_else(|| {
            let text = if clock::now() < self.whole() {
                format!("No part of the body came for {} s", idle.as_secs_f64())
            } else {
                let whole_s = self.limits.request.as_secs_f64();
                format!("The request did not come within {whole_s} s (http.request_timeout_ms)")
            };
            ApiError::new(errors::TIMEOUT, text)
        })
    }
}

/// 503 by `http.bodies_max_bytes`.
#[must_use]
pub fn too_much_in_sum(limits: &BodyLimits) -> ApiError {
    let max = limits.all.max_bytes();
    ApiError::new(
        errors::OVERLOADED,
        format!("All bodies under way are over http.bodies_max_bytes = {max}"),
    )
}

/// A body in the making. Most come in one piece, which is then passed on without a copy.
#[derive(Debug)]
pub struct Pieces {
    /// Up to so many bytes it is not counted among all bodies.
    uncounted: usize,
    /// What came first, while there is nothing else.
    first: Bytes,
    full: Vec<Bytes>,
    last: BytesMut,
    bytes: usize,
    held: Option<Held>,
}

impl Pieces {
    /// Nothing yet, of a body that is not counted up to so many bytes.
    #[must_use]
    pub fn uncounted(uncounted: usize) -> Self {
        let (first, full, last) = (Bytes::new(), Vec::new(), BytesMut::new());
        Self { uncounted, first, full, last, bytes: 0, held: None }
    }

    /// Adds a piece, with which the body has `received` bytes; `false` = all bodies together are
    /// over their limit.
    #[must_use]
    pub fn push(&mut self, piece: Bytes, received: usize, limits: &BodyLimits) -> bool {
        if received > self.uncounted {
            // The first time it takes what has come before as well.
            let more = if self.held.is_some() { piece.len() } else { received };
            if !self.held.get_or_insert_with(|| limits.all.hold()).grow(more) {
                return false;
            }
        }
        let is_first = self.bytes == 0;
        self.bytes = received;
        if is_first {
            self.first = piece;
            return true;
        }
        let first = std::mem::take(&mut self.first);
        self.copy(&first);
        self.copy(&piece);
        true
    }

    /// A piece of few bytes keeps a whole buffer of its connection: so pieces are copied.
    fn copy(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = self.last.capacity() - self.last.len();
            let (fits, rest) = piece.split_at(piece.len().min(room));
            self.last.extend_from_slice(fits);
            piece = rest;
            if !piece.is_empty() {
                let full = std::mem::replace(
                    &mut self.last,
                    BytesMut::with_capacity(self.bytes.clamp(UNCOUNTED_BYTES, PART_BYTES)),
                );
                if !full.is_empty() {
                    self.full.push(full.freeze());
                }
            }
        }
    }

    #[must_use]
    pub fn finish(self) -> Body {
        let Self { first, full, last, bytes, held, .. } = self;
        // What came in one piece is the first, and all there is.
        let mut parts = SmallVec::from_buf([first]);
        if !last.is_empty() {
            parts = SmallVec::from_vec(full);
            parts.push(last.freeze());
        }
        Body { parts, bytes, held, encoding: Encoding::Identity }
    }
}

fn declared_bytes(request: &HttpRequest) -> Option<usize> {
    request.headers().get(&CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: usize) -> BodyLimits {
        let all = Budget::new(all);
        let long = Duration::from_secs(60);
        BodyLimits { max_bytes: 16 << 20, idle: long, request: long, all, terms: Terms::HTTP }
    }

    #[test]
    fn line_09a_a_body_is_read_in_parts_that_are_never_copied_again() {
        let limits = limits(8 << 20);
        let text: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
        for piece_bytes in [1, 700, 30_000, 300_000, 3_000_000] {
            let (mut pieces, mut received) = (Pieces::uncounted(UNCOUNTED_BYTES), 0);
            for piece in text.chunks(piece_bytes) {
                received += piece.len();
                assert!(pieces.push(Bytes::copy_from_slice(piece), received, &limits));
            }
            assert_eq!(limits.all.used(), text.len());
            let body = pieces.finish();
            assert_eq!(body.size(), text.len());
            let is_one = piece_bytes == text.len();
            assert!(is_one || body.parts.iter().all(|part| part.len() <= PART_BYTES));
            assert!(is_one || body.parts.len() <= text.len() / PART_BYTES + 6);
            assert!(body.join() == text, "{piece_bytes}");
            assert_eq!(limits.all.used(), 0);
        }
        let pieces = || Pieces::uncounted(UNCOUNTED_BYTES);
        assert_eq!(pieces().finish().join(), "");
        assert!(!pieces().push(Bytes::from(text), 9_000_000, &limits));
    }
}
