//! Deploys a model version in one step: tries one replica out, and only then changes anything.
//!
//! ```text
//! StartTrial -> connected? -> answers a batch? -> warm-up -> GrowTrial -> all there?
//!      \______________ else EndTrial: nothing is left ______________/        |
//!                                              Command::Deploy (one change)
//! ```
//!
//! Queries go to a version when all its replicas are there and its cost is known ([`warm_up`]): a
//! new version is not to drown in what those of the old one took.
//!
//! Whoever stops waiting (its future is dropped) ends the trial, unless the change is under way.

mod deployer;
mod error;
mod inputs;
pub mod progress;
mod trial;
pub mod warm_up;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

pub use self::deployer::{DeployRequest, Deployer};
use self::error::{Phase, TrialError};
pub use self::inputs::TrialInputs;
use self::progress::{Failed, Progress, failed, failed_with_output};
use self::trial::{WatchedTrial, tell};
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::OtherServer;
use crate::actors::pool::trial::{EndTrial, StartTrial, Trial};
use crate::store::ChangeError;
use crate::store::event::{Author, Origin};
use crate::supervision::kept::Kept;
use clipper_clock as clock;
use clipper_domain::{Command, Deployment, ModelId};
use clipper_scheduling::latency::LatencyCurve;

/// Other servers are given so long to start what was deployed before they are named.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
const OTHERS_POLL: Duration = Duration::from_millis(50);

/// A place among the deployments under way.
struct RunningPlace<'d>(&'d AtomicUsize);

impl Drop for RunningPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the trial when it is dropped, unless it was released.
struct TrialGuard {
    pool: Kept<ContainerPool>,
    id: Option<ModelId>,
}

impl TrialGuard {
    /// Its replica belongs to a registered version now.
    fn release(mut self) {
        self.id = None;
    }

    /// Ends it; done when nothing of it is left.
    async fn end(mut self) {
        if let Some(id) = self.id.take()
            && self.pool.send(EndTrial(id)).await.is_err()
        {
            warn!("the container pool ended before a trial did");
        }
    }
}

impl Drop for TrialGuard {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let guard = Self { pool: self.pool.clone(), id: Some(id) };
            actix::spawn(guard.end());
        }
    }
}

