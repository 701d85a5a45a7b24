//! The trial of a deployment: does one replica connect and answer, what does it cost, do the others
//! come?

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use smallvec::SmallVec;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::deployer::Deployer;
use super::error::{Phase, TrialError};
use super::inputs::{TrialInputs, trial_batches};
use super::progress::{Progress, answered};
use super::warm_up::{Bounds, WarmUp};
use crate::actors::pool::trial::{GrowTrial, TrialState};
use crate::actors::replica::dispatch::ToReplica;
use clipper_clock::{self as clock, Instant};
use clipper_domain::{Deployment, Input, LatencySlo};
use clipper_scheduling::dispatch::BatchId;
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::latency::LatencyCurve;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::{Answer, Ticket};

/// The serial of what is tried out in cache keys; registrations count from 1.
const TRIAL_SERIAL: u64 = 0;

/// A trial under way, and who is told of it.
pub(super) struct WatchedTrial<'t> {
    pub(super) state: &'t mut watch::Receiver<TrialState>,
    pub(super) phase: &'t mut Phase,
    pub(super) told: &'t mpsc::Sender<Progress>,
}

impl Deployer {
    /// One replica connects and answers every batch.
    pub(super) async fn try_out(
        &self,
        deployment: &Deployment,
        inputs: TrialInputs,
        watched: &mut WatchedTrial<'_>,
        started: Instant,
    ) -> Result<LatencyCurve, TrialError> {
        let WatchedTrial { state, phase, told } = watched;
        let container = connected(state).await?;
        let after_ms = u64::try_from((clock::now() - started).as_millis()).unwrap_or(u64::MAX);
        let signature = state.borrow().signature.clone();
        tell(told, Progress::Connected { after_ms, signature: signature.as_deref().cloned() });
        **phase = Phase::Answering;
        let bytes_max = self.plane.rpc.message_max_bytes;
        let examples = inputs.examples(signature.as_deref(), bytes_max)?;
        let (mut first, mut queries, mut batch_time) = (None, 0, Duration::ZERO);
        let mut quickest = Duration::MAX;
        for batch in trial_batches(&examples, deployment.model.batch_size) {
            let sent = clock::now();
            let answers = self.ask_or_end(&container, &batch, state).await?;
            batch_time = clock::now() - sent;
            quickest = quickest.min(batch_time);
            queries += answers.len();
            for answer in answers {
                let output = judge(answer)?;
                first.get_or_insert(output);
            }
        }
        let step = answered(first.as_ref(), queries, batch_time);
        tell(told, step.map_err(|error| TrialError::NotJson(error.to_string()))?);
        let objective = self.objective(deployment);
        if quickest > objective {
            let text = too_slow(deployment, quickest, objective);
            warn!(model = %deployment.model.id, "{text}");
            tell(told, Progress::Warning { text });
        }
        **phase = Phase::WarmingUp;
        let output_bytes = first.as_ref().map_or(0, Output::bytes);
        let (curve, warmed) =
            self.warm_up(deployment, &examples, (&container, output_bytes), state).await?;
        if let Some(step) = warmed {
            tell(told, step);
        }
        **phase = Phase::Growing;
        self.grow(deployment, state, told).await?;
        **phase = Phase::WarmingUp;
        self.warm_up_others(&examples, &container, curve.explored, state).await?;
        Ok(curve)
    }

    /// The objective of the queries that the version is to answer.
    fn objective(&self, deployment: &Deployment) -> Duration {
        let catalog = self.view.read();
        let known = catalog.app(deployment.app.as_str()).map(|app| match &deployment.app_update {
            Some(update) => update.applied_to(app).latency_slo,
            None => app.latency_slo,
        });
        let slo = known.or(deployment.new_app.as_ref().map(|app| app.latency_slo));
        slo.map_or(Duration::MAX, LatencySlo::as_duration)
    }

