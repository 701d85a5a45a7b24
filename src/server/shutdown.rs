//! How a running server stops: not ready, then nothing new, then nothing at all.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::frontends::Serving;
use super::reload::Reloader;
use crate::actors::apps::feedback::FeedbackQueue;
use crate::actors::apps::rollouts::RolloutKeeper;
use crate::actors::models::registry::Models;
use crate::actors::plane::learned::LearnedCurves;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::file_sd::FileSd;
use crate::actors::pool::messages::StopChildren;
use crate::actors::redis::watcher::RedisMetadata;
use crate::http::health::Readiness;
use crate::http::serve::{Frontend, Workers};
use crate::store::Journal;
use crate::supervision::kept::Kept;
use crate::traces::Traces;
use clipper_clock as clock;

/// What is left of the time for requests under way is the exporter's of traces, and this at least.
const LAST_SPANS: Duration = Duration::from_millis(250);

/// What has to be stopped of a running server.
pub(super) struct Running {
    /// Until it follows the config file.
    pub(super) reloader: Option<Reloader>,
    pub(super) readiness: Arc<Readiness>,
    /// Not ready and serving for so long first.
    pub(super) drain_delay: Duration,
    /// Requests under way then have so long.
    pub(super) patience: Duration,
    pub(super) serving: Serving,
    pub(super) models: Kept<Models>,
    pub(super) learned: LearnedCurves,
    pub(super) feedback: FeedbackQueue,
    /// Decides as long as it is held.
    pub(super) rollouts: Kept<RolloutKeeper>,
    pub(super) pool: Kept<ContainerPool>,
    pub(super) redis: Option<RedisMetadata>,
    pub(super) targets: FileSd,
    /// Exported before the end.
    pub(super) traces: Option<Arc<Traces>>,
    pub(super) journal: Journal,
}

impl Running {
    /// Stops top-down: those who ask before those who answer.
    pub(super) async fn stop(self) {
        self.readiness.drain();
        drop(self.rollouts);
        info!(drain_delay = ?self.drain_delay, "stopping: in-flight queries finish first");
        // Whoever sends queries has to see that this server is not ready before it closes.
        let Serving { queries, others, .. } = &self.serving;
        queries.iter().chain(others).for_each(Frontend::drain);
        tokio::time::sleep(self.drain_delay).await;
        let until = clock::now() + self.patience;
        stop_frontends(self.serving, self.patience).await;
        self.learned.save().await;
        self.feedback.save().await;
        if self.pool.send(StopChildren).await.is_err() {
            warn!("the container pool ended before its child processes");
        }
        // From here on nobody starts it again.
        drop(self.models);
        if let Some(redis) = self.redis {
            redis.leave().await;
        }
        self.targets.leave();
        self.journal.close().await;
        if let Some(traces) = self.traces {
            let left = until.saturating_duration_since(clock::now());
            traces.flush(left.max(LAST_SPANS)).await;
        }
        info!("stopped");
    }
}

async fn stop_frontends(serving: Serving, patience: Duration) {
    let Serving { queries, others, _guard } = serving;
    // Who answers queries first: meanwhile the others still say that the server is not ready.
    let finish = queries.into_iter().map(|frontend| frontend.finish(patience));
    let finished = futures_util::future::join_all(finish).await;
    finished.iter().for_each(Workers::stop);
    futures_util::future::join_all(others.into_iter().map(|other| other.stop(patience))).await;
}
