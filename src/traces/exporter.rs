//! The thread that makes spans of what is known and sends them to the collector.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tracing::{info, warn};

use super::collector::{Collector, Delivery, NotSent};
use super::facts::Finished;
use super::otlp::{ExportRequest, Resource, ResourceSpans, Scope, ScopeSpans, attribute};
use super::queue::{Queue, Taker};
use super::spans;
use crate::metrics::{SpanEnd, TraceMetrics};
use crate::priority::{BACKGROUND, give_way};
use clipper_clock::{self as clock, Backoff, Instant};
use clipper_config::TracesConfig;

/// What the thread needs.
pub(super) struct Exporter {
    queue: Arc<Queue>,
    counts: Arc<TraceMetrics>,
    collector: Collector,
    resource: Resource,
    seed: u64,
    interval: Duration,
    timeout: Duration,
    retry_for: Duration,
    backoff: Backoff,
    /// Whether the last message was lost: it is said once.
    is_losing: bool,
}

impl Exporter {
    pub(super) fn new(
        config: &TracesConfig,
        queue: Arc<Queue>,
        counts: Arc<TraceMetrics>,
        seed: u64,
    ) -> Self {
        let instance = format!("{:016x}", rand::random::<u64>());
        let attributes = vec![
            attribute("service.name", config.service_name.as_str()),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", instance),
        ];
        Self {
            queue,
            counts,
            collector: Collector::new(config),
            resource: Resource { attributes },
            seed,
            interval: Duration::from_millis(config.interval_ms),
            timeout: Duration::from_millis(config.timeout_ms),
            retry_for: Duration::from_millis(config.retry_for_ms),
            backoff: Backoff::from_millis(config.retry_initial_ms, config.retry_max_ms),
            is_losing: false,
        }
    }

    /// Begins, on a thread of its own that gives way to those that answer queries.
    pub(super) fn start(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        give_way(BACKGROUND);
        let Some(mut taker) = Taker::new(Arc::clone(&self.queue)) else { return };
        loop {
            let finished = taker.take();
            if !finished.is_empty() {
                self.export(&finished, &taker);
            } else if taker.until().is_some() {
                break;
            } else {
                taker.wait(self.interval);
            }
        }
        taker.end();
    }

    /// Sends one message, again and again as long as that may help.
    fn export(&mut self, finished: &[Finished], taker: &Taker) {
        let spans: Vec<_> = finished.iter().flat_map(|one| spans::of(one, self.seed)).collect();
        let count = spans.len();
        let message = self.message(spans);
        let give_up = clock::now() + self.retry_for;
        self.backoff.reset();
        loop {
            let now = clock::now();
            let patience = left(self.timeout, taker.until(), now);
            if patience.is_zero() {
                return self.counts.ended(SpanEnd::Stopped, count);
            }
            match self.collector.send(&message, patience) {
                Delivery::Taken { rejected, why } => return self.taken(count, rejected, &why),
                Delivery::Again(_) if clock::now() < give_up && taker.until().is_none() => {
                    taker.pause(self.backoff.next_pause());
                }
                Delivery::Again(why) | Delivery::Lost(why) => return self.lost(count, &why),
            }
        }
    }

    fn message(&self, spans: Vec<super::otlp::Span>) -> Vec<u8> {
        let (name, version) = ("clipper".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let scope_spans = vec![ScopeSpans { scope: Some(Scope { name, version }), spans }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans }];
        ExportRequest { resource_spans }.encode_to_vec()
    }

    fn taken(&mut self, spans: usize, rejected: usize, why: &str) {
        let rejected = rejected.min(spans);
        self.counts.ended(SpanEnd::Exported, spans - rejected);
        self.counts.ended(SpanEnd::Rejected, rejected);
        if rejected > 0 && !self.is_losing {
            let why = why.escape_debug();
            warn!(to = %self.collector.url(), rejected, "the collector rejects spans: {why}");
        } else if self.is_losing && rejected == 0 {
            info!(to = %self.collector.url(), "traces are exported again");
        }
        self.is_losing = rejected > 0;
    }

    fn lost(&mut self, spans: usize, why: &NotSent) {
        self.counts.ended(why.end(), spans);
        if !std::mem::replace(&mut self.is_losing, true) {
            let to = self.collector.url();
            warn!(
                %to,
                spans,
                "traces cannot be exported: {why}; meanwhile spans are lost and counted in \
                 clipper_trace_spans_total"
            );
        }
    }
}

/// How long one attempt may take.
fn left(timeout: Duration, until: Option<Instant>, now: Instant) -> Duration {
    until.map_or(timeout, |until| timeout.min(until.saturating_duration_since(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_end_an_attempt_may_take_what_is_left() {
        let (now, s) = (clock::now(), Duration::from_secs);
        assert_eq!(left(s(10), None, now), s(10));
        assert_eq!(left(s(10), Some(now + s(3)), now), s(3));
        assert_eq!(left(s(2), Some(now + s(3)), now), s(2));
        assert_eq!(left(s(2), Some(now), now), Duration::ZERO);
    }
}