    /// Batches of growing size, what they have taught, and what there is to tell of them.
    async fn warm_up(
        &self,
        deployment: &Deployment,
        examples: &[Input],
        (container, output_bytes): (&Recipient<ToReplica>, usize),
        state: &mut watch::Receiver<TrialState>,
    ) -> Result<(LatencyCurve, Option<Progress>), TrialError> {
        let model = &deployment.model;
        let input_bytes = examples.iter().map(|input| input.0.len()).max().unwrap_or(0);
        let bounds = Bounds {
            batch_size: model.batch_size,
            batch_max: self.plane.serving.batch_max,
            message_max_bytes: self.plane.rpc.message_max_bytes,
            item_bytes: input_bytes.max(output_bytes),
        };
        let mut warm_up = WarmUp::new(bounds, self.objective(deployment));
        let end = clock::now() + Duration::from_millis(self.config.deploy_warm_up_ms);
        while let Some(size) = warm_up.next(end.saturating_duration_since(clock::now())) {
            let batch = batch_of(examples, size);
            let sent = clock::now();
            let answers = self.ask_or_end(container, &batch, state).await?;
            // Trial inputs were answered, so it is the size: batches grow no further than it works.
            if answers.into_iter().any(|answer| judge(answer).is_err()) {
                info!(model = %model.id, size, "the model fails on a warm-up batch of this size");
                warm_up.stop();
            } else {
                warm_up.answered(clock::now() - sent);
            }
        }
        let curve = warm_up.curve().clone();
        let (batches, largest) = (warm_up.batches(), curve.explored);
        let told = curve.is_known().then_some(Progress::WarmedUp { batches, largest });
        Ok((curve, told))
    }

    /// What a process does at its first batch, the other replicas do before queries come too.
    async fn warm_up_others(
        &self,
        examples: &[Input],
        first: &Recipient<ToReplica>,
        size: usize,
        state: &mut watch::Receiver<TrialState>,
    ) -> Result<(), TrialError> {
        let connected = state.borrow().connected.clone();
        let others = connected.iter().map(|(_, container)| container);
        for container in others.filter(|container| *container != first && size > 0) {
            for size in [1, size] {
                let batch = batch_of(examples, size);
                self.ask_or_end(container, &batch, state).await?;
            }
        }
        Ok(())
    }

    /// As [`Self::ask`], unless a replica of the trial ends.
    async fn ask_or_end(
        &self,
        container: &Recipient<ToReplica>,
        batch: &[Input],
        state: &mut watch::Receiver<TrialState>,
    ) -> Result<SmallVec<[Answer; 1]>, TrialError> {
        tokio::select! {
            biased;
            answers = self.ask(container, batch) => answers,
            why = ended(state) => Err(why),
        }
    }

    async fn grow(
        &self,
        deployment: &Deployment,
        state: &mut watch::Receiver<TrialState>,
        told: &mpsc::Sender<Progress>,
    ) -> Result<(), TrialError> {
        let wanted = deployment.replicas.count;
        let grown = self.pool.send(GrowTrial(deployment.model.id.clone())).await;
        grown.map_err(|_| TrialError::PoolEnded)?;
        loop {
            let connected = {
                let state = state.borrow_and_update();
                if state.has_failed() {
                    return Err(TrialError::AnotherFailed(failure(&state)));
                }
                state.connected.len()
            };
            tell(told, Progress::Replicas { connected, wanted });
            if u32::try_from(connected).is_ok_and(|connected| connected >= wanted) {
                return Ok(());
            }
            state.changed().await.map_err(|_| TrialError::PoolEnded)?;
        }
    }

    /// Sends one batch to the container, past all queues; its replica is not attached to any.
    async fn ask(
        &self,
        container: &Recipient<ToReplica>,
        batch: &[Input],
    ) -> Result<SmallVec<[Answer; 1]>, TrialError> {
        let now = clock::now();
        let deadline = now + Duration::from_millis(self.config.deploy_timeout_max_ms);
        let ticket = Ticket::new(batch.len(), self.plane.query_ids(batch.len()));
        let flights: Vec<Arc<Flight>> = batch
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let key = self.plane.cache.key(TRIAL_SERIAL, input.clone());
                let waiter = Waiter { slot: ticket.slot(index), deadline };
                Flight::alone(key, now, waiter)
            })
            .collect();
        let run = ToReplica::Run { batch: BatchId(0), flights: flights.into() };
        let sent = container.send(run).await;
        sent.map_err(|_| TrialError::ConnectionEnded)?;
        ticket.filled().await;
        // Without bounds there is no excess.
        Ok(ticket.close().map(|closed| closed.answers).unwrap_or_default())
    }
}

