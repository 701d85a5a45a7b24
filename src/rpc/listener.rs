//! Accepts container connections on the RPC port and brings each to the point where it has said
//! what it serves; then hands it over.
//!
//! Nothing here is trusted (invariant C2): connections and unfinished handshakes are counted and
//! limited, a handshake has a deadline and small message limits, accept errors back off instead of
//! spinning.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::config::RpcConfig;
use crate::metrics::{Metrics, RpcEnd};
use clipper_clock::{self as clock, Instant};
use clipper_domain::{InputType, ModelId};
use clipper_rpc::codec::{self, AnswerLimits, DecodeError, Extensions, FromContainer};
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{Decoder, Handshake, Incoming, Limits, LimitsOf, Step, ZmtpError};

/// Message limits until a container has registered: its metadata is a few short frames.
const HANDSHAKE_LIMITS: Limits = Limits {
    frames_max: 16,
    frame_max_bytes: 4 << 10,
    message_max_bytes: 16 << 10,
    of: LimitsOf::Handshake,
};
/// Nothing has been asked, so nothing can be answered.
const NO_ANSWER: AnswerLimits = AnswerLimits { outputs_max: 0, error_max_bytes: None };
/// A peer that says nothing for this long after the handshake is asked for its metadata: it may
/// have reconnected to a restarted server and would otherwise stay silent until its own idle
/// heartbeat.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// First and longest pause after a failed accept.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// At most one log line per reason in this time: a refused container tries again ten times a
/// second.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// A connection that has said what it serves.
#[derive(Debug)]
pub struct Registration {
    /// The connection, handshake done.
    pub stream: std::net::TcpStream,
    /// What was read beyond the new-container message.
    pub unread: BytesMut,
    /// What it says of itself.
    pub introduction: Introduction,
    /// The other end.
    pub peer: SocketAddr,
    /// Its place among the open connections.
    pub place: Place,
}

/// What a container says of itself.
#[derive(Debug)]
pub struct Introduction {
    /// The routing identity it asked for; mostly empty.
    pub identity: Bytes,
    /// What it serves.
    pub model: ModelId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// The extensions that it announces.
    pub extensions: Extensions,
}

/// Why a connection was not handed over.
#[derive(Debug)]
pub struct Refused {
    /// The metric label.
    pub why: RpcEnd,
    /// For the operator.
    pub text: String,
}

impl Refused {
    /// A refusal with its explanation.
    pub fn new(why: RpcEnd, text: impl fmt::Display) -> Self {
        Self { why, text: text.to_string() }
    }
}

/// The metric label of a ZMTP error.
#[must_use]
pub fn end_of(error: &ZmtpError) -> RpcEnd {
    match error {
        ZmtpError::Io(_) => RpcEnd::Closed,
        error => match error.over_limit() {
            Some((_, LimitsOf::Answers)) => RpcEnd::AnswerTooLarge,
            Some((_, LimitsOf::Unasked | LimitsOf::Handshake)) | None => RpcEnd::Zmtp,
        },
    }
}

fn end_of_decode(error: &DecodeError) -> RpcEnd {
    match error {
        DecodeError::RpcVersion { .. } => RpcEnd::RpcVersion,
        DecodeError::Name { .. } => RpcEnd::Name,
        DecodeError::InputType(_) => RpcEnd::InputType,
        _ => RpcEnd::Protocol,
    }
}

#[derive(Debug, Default)]
struct Places {
    open: AtomicUsize,
}

/// One open connection's share of `rpc.connections_max`, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    metrics: Arc<Metrics>,
}

impl Place {
    fn take(places: &Arc<Places>, metrics: &Arc<Metrics>) -> Self {
        let open = places.open.fetch_add(1, Ordering::Relaxed) + 1;
        metrics.set_rpc_connections(open);
        Self { places: Arc::clone(places), metrics: Arc::clone(metrics) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.places.open.fetch_sub(1, Ordering::Relaxed) - 1;
        self.metrics.set_rpc_connections(open);
    }
}

/// Unfinished handshakes, oldest first: when there are too many, the oldest gives way. A container
/// is done within milliseconds, so that those who only hold places go first.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<PendingTable>>);

#[derive(Default)]
struct PendingTable {
    next: u64,
    /// Dropping the sender ends the handshake.
    oldest_first: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Pending {
    /// A place for one more, and what ends when it is taken away.
    fn take(&self, max: usize) -> (PendingPlace, oneshot::Receiver<()>) {
        let mut table = self.0.lock();
        while table.oldest_first.len() >= max {
            table.oldest_first.pop_first();
        }
        let (evict, evicted) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.oldest_first.insert(number, evict);
        (PendingPlace { pending: self.clone(), number }, evicted)
    }
}

/// An unfinished handshake's share of `rpc.pending_handshakes_max`.
struct PendingPlace {
    pending: Pending,
    number: u64,
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.pending.0.lock().oldest_first.remove(&self.number);
    }
}

/// Accepts until dropped. `register` takes over a connection or says why not; it runs on this
/// thread.
pub async fn serve<R, F>(
    listener: TcpListener,
    config: RpcConfig,
    metrics: Arc<Metrics>,
    register: R,
) where
    R: Fn(Registration) -> F + Clone + 'static,
    F: Future<Output = Result<(), Refused>> + 'static,
{
    let places = Arc::new(Places::default());
    let handshakes = Pending::default();
    let mut log = Quiet::default();
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log.warn(&format!("cannot accept container connections for now: {error}"));
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
                continue;
            }
        };
        backoff = ACCEPT_BACKOFF.0;
        let open = places.open.load(Ordering::Relaxed);
        if open >= config.connections_max {
            metrics.rpc_ended(RpcEnd::Limit);
            let max = config.connections_max;
            refused(RpcEnd::Limit, peer, &format!("{open} are open (rpc.connections_max = {max})"));
            continue;
        }
        let place = Place::take(&places, &metrics);
        let (pending, evicted) = handshakes.take(config.pending_handshakes_max);
        let (config, metrics, register) = (config.clone(), Arc::clone(&metrics), register.clone());
        actix::spawn(async move {
            let introduced = tokio::select! {
                introduced = introduce(stream, peer, place, &config) => introduced,
                _ = evicted => Err(evicted_by_newer(config.pending_handshakes_max)),
            };
            drop(pending);
            let result = match introduced {
                Ok(registration) => register(registration).await,
                Err(refused) => Err(refused),
            };
            if let Err(Refused { why, text }) = result {
                metrics.rpc_ended(why);
                refused(why, peer, &text);
            }
        });
    }
}

