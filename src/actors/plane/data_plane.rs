//! What every data-plane actor and handler shares: limits, cache, metrics, the directory of models.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::directory::Directory;
use super::kept_curves::KeptCurves;
use super::learned_states::{LearnedLimits, LearnedStates};
use super::recent::Recent;
use crate::metrics::Metrics;
use crate::traces::Traces;
use clipper_config::{Config, ContainersConfig, RpcConfig, ServingConfig};
use clipper_domain::BatchSize;
use clipper_rpc::receive::ReceiveBudget;
use clipper_rpc::unasked::UnaskedBudget;
use clipper_scheduling::budget::Budget;
use clipper_scheduling::cache::PredictionCache;
use clipper_scheduling::dispatch::{Arrival, BusyLimits, Limits};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::quota::Claim;
use clipper_scheduling::share::{Class, Tenant};
use clipper_scheduling::stream::StreamBounds;
use clipper_scheduling::ticket::{AnswerBounds, DefaultReason};

/// Shared by reference; everything in it may be used from any thread.
#[derive(Debug)]
pub struct DataPlane {
    /// Limits of a query's way.
    pub serving: ServingConfig,
    /// Limits of replica connections.
    pub rpc: RpcConfig,
    pub containers: ContainersConfig,
    /// Finished outputs and unfinished flights.
    pub cache: Arc<PredictionCache>,
    pub metrics: Arc<Metrics>,
    pub directory: Directory,
    /// What containers may send unasked.
    pub unasked: UnaskedBudget,
    /// Memory for large answers.
    pub receive: ReceiveBudget,
    /// Turns of those large answers that are checked aside.
    pub large_answers: Arc<Semaphore>,
    /// Feedback that the models are asked again for.
    pub feedback_asks: Semaphore,
    /// What feedback left with applications.
    pub learned: Arc<LearnedStates>,
    /// What is known of models that are not registered yet.
    pub curves: KeptCurves,
    /// What answers may take.
    pub answers: AnswerBounds,
    /// What pieces of answers may take on their way.
    pub streams: StreamBounds,
    /// Room for copies of queries to versions that are rolled out.
    pub copies: Arc<Semaphore>,
    /// The latest queries, for whoever asks why they were answered so.
    pub recent: Recent,
    /// Where requests and batches leave their spans, if anywhere.
    pub traces: Option<Arc<Traces>>,
    next_query_id: AtomicU64,
    inflight: AtomicUsize,
}

impl DataPlane {
    /// An empty data plane.
    #[must_use]
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Arc<Self> {
        let traces = Traces::start(&config.traces, &metrics);
        let lost = Arc::clone(&metrics.explain_lost);
        let recent = Recent::new(&config.explain, config.http.workers(), lost);
        Arc::new(Self {
            serving: config.serving.clone(),
            rpc: config.rpc.clone(),
            containers: config.containers.clone(),
            cache: Arc::new(PredictionCache::new(config.serving.cache_max_bytes)),
            metrics,
            directory: Directory::default(),
            unasked: UnaskedBudget::new(config.rpc.unasked_limits()),
            receive: ReceiveBudget::new(config.rpc.receive_limits()),
            large_answers: Arc::new(Semaphore::new(config.rpc.large_answers_at_once)),
            feedback_asks: Semaphore::new(config.serving.feedback_asks_max),
            learned: Arc::new(LearnedStates::new(LearnedLimits {
                users: config.serving.policy_users_max,
                users_in_sum: config.serving.policy_users_in_sum_max,
                window: config.serving.feedback_window_max,
            })),
            curves: KeptCurves::default(),
            answers: AnswerBounds {
                max_bytes: config.http.answer_max_bytes,
                all: Budget::new(config.http.answers_max_bytes),
            },
            streams: StreamBounds {
                pieces_max: config.serving.stream_pieces_max,
                piece_max_bytes: config.serving.stream_piece_max_bytes,
                all: Budget::new(config.serving.streams_max_bytes),
            },
            copies: Arc::new(Semaphore::new(config.rollouts.copies_max)),
            recent,
            traces,
            next_query_id: AtomicU64::new(0),
            inflight: AtomicUsize::new(0),
        })
    }

    /// The first of `n` consecutive query ids.
    pub fn query_ids(&self, n: usize) -> u64 {
        self.next_query_id.fetch_add(n as u64, Ordering::Relaxed)
    }

    /// How many queries there were since the start.
    pub fn queries_asked(&self) -> u64 {
        self.next_query_id.load(Ordering::Relaxed)
    }

    /// What the dispatcher of a model with this batch size keeps within.
    #[must_use]
    pub fn dispatch_limits(&self, batch_size: BatchSize) -> Limits {
        let (serving, ms) = (&self.serving, Duration::from_millis);
        Limits {
            batch_size,
            batch_max: serving.batch_max,
            queue_max: serving.model_queue_max,
            attempts_max: serving.attempts_max,
            hedge_share: f64::from(serving.hedge_percent) / 100.0,
            hedge_burst: ms(serving.hedge_burst_ms),
            poison_keep: ms(serving.poison_keep_ms),
            poison_max: serving.poison_max,
            busy: BusyLimits {
                min: ms(self.rpc.silence_timeout_ms),
                max: ms(self.rpc.busy_max_ms),
            },
        }
    }

    /// Ends queries without an answer of a model.
    pub fn abort_all(
        &self,
        arrivals: impl IntoIterator<Item = Arrival<Arc<Flight>>>,
        reason: &DefaultReason,
    ) {
        for flight in arrivals.into_iter().flat_map(|arrival| arrival.queries) {
            self.cache.abort(&flight, reason.clone());
        }
    }

    /// Room for `n` more queries, given back when the permit is dropped, and with it what their
    /// request claims; `None` at the limit.
    #[must_use]
    pub fn admit(self: &Arc<Self>, n: usize, claim: Claim) -> Option<Permit> {
        let before = self.inflight.fetch_add(n, Ordering::Relaxed);
        let permit = Permit { plane: Arc::clone(self), n, claim };
        (before + n <= self.serving.inflight_queries_max).then_some(permit)
    }

    #[must_use]
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Relaxed)
    }
}

/// Room for a request's queries among those being answered (invariant L1).
#[derive(Debug)]
pub struct Permit {
    plane: Arc<DataPlane>,
    n: usize,
    claim: Claim,
}

impl Permit {
    /// The class that its queries may have where they ask for this one.
    #[must_use]
    pub fn class(&self, asked: Class) -> Class {
        self.claim.class(asked)
    }

    /// Who asks.
    #[must_use]
    pub fn tenant(&self) -> Tenant {
        self.claim.by()
    }

    #[must_use]
    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.plane.inflight.fetch_sub(self.n, Ordering::Relaxed);
    }
}