/// So many of the examples, over and over.
fn batch_of(examples: &[Input], size: usize) -> Vec<Input> {
    examples.iter().cycle().take(size).cloned().collect()
}

fn too_slow(deployment: &Deployment, quickest: Duration, objective: Duration) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!(
        "{} took {:.1} ms for a trial query, and application '{}' has an objective of {} ms: most \
         of its answers will be the default output. Give it a longer one: \
         clipper admin apps update {} --slo-ms {:.0}",
        deployment.model.id,
        ms(quickest),
        deployment.app,
        ms(objective),
        deployment.app,
        (ms(quickest) * 3.0).ceil(),
    )
}

/// Whoever listens has missed nothing that it cannot do without.
pub(super) fn tell(told: &mpsc::Sender<Progress>, progress: Progress) {
    let _ = told.try_send(progress);
}

/// The trial's connection, or why there will be none.
async fn connected(
    state: &mut watch::Receiver<TrialState>,
) -> Result<Recipient<ToReplica>, TrialError> {
    let over = |state: &TrialState| !state.connected.is_empty() || state.has_failed();
    let state = state.wait_for(over).await.map_err(|_| TrialError::PoolEnded)?;
    match (&*state, state.connected.first()) {
        (_, Some((_, container))) => Ok(container.clone()),
        (TrialState { exited: Some(how), .. }, None) => Err(TrialError::EndedEarly(how.clone())),
        (state, None) => Err(TrialError::Refused(failure(state))),
    }
}

/// Why a connected trial cannot answer any more.
async fn ended(state: &mut watch::Receiver<TrialState>) -> TrialError {
    if state.wait_for(TrialState::has_failed).await.is_err() {
        return TrialError::PoolEnded;
    }
    // A process that ends takes its connection with it: how it ended says more, if soon known.
    let exited = state.wait_for(|state| state.exited.is_some());
    let known = tokio::time::timeout(EXIT_WAIT, exited).await.is_ok();
    let state = state.borrow();
    match &state.exited {
        Some(how) if known => TrialError::EndedOnQuery(how.clone()),
        _ => TrialError::FailedOnQuery(failure(&state)),
    }
}

/// What went wrong, the process's end first.
fn failure(state: &TrialState) -> String {
    let why = state.exited.as_deref().or(state.dropped.as_deref());
    why.unwrap_or("the connection was closed").to_owned()
}

/// A connection that ended and its process's end are told by different roads.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// Whether an answer to a trial query is a prediction.
fn judge(answer: Answer) -> Result<Output, TrialError> {
    match answer {
        Answer::Default(reason) => Err(TrialError::ModelFailed(reason.to_string())),
        // A container says of a row of tensors that it has failed.
        Answer::Output(output) if output.tensors().is_some() => Ok(output),
        Answer::Output(output) => match error_in(&output) {
            Some(why) => Err(TrialError::ModelFailed(why)),
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

    fn judged(text: &str) -> Result<Output, TrialError> {
        judge(Answer::Output(Output::from_text(text.as_bytes()).unwrap()))
    }

    #[test]
    fn an_output_that_stands_for_an_error_is_no_prediction() {
        assert!(judged("7").is_ok());
        assert!(judged(r#"{"error": 0.25, "score": 1}"#).is_ok());
        assert!(judged(r#"{"error": "text", "score": 1}"#).is_ok());
        let failed = judged(r#"{"error": "3 features expected"}"#).unwrap_err().to_string();
        assert_eq!(failed, "the model failed on a trial query: 3 features expected");
        let failed = judged(r#"{"error": "bad", "type": "ValueError"}"#).unwrap_err().to_string();
        assert!(failed.ends_with("ValueError: bad"), "{failed}");
    }
}
