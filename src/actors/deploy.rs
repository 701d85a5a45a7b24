//! Deploys a model version in one step: tries one replica out, and only then changes anything.
//!
//! ```text
//! StartTrial -> connected? -> answers one input, then a batch? -> GrowTrial -> all connected?
//!      \__________ else EndTrial: nothing is left __________/         |
//!                                                     Command::Deploy (one change)
//! ```
//!
//! Queries go to a version when all its replicas are there: a new version is not to drown in what
//! those of the old one took.
//!
//! Whoever stops waiting (its future is dropped) ends the trial, unless the change is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::container::Container;
use super::container_pool::ContainerPool;
use super::data_plane::DataPlane;
use super::kept::Kept;
use super::messages::RunBatch;
use super::trial::{EndTrial, GrowTrial, StartTrial, Trial, TrialState};
use crate::config::ManagementConfig;
use crate::store::event::Origin;
use crate::store::{CatalogView, ChangeError, SharedWriter};
use clipper_clock::{self as clock, Instant};
use clipper_domain::{Command, Deployment, Input, ModelId};
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::{Answer, Ticket};

/// The serial of what is tried out in cache keys; registrations count from 1.
const TRIAL_SERIAL: u64 = 0;

/// What to deploy and how to try it out.
#[derive(Debug)]
pub struct DeployRequest {
    /// What is registered if it works.
    pub deployment: Deployment,
    /// What one replica has to answer: each list is one batch.
    pub batches: Vec<Vec<Input>>,
    /// For the whole of it.
    pub timeout: Duration,
}

/// How far a deployment is; one line of JSON each.
#[derive(Debug, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Progress {
    /// One process runs.
    Started {
        /// What it is to serve.
        model: String,
    },
    /// It has connected.
    Connected {
        /// Since the start, milliseconds.
        after_ms: u64,
    },
    /// It has answered.
    Answered {
        /// Its first output.
        output: Box<RawValue>,
        /// Queries answered.
        queries: usize,
        /// The last batch took so long, milliseconds.
        batch_ms: f64,
    },
    /// Replicas come.
    Replicas {
        /// Connected.
        connected: usize,
        /// Asked for.
        wanted: u32,
    },
    /// Model, replicas and link are durable, and queries go to the version.
    Registered,
    /// Something takes its time.
    Waiting,
    /// The last line: it is served.
    Done {
        /// What.
        model: String,
        /// By which application it is queried.
        app: String,
        /// Its replicas; all are connected.
        replicas: u32,
    },
    /// The last line: nothing has changed.
    Failed(Failed),
}

/// Why a deployment did not happen.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// In a sentence.
    pub cause: String,
    /// The last lines that the container has written.
    pub output: Vec<String>,
}

impl Failed {
    fn before(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), output: Vec::new() }
    }
}

/// Carries deployments out. Shared by all threads.
pub struct Deployer {
    /// The data plane.
    pub plane: Arc<DataPlane>,
    /// Who starts processes.
    pub pool: Kept<ContainerPool>,
    /// Who changes metadata.
    pub writer: SharedWriter,
    /// The metadata.
    pub view: CatalogView,
    /// Limits.
    pub config: ManagementConfig,
    /// Deployments under way.
    pub running: AtomicUsize,
}

/// A place among the deployments under way.
struct Place<'d>(&'d AtomicUsize);