impl Deployer {
    /// Whether the metadata lets this happen as things stand.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, deployment: &Deployment) -> Result<(), ChangeError> {
        let command = Command::Deploy(Box::new(deployment.clone()));
        self.view.read().decide(&command)?;
        Ok(())
    }

    /// Deploys; the last line says what came of it. `told` hears how far it is; a full one misses
    /// steps.
    pub async fn deploy(
        self: Arc<Self>,
        request: DeployRequest,
        told: mpsc::Sender<Progress>,
    ) -> Progress {
        let id = request.deployment.model.id.clone();
        match self.run(request, &told).await {
            Ok(done) => done,
            Err(why) => {
                info!(model = %id, "not deployed: {}", why.cause);
                Progress::Failed(why)
            }
        }
    }

    async fn run(
        &self,
        request: DeployRequest,
        told: &mpsc::Sender<Progress>,
    ) -> Result<Progress, Failed> {
        let max = self.config.deploys_max;
        let _place = RunningPlace(&self.running);
        if self.running.fetch_add(1, Ordering::Relaxed) >= max {
            let text = format!("{max} deployments are under way already (management.deploys_max)");
            return Err(failed(text));
        }
        let started = clock::now();
        let (guard, mut trial) = self.start(&request.deployment).await?;
        let id = request.deployment.model.id.clone();
        tell(told, Progress::Started { model: id.to_string() });
        let mut phase = Phase::Connecting;
        let DeployRequest { mut deployment, inputs, timeout, asker } = request;
        let mut watched = WatchedTrial { state: &mut trial.state, phase: &mut phase, told };
        let tried = self.try_out(&deployment, inputs, &mut watched, started);
        let tried = match tokio::time::timeout(timeout, tried).await {
            Ok(tried) => tried,
            Err(_) => Err(TrialError::Late { phase, id: id.clone(), limit: timeout }),
        };
        let curve = match tried {
            Ok(curve) => curve,
            Err(error) => {
                let mut cause = error.to_string();
                let output = trial.output();
                let has_exited = trial.state.borrow().exited.is_some();
                if let Some(last) = output.last().filter(|_| has_exited) {
                    cause = format!("{cause}: {}", last.trim());
                }
                guard.end().await;
                return Err(failed_with_output(&cause, output));
            }
        };
        deployment.model.signature.clone_from(&trial.state.borrow().signature);
        let (app, replicas) = (deployment.app.clone(), deployment.replicas.count);
        let waits = !deployment.make_current;
        let author = Author { origin: Origin::Admin, asker };
        self.register((deployment, author), curve, guard).await?;
        tell(told, Progress::Registered);
        let left = timeout.saturating_sub(clock::now() - started);
        self.tell_of_others(&id, left.min(OTHERS_PATIENCE), told).await;
        info!(model = %id, %app, replicas, waits, "deployed");
        Ok(Progress::Done { model: id.to_string(), app: app.to_string(), replicas, waits })
    }

    /// Names the other servers that have no replicas of a deployed version, if they do not start
    /// them within `patience`.
    async fn tell_of_others(
        &self,
        id: &ModelId,
        patience: Duration,
        told: &mpsc::Sender<Progress>,
    ) {
        let all_start = async {
            while self.list.servers_without(id).iter().any(|server| server.keeps_planned) {
                tokio::time::sleep(OTHERS_POLL).await;
            }
        };
        let late = tokio::time::timeout(patience, all_start).await.is_err();
        for OtherServer { place, keeps_planned, .. } in self.list.servers_without(id) {
            let why = match (keeps_planned, late) {
                (false, _) => "its management.deploy is \"off\": start containers for it",
                (true, true) => "its log says why; the paths must lead to the same files there",
                (true, false) => continue,
            };
            let text = format!("the server at {place} has no replicas of {id}: {why}");
            tell(told, Progress::Warning { text });
        }
    }

    /// Starts the trial. That goes on where nobody waits any more: a guard ends what has begun.
    async fn start(&self, deployment: &Deployment) -> Result<(TrialGuard, Trial), Failed> {
        let id = deployment.model.id.clone();
        let start = StartTrial {
            id: id.clone(),
            input_type: deployment.model.input_type,
            replicas: deployment.replicas.clone(),
            lines_max: self.config.deploy_output_lines_max,
        };
        let pool = self.pool.clone();
        let restarted = || failed("the container pool is being restarted");
        let starting = actix::spawn(async move {
            let trial = pool.send(start).await.map_err(|_| restarted())?;
            let trial = trial.map_err(|refused| failed(refused.to_string()))?;
            Ok((TrialGuard { pool, id: Some(id) }, trial))
        });
        starting.await.unwrap_or_else(|_| Err(restarted()))
    }

    /// Makes the change. It goes on, and ends the trial where it fails, if nobody waits any more.
    async fn register(
        &self,
        (deployment, author): (Deployment, Author),
        curve: LatencyCurve,
        guard: TrialGuard,
    ) -> Result<(), Failed> {
        let (writer, plane) = (Arc::clone(&self.writer), Arc::clone(&self.plane));
        let change = actix::spawn(async move {
            let id = deployment.model.id.clone();
            // Where its replicas start from when it is registered.
            plane.curves.keep(curve.is_known().then(|| (id.clone(), curve)));
            let command = Command::Deploy(Box::new(deployment));
            match writer.execute(command, author).await {
                Ok(()) => {
                    guard.release();
                    Ok(())
                }
                Err(error) => {
                    plane.curves.take(&id);
                    guard.end().await;
                    Err(failed(error.to_string()))
                }
            }
        });
        let ended = |_| failed("the change was not acknowledged (it may still be written)");
        change.await.map_err(ended)?
    }
}