fn evicted_by_newer(max: usize) -> Refused {
    let text = format!(
        "it had not said what it serves and gave way to a newer connection: \
         {max} are in handshake (rpc.pending_handshakes_max)"
    );
    Refused::new(RpcEnd::Limit, text)
}

fn refused(why: RpcEnd, peer: SocketAddr, text: &str) {
    if why == RpcEnd::Closed {
        debug!(%peer, "connection closed before it registered a model: {text}");
    } else {
        LOG.with(|log| log.borrow_mut().refused(why, peer, text));
    }
}

thread_local! {
    static LOG: RefCell<Quiet> = RefCell::default();
}

/// Lets one line per reason and [`LOG_PAUSE`] through and counts the rest.
#[derive(Default)]
struct Quiet {
    last: HashMap<Option<RpcEnd>, (Instant, u64)>,
}

impl Quiet {
    fn pass(&mut self, key: Option<RpcEnd>) -> Option<u64> {
        let now = clock::now();
        match self.last.get_mut(&key) {
            Some((last, suppressed)) if now - *last < LOG_PAUSE => {
                *suppressed += 1;
                None
            }
            Some((last, suppressed)) => {
                *last = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                self.last.insert(key, (now, 0));
                Some(0)
            }
        }
    }

    fn warn(&mut self, text: &str) {
        if let Some(suppressed) = self.pass(None) {
            warn!(suppressed, "{text}");
        }
    }

    fn refused(&mut self, why: RpcEnd, peer: SocketAddr, text: &str) {
        if let Some(suppressed) = self.pass(Some(why)) {
            warn!(%peer, reason = ?why, suppressed, "container refused: {text}");
        }
    }
}

async fn introduce(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    config: &RpcConfig,
) -> Result<Registration, Refused> {
    let closed = |error: io::Error| Refused::new(RpcEnd::Closed, error);
    tune(&stream).map_err(closed)?;
    let mut connection = Connection { stream, buffer: BytesMut::with_capacity(1 << 10) };
    let deadline = Duration::from_millis(config.handshake_timeout_ms);
    let introduction =
        tokio::time::timeout(deadline, connection.introduction()).await.map_err(|_| {
            let text = format!("it did not say what it serves within {deadline:?}");
            Refused::new(RpcEnd::HandshakeTimeout, text)
        })??;
    let stream = connection.stream.into_std().map_err(closed)?;
    let unread = connection.buffer;
    Ok(Registration { stream, unread, introduction, peer, place })
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Greeting, READY, and messages until one says what the peer serves.
    async fn introduction(&mut self) -> Result<Introduction, Refused> {
        self.write(&Handshake::greeting()).await?;
        let mut handshake = Handshake::new();
        let identity = loop {
            let step = handshake.advance(&mut self.buffer);
            match step.map_err(|e| Refused::new(end_of(&e), e))? {
                Step::More => self.read().await?,
                Step::Send(bytes) => self.write(&bytes).await?,
                Step::Done(peer) => break peer.identity,
            }
        };
        let mut decoder = Decoder::new(HANDSHAKE_LIMITS);
        let mut asked = false;
        let mut answer = WireChunks::new();
        loop {
            match decoder.next(&mut self.buffer).map_err(|e| Refused::new(end_of(&e), e))? {
                Some(Incoming::Message(frames)) => {
                    let message = codec::decode_from_container(frames, NO_ANSWER)
                        .map_err(|e| Refused::new(end_of_decode(&e), e))?;
                    match message {
                        FromContainer::NewContainer { name, version, input_type, extensions } => {
                            let model = ModelId::new(name, version);
                            return Ok(Introduction { identity, model, input_type, extensions });
                        }
                        FromContainer::Heartbeat => codec::encode_heartbeat(&mut answer, true),
                        FromContainer::Answer { .. } | FromContainer::Build(_) => {
                            let text = "it sent an answer before it said what it serves";
                            return Err(Refused::new(RpcEnd::Protocol, text));
                        }
                    }
                    asked = true;
                }
                Some(Incoming::Ping { context }) => answer.push_pong(&context),
                Some(Incoming::Ignored) => {}
                None if asked => self.read().await?,
                None => {
                    if let Ok(read) = tokio::time::timeout(ASK_AFTER, self.read()).await {
                        read?;
                    } else {
                        codec::encode_heartbeat(&mut answer, true);
                        asked = true;
                    }
                }
            }
            while !answer.is_empty() {
                let written = self.stream.write_buf(&mut answer).await;
                written.map_err(|e| Refused::new(RpcEnd::Closed, e))?;
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.stream.write_all(bytes).await.map_err(|e| Refused::new(RpcEnd::Closed, e))
    }

    async fn read(&mut self) -> Result<(), Refused> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Refused::new(RpcEnd::Closed, "the peer closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Refused::new(RpcEnd::Closed, error)),
        }
    }
}