impl Drop for Place<'_> {
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
            Err(failed) => {
                info!(model = %id, "not deployed: {}", failed.cause);
                Progress::Failed(failed)
            }
        }
    }

    async fn run(
        &self,
        request: DeployRequest,
        told: &mpsc::Sender<Progress>,
    ) -> Result<Progress, Failed> {
        let max = self.config.deploys_max;
        let _place = Place(&self.running);
        if self.running.fetch_add(1, Ordering::Relaxed) >= max {
            let text = format!("{max} deployments are under way already (management.deploys_max)");
            return Err(Failed::before(text));
        }
        let started = clock::now();
        let (guard, mut trial) = self.start(&request.deployment).await?;
        let id = &request.deployment.model.id;
        tell(told, Progress::Started { model: id.to_string() });
        let mut phase = Phase::Connecting;
        let tried = self.try_out(&request, &mut trial.state, &mut phase, started, told);
        let tried = match tokio::time::timeout(request.timeout, tried).await {
            Ok(tried) => tried,
            Err(_) => Err(phase.late(id, request.timeout)),
        };
        self.plane.cache.retire(TRIAL_SERIAL);
        if let Err(mut cause) = tried {
            let output = trial.output();
            if let Some(last) = output.last().filter(|_| trial.state.borrow().exited.is_some()) {
                cause = format!("{cause}: {}", last.trim());
            }
            guard.end().await;
            return Err(Failed { cause, output });
        }
        let Deployment { model, replicas, app, .. } = &request.deployment;
        let (id, app, replicas) = (model.id.clone(), app.clone(), replicas.count);
        self.register(request.deployment, guard).await?;
        tell(told, Progress::Registered);
        info!(model = %id, %app, replicas, "deployed");
        Ok(Progress::Done { model: id.to_string(), app: app.to_string(), replicas })
    }

    async fn start(&self, deployment: &Deployment) -> Result<(TrialGuard, Trial), Failed> {
        let id = deployment.model.id.clone();
        let start = StartTrial {
            id: id.clone(),
            input_type: deployment.model.input_type,
            replicas: deployment.replicas.clone(),
            lines_max: self.config.deploy_output_lines_max,
        };
        let trial = self.pool.send(start).await;
        let trial = trial.map_err(|_| Failed::before("the container pool is being restarted"))?;
        let trial = trial.map_err(Failed::before)?;
        Ok((TrialGuard { pool: self.pool.clone(), id: Some(id) }, trial))
    }

    /// One replica connects and answers every batch.
    async fn try_out(
        &self,
        request: &DeployRequest,
        state: &mut watch::Receiver<TrialState>,
        phase: &mut Phase,
        started: Instant,
        told: &mpsc::Sender<Progress>,
    ) -> Result<(), String> {
        let container = connected(state).await?;
        let after_ms = u64::try_from((clock::now() - started).as_millis()).unwrap_or(u64::MAX);
        tell(told, Progress::Connected { after_ms });
        *phase = Phase::Answering;
        let (mut first, mut queries, mut batch_time) = (None, 0, Duration::ZERO);
        for batch in &request.batches {
            let sent = clock::now();
            let answers = tokio::select! {
                biased;
                answers = self.ask(&container, batch, sent + request.timeout) => answers?,
                why = ended(state) => return Err(why),
            };
            batch_time = clock::now() - sent;
            queries += answers.len();
            for answer in answers {
                let output = judge(answer)?;
                first.get_or_insert(output);
            }
        }
        let output = first.as_ref().map_or(&b"null"[..], Output::json);
        let output = serde_json::from_slice(output).map_err(|error| error.to_string())?;
        let batch_ms = batch_time.as_secs_f64() * 1e3;
        tell(told, Progress::Answered { output, queries, batch_ms });
        *phase = Phase::Growing;
        self.grow(&request.deployment, state, told).await
    }

    /// All replicas connect.
    async fn grow(
        &self,
        deployment: &Deployment,
        state: &mut watch::Receiver<TrialState>,
        told: &mpsc::Sender<Progress>,
    ) -> Result<(), String> {
        let wanted = deployment.replicas.count;
        let grown = self.pool.send(GrowTrial(deployment.model.id.clone())).await;
        grown.map_err(|_| pool_ended())?;
        loop {
            let connected = {
                let state = state.borrow_and_update();
                if state.has_failed() {
                    return Err(format!("another replica did not come up: {}", failure(&state)));
                }
                state.connected.len()
            };
            tell(told, Progress::Replicas { connected, wanted });
            if u32::try_from(connected).is_ok_and(|connected| connected >= wanted) {
                return Ok(());
            }
            state.changed().await.map_err(|_| pool_ended())?;
        }
    }

    /// Sends one batch to the container, past all queues; its replica is not attached to any.
    async fn ask(
        &self,
        container: &Addr<Container>,
        batch: &[Input],
        deadline: Instant,
    ) -> Result<SmallVec<[Answer; 1]>, String> {
        let ticket = Ticket::new(batch.len(), self.plane.query_ids(batch.len()));
        let flights: Vec<Arc<Flight>> = batch
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let key = self.plane.cache.key(TRIAL_SERIAL, input.clone());
                let waiter = Waiter { slot: ticket.slot(index), deadline };
                Flight::new(key, clock::now(), waiter)
            })
            .filter(|flight| flight.start())
            .collect();
        let sent = container.send(RunBatch { flights: flights.into() }).await;
        sent.map_err(|_| "the container's connection ended".to_owned())?;
        ticket.filled().await;
        Ok(ticket.close())
    }

    /// Makes the change. It goes on, and ends the trial where it fails, if nobody waits any more.
    async fn register(&self, deployment: Deployment, guard: TrialGuard) -> Result<(), Failed> {
        let writer = Arc::clone(&self.writer);
        let change = actix::spawn(async move {
            let command = Command::Deploy(Box::new(deployment));
            match writer.execute(command, Origin::Admin).await {
                Ok(()) => {
                    guard.release();
                    Ok(())
                }
                Err(error) => {
                    guard.end().await;
                    Err(Failed::before(error.to_string()))
                }
            }
        });
        let ended = |_| Failed::before("the change was not acknowledged (it may still be written)");
        change.await.map_err(ended)?
    }
}

