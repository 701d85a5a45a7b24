//! What the frontends count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// Why a connection of a frontend ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionEnd {
    /// By its client, or by `Connection: close`.
    Closed,
    /// By its client while a request of it was being answered.
    Abandoned,
    /// It was unused for `http.keep_alive_ms`.
    Idle,
    /// What came was not HTTP.
    NotHttp,
    /// A request's head did not come in time.
    HeadTimeout,
    /// A request's body did not come in time.
    RequestTimeout,
    /// The client did not read its answers.
    WriteTimeout,
    /// Another connection took its place, and it had a part of a request.
    GaveWay,
    /// Another connection took its place, and it had nothing under way.
    GaveWayIdle,
    /// There was no place for it.
    Refused,
    /// The server stopped.
    Shutdown,
    /// Its TLS handshake did not end in time, or gave way to others.
    HandshakeTimeout,
    /// Its TLS handshake failed.
    HandshakeFailed,
}

impl ConnectionEnd {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Closed,
        Self::Abandoned,
        Self::Idle,
        Self::NotHttp,
        Self::HeadTimeout,
        Self::RequestTimeout,
        Self::WriteTimeout,
        Self::GaveWay,
        Self::GaveWayIdle,
        Self::Refused,
        Self::Shutdown,
        Self::HandshakeTimeout,
        Self::HandshakeFailed,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Abandoned => "abandoned",
            Self::Idle => "idle",
            Self::NotHttp => "not_http",
            Self::HeadTimeout => "head_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::GaveWay => "gave_way",
            Self::GaveWayIdle => "gave_way_idle",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
        }
    }
}

/// A value that is asked for when the metrics are.
type Gauge = Box<dyn Fn() -> usize + Send + Sync>;

/// Counters of one frontend.
#[derive(Default)]
pub struct FrontendMetrics {
    ended: [AtomicU64; ConnectionEnd::ALL.len()],
    errors: Mutex<BTreeMap<&'static str, u64>>,
    open: OnceLock<Gauge>,
    handshakes: AtomicU64,
}

impl FrontendMetrics {
    pub fn ended(&self, why: ConnectionEnd) {
        if let Some(count) = self.ended.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A TLS handshake has succeeded.
    pub fn handshake(&self) {
        self.handshakes.fetch_add(1, Relaxed);
    }

    /// A request was answered by an error of this label.
    pub fn error(&self, label: &'static str) {
        *self.errors.lock().entry(label).or_default() += 1;
    }

    /// Where the number of its open connections is known; the first call counts.
    pub fn watch_open(&self, open: impl Fn() -> usize + Send + Sync + 'static) {
        self.open.get_or_init(|| Box::new(open));
    }

    pub(super) fn open(&self) -> usize {
        self.open.get().map_or(0, |open| open())
    }

    pub(super) fn handshakes(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (ConnectionEnd, u64)> + '_ {
        ConnectionEnd::ALL
            .into_iter()
            .zip(&self.ended)
            .map(|(why, count)| (why, count.load(Relaxed)))
    }

    pub(super) fn errors(&self) -> BTreeMap<&'static str, u64> {
        self.errors.lock().clone()
    }
}

/// Counters of all frontends.
#[derive(Default)]
pub struct HttpMetrics {
    pub query: Arc<FrontendMetrics>,
    pub management: Arc<FrontendMetrics>,
    pub metrics: Arc<FrontendMetrics>,
    /// The gRPC frontend.
    pub grpc: Arc<FrontendMetrics>,
    bodies: OnceLock<Gauge>,
    answers: OnceLock<Gauge>,
}

impl HttpMetrics {
    /// Where the bytes of large bodies and answers under way are known; the first call counts.
    pub fn watch_bytes(
        &self,
        bodies: impl Fn() -> usize + Send + Sync + 'static,
        answers: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.bodies.get_or_init(|| Box::new(bodies));
        self.answers.get_or_init(|| Box::new(answers));
    }

    pub(super) fn frontends(&self) -> [(&'static str, &FrontendMetrics); 4] {
        [
            ("query", &self.query),
            ("management", &self.management),
            ("metrics", &self.metrics),
            ("grpc", &self.grpc),
        ]
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.bodies.get().map_or(0, |bytes| bytes())
    }

    pub(super) fn answer_bytes(&self) -> usize {
        self.answers.get().map_or(0, |bytes| bytes())
    }
}

impl std::fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpMetrics")
    }
}

impl std::fmt::Debug for FrontendMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrontendMetrics")
    }
}
