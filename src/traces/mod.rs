//! Requests as spans of OpenTelemetry, sent to a collector by OTLP over HTTP.
//!
//! What is known of a request and of the batches that its queries were part of is what
//! `clipper explain` tells as well; nothing is measured a second time. Who answers leaves facts in
//! a bounded queue ([`queue`]) and goes on; a thread of its own ([`exporter`]) makes spans of them
//! ([`spans`], [`otlp`]) and sends them ([`collector`]). What cannot be sent is lost and counted
//! (invariant O1).

mod collector;
mod exporter;
pub mod facts;
mod forced;
mod otlp;
mod queue;
pub mod request;
mod spans;

use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use self::exporter::Exporter;
use self::facts::FinishedBatch;
use self::forced::Forced;
use self::queue::Queue;
use crate::metrics::{Metrics, TraceMetrics};
use clipper_clock as clock;
use clipper_config::TracesConfig;
use clipper_domain::shown_url::shown_url;
use clipper_domain::{SpanId, TraceContext, TraceId, TraceParent};

/// Where facts are left. Shared by all threads.
#[derive(Debug)]
pub struct Traces {
    queue: Arc<Queue>,
    /// Of traces without a caller's, one in so many is recorded.
    one_in: u32,
    /// Of those with a caller's, so many are recorded because he wants that.
    forced: Forced,
    /// Queries of one request that have spans.
    queries_max: usize,
    batch_links_max: usize,
    counts: Arc<TraceMetrics>,
}

/// A span of a request that has begun.
#[derive(Debug)]
pub struct Begun {
    /// With the new span.
    pub context: TraceContext,
    /// The caller's span.
    pub parent: Option<SpanId>,
}

impl Traces {
    /// Starts to export, if a collector is named.
    #[must_use]
    pub fn start(config: &TracesConfig, metrics: &Metrics) -> Option<Arc<Self>> {
        if config.endpoint.is_empty() {
            return None;
        }
        let counts = metrics.traces();
        let queue = Arc::new(Queue::new(config, Arc::clone(counts)));
        let seed = rand::random();
        let exporter = Exporter::new(config, Arc::clone(&queue), Arc::clone(counts), seed);
        if let Err(why) = exporter.start() {
            error!(%why, "the thread that exports traces cannot be started: none are exported");
            return None;
        }
        info!(to = %shown_url(&collector::url(&config.endpoint)), "traces are exported");
        Some(Arc::new(Self::of(config, queue, Arc::clone(counts))))
    }

    fn of(config: &TracesConfig, queue: Arc<Queue>, counts: Arc<TraceMetrics>) -> Self {
        Self {
            queue,
            one_in: config.sample_one_in,
            forced: Forced::new(config.forced_per_second_max, clock::now()),
            queries_max: config.request_queries_max,
            batch_links_max: config.batch_links_max,
            counts,
        }
    }

    /// Queries of one batch that its span is linked with.
    #[must_use]
    pub fn batch_links_max(&self) -> usize {
        self.batch_links_max
    }

    /// Begins the span of a request that came with this; none if it is not to be recorded.
    #[must_use]
    pub fn begin(&self, came: Option<&TraceContext>) -> Option<Begun> {
        let span = SpanId(random_span());
        if let Some(came) = came {
            let parent = Some(came.parent.span);
            let is_recorded = came.parent.is_sampled() && self.takes_forced();
            return is_recorded.then(|| Begun { context: came.at(span), parent });
        }
        let id: NonZeroU128 = random_trace();
        let is_recorded = id.get().is_multiple_of(u128::from(self.one_in));
        is_recorded.then(|| {
            let parent = TraceParent::new(TraceId(id), span, true);
            Begun { context: TraceContext { parent, state: None }, parent: None }
        })
    }

    /// Whether a request is recorded whose caller wants that: not more of them than may be, beyond
    /// those that would be anyway. By chance, since the trace's id is the caller's.
    fn takes_forced(&self) -> bool {
        let by_chance = || self.one_in > 0 && rand::random_ratio(1, self.one_in);
        let is_taken = self.one_in == 1 || self.forced.admits(clock::now()) || by_chance();
        if !is_taken {
            self.counts.passed_over();
        }
        is_taken
    }

    /// Leaves what is known of a batch that has ended.
    pub fn batch(&self, batch: FinishedBatch) {
        if !batch.links.is_empty() {
            self.queue.push(batch.into());
        }
    }

    /// Exports what waits, as far as that goes in `within`, and then nothing any more.
    pub async fn flush(&self, within: Duration) {
        self.queue.close(clock::now() + within);
        let emptied = self.queue.emptied();
        // What is left is lost with the process; the exporter has counted it if it still could.
        let _ = tokio::time::timeout(within, emptied).await;
        let left = self.queue.spans();
        if left > 0 {
            info!(spans = left, "spans were lost at the end: the collector did not take them");
        }
    }
}

fn random_span() -> NonZeroU64 {
    NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN)
}

fn random_trace() -> NonZeroU128 {
    NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(one_in: u32) -> Traces {
        let config = TracesConfig { sample_one_in: one_in, ..TracesConfig::default() };
        of(&config)
    }

    fn of(config: &TracesConfig) -> Traces {
        let counts = Arc::clone(Metrics::new().traces());
        let queue = Arc::new(Queue::new(config, Arc::clone(&counts)));
        Traces::of(config, queue, counts)
    }

    fn came(flags: &str) -> TraceContext {
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        let parent = TraceParent::parse(text.as_bytes()).unwrap();
        TraceContext { parent, state: Some("a=1".into()) }
    }

    #[test]
    fn the_caller_decides_where_there_is_one() {
        let (none, all) = (traces(0), traces(1));
        let sampled = came("01");
        let begun = none.begin(Some(&sampled)).unwrap();
        assert_eq!(begun.parent, Some(sampled.parent.span));
        assert_eq!(begun.context.parent.trace, sampled.parent.trace);
        assert_ne!(begun.context.parent.span, sampled.parent.span);
        assert_eq!(begun.context.state, sampled.state);
        assert!(all.begin(Some(&came("00"))).is_none());
    }

    #[test]
    fn callers_force_no_more_than_may_be() {
        let forced = |sample_one_in, forced_per_second_max| {
            let config =
                TracesConfig { sample_one_in, forced_per_second_max, ..TracesConfig::default() };
            let traces = of(&config);
            let sampled = came("01");
            let recorded = (0..4_000).filter(|_| traces.begin(Some(&sampled)).is_some()).count();
            let passed_over = traces.counts.count_passed_over();
            assert_eq!(recorded as u64 + passed_over, 4_000);
            recorded
        };
        assert_eq!(forced(0, 0), 0);
        assert_eq!(forced(1, 0), 4_000, "all are recorded anyway");
        assert_eq!(forced(0, 10_000), 4_000);
        let some = forced(4, 0);
        assert!((700..1_300).contains(&some), "as many as of others: {some}");
        let none = of(&TracesConfig { sample_one_in: 0, ..TracesConfig::default() });
        assert!(none.begin(Some(&came("00"))).is_none());
        assert_eq!(none.counts.count_passed_over(), 0, "nobody wanted it");
    }

    #[test]
    fn of_other_requests_a_part_is_recorded() {
        assert!(traces(0).begin(None).is_none());
        let begun = traces(1).begin(None).unwrap();
        assert!(begun.parent.is_none() && begun.context.parent.is_sampled());
        let some = traces(4);
        let recorded = (0..4_000).filter(|_| some.begin(None).is_some()).count();
        assert!((700..1_300).contains(&recorded), "{recorded}");
    }
}