/// What a trial is waited for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Connecting,
    Answering,
    Growing,
}

impl Phase {
    fn late(self, id: &ModelId, limit: Duration) -> String {
        match self {
            Self::Connecting => format!(
                "no container connected as {id} within {limit:?}, though its process runs; does it \
                 connect to CLIPPER_IP and CLIPPER_PORT under that name and version?"
            ),
            Self::Answering => {
                format!("the container connected and did not answer a trial query within {limit:?}")
            }
            Self::Growing => format!(
                "one replica answers, but not all of those asked for have connected within \
                 {limit:?}"
            ),
        }
    }
}

/// Whoever listens has missed nothing that it cannot do without.
fn tell(told: &mpsc::Sender<Progress>, progress: Progress) {
    let _ = told.try_send(progress);
}

/// The trial's connection, or why there will be none.
async fn connected(state: &mut watch::Receiver<TrialState>) -> Result<Addr<Container>, String> {
    let over = |state: &TrialState| !state.connected.is_empty() || state.has_failed();
    let state = state.wait_for(over).await.map_err(|_| pool_ended())?;
    match (&*state, state.connected.first()) {
        (_, Some((_, container))) => Ok(container.clone()),
        (TrialState { exited: Some(how), .. }, None) => {
            Err(format!("the container ended before it connected ({how})"))
        }
        (state, None) => Err(format!("the container's connection was refused: {}", failure(state))),
    }
}

/// Why a connected trial cannot answer any more.
async fn ended(state: &mut watch::Receiver<TrialState>) -> String {
    if state.wait_for(TrialState::has_failed).await.is_err() {
        return pool_ended();
    }
    // A process that ends takes its connection with it: how it ended says more, if soon known.
    let exited = state.wait_for(|state| state.exited.is_some());
    let known = tokio::time::timeout(EXIT_WAIT, exited).await.is_ok();
    let state = state.borrow();
    match &state.exited {
        Some(how) if known => format!("the container ended on a trial query ({how})"),
        _ => format!("the container failed on a trial query: {}", failure(&state)),
    }
}

/// What went wrong, the process's end first.
fn failure(state: &TrialState) -> &str {
    let why = state.exited.as_deref().or(state.dropped.as_deref());
    why.unwrap_or("the connection was closed")
}

/// A connection that ended and its process's end are told by different roads.
const EXIT_WAIT: Duration = Duration::from_secs(1);

fn pool_ended() -> String {
    "the container pool ended; try again".to_owned()
}

/// Whether an answer to a trial query is a prediction.
fn judge(answer: Answer) -> Result<Output, String> {
    match answer {
        Answer::Default(reason) => Err(format!("the model failed on a trial query: {reason}")),
        Answer::Output(output) => match error_in(&output) {
            Some(why) => Err(format!("the model failed on a trial query: {why}")),
            None => Ok(output),
        },
    }
}

/// The text of an output that stands for an error: `{"error": TEXT}`, with a `type` at most.
fn error_in(output: &Output) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ErrorOutput {
        error: String,
        #[serde(default, rename = "type")]
        kind: Option<String>,
    }
    let ErrorOutput { error, kind } = serde_json::from_slice(output.json()).ok()?;
    Some(match kind {
        Some(kind) if !error.starts_with(&kind) => format!("{kind}: {error}"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Result<Output, String> {
        judge(Answer::Output(Output::from_text(text.as_bytes()).unwrap()))
    }

    #[test]
    fn an_output_that_stands_for_an_error_is_no_prediction() {
        assert!(judged("7").is_ok());
        assert!(judged(r#"{"error": 0.25, "score": 1}"#).is_ok());
        assert!(judged(r#"{"error": "text", "score": 1}"#).is_ok());
        let failed = judged(r#"{"error": "3 features expected"}"#).unwrap_err();
        assert_eq!(failed, "the model failed on a trial query: 3 features expected");
        let failed = judged(r#"{"error": "bad", "type": "ValueError"}"#).unwrap_err();
        assert!(failed.ends_with("ValueError: bad"), "{failed}");
    }
}
