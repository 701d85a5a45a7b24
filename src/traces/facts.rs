//! What is known of requests and batches that have ended: what spans are made of.

use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_domain::explain::AttemptEnd;
use clipper_domain::{ModelId, ReplicaId, SpanId, TraceContext, TraceParent};
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::recent;
use clipper_scheduling::trace::SentTo;
use smol_str::SmolStr;

use super::otlp::shortened;

/// A moment by both clocks, by which other moments of the one are moments of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub at: Instant,
    /// Since the Unix epoch.
    pub unix_nanos: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: clock::now(), unix_nanos: clock::unix_nanos() }
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix(self, at: Instant) -> u64 {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let before = nanos(self.at.saturating_duration_since(at));
        let after = nanos(at.saturating_duration_since(self.at));
        self.unix_nanos.saturating_sub(before).saturating_add(after)
    }
}

/// What was asked, in words of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Http {
        method: SmolStr,
        /// Its path, names left out.
        route: &'static str,
        path: SmolStr,
        is_tls: bool,
    },
    Grpc {
        service: &'static str,
        method: &'static str,
    },
}

impl Call {
    /// One over HTTP to this route. Its path is a stranger's: no more is kept than is exported.
    #[must_use]
    pub fn http(method: &str, route: &'static str, path: &str, is_tls: bool) -> Self {
        Self::Http { method: method.into(), route, path: shortened(path).into(), is_tls }
    }
}

/// How a call ended: by its status, if it has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    Status(u16),
    /// Its client has given it up.
    GivenUp,
}

/// A request that has ended.
#[derive(Debug)]
pub struct FinishedRequest {
    /// With its own span.
    pub context: TraceContext,
    /// Its caller's span.
    pub parent: Option<SpanId>,
    pub call: Call,
    pub request_id: Option<SmolStr>,
    pub began: Instant,
    pub ended: Moment,
    pub end: CallEnd,
    /// By what its answer broke off after its head had gone, and why.
    pub broken: Option<(&'static str, SmolStr)>,
    /// What is known of its queries.
    pub queries: Vec<QueryRecord>,
    /// Queries of which nothing is kept.
    pub left_out: usize,
}

impl FinishedRequest {
    /// What texts of its client and model take, bytes.
    fn texts(&self) -> usize {
        let path = match &self.call {
            Call::Http { method, path, .. } => method.len() + path.len(),
            Call::Grpc { .. } => 0,
        };
        let state = self.context.state.as_deref().map_or(0, str::len);
        let why = self.broken.as_ref().map_or(0, |(_, why)| why.len());
        path + state + why + self.request_id.as_ref().map_or(0, SmolStr::len)
    }
}

/// A batch that a replica has answered, or failed with.
#[derive(Debug)]
pub struct FinishedBatch {
    pub model: ModelId,
    /// The serial number of the model version.
    pub serial: u64,
    pub replica: ReplicaId,
    pub to: SentTo,
    pub began: Instant,
    pub ended: Moment,
    pub end: AttemptEnd,
    /// Why it failed.
    pub error: Option<String>,
    /// How long the container says that it computed.
    pub computed: Option<Duration>,
    /// The spans of its queries.
    pub links: Vec<TraceParent>,
    /// Those of its queries that are not among them.
    pub links_left_out: usize,
}

/// What waits to become spans.
#[derive(Debug)]
pub(super) enum Finished {
    Request(Box<FinishedRequest>),
    Batch(Box<FinishedBatch>),
}

impl From<FinishedRequest> for Finished {
    fn from(request: FinishedRequest) -> Self {
        Self::Request(Box::new(request))
    }
}

impl From<FinishedBatch> for Finished {
    fn from(batch: FinishedBatch) -> Self {
        Self::Batch(Box::new(batch))
    }
}

impl Finished {
    /// Spans that will be made of it.
    pub(super) fn spans(&self) -> usize {
        match self {
            Self::Batch(_) => 1,
            Self::Request(request) => {
                let of_query = |query: &QueryRecord| {
                    let attempts = query.models.iter().map(|model| 1 + model.trace.attempts.len());
                    1 + attempts.sum::<usize>()
                };
                1 + request.queries.iter().map(of_query).sum::<usize>()
            }
        }
    }

    /// What it takes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => {
                size_of::<FinishedBatch>()
                    + batch.links.capacity() * size_of::<TraceParent>()
                    + batch.error.as_ref().map_or(0, String::capacity)
            }
            Self::Request(request) => {
                let queries = request.queries.iter().map(recent::bytes).sum::<usize>();
                size_of::<FinishedRequest>() + request.texts() + queries
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_one_clock_are_moments_of_the_other() {
        let at = clock::now() + Duration::from_secs(100);
        let moment = Moment { at, unix_nanos: 5_000_000_000 };
        assert_eq!(moment.unix(at), 5_000_000_000);
        assert_eq!(moment.unix(at - Duration::from_millis(1)), 4_999_000_000);
        assert_eq!(moment.unix(at + Duration::from_nanos(7)), 5_000_000_007);
        assert_eq!(moment.unix(at - Duration::from_secs(99)), 0);
    }
}
