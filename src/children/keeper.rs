//! Keeps one replica's process alive until it is told to stop.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_domain::ModelId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::capture::Capture;
use super::keys::ChildKeys;
use super::launch::Launch;
use super::probation::Probation;
use super::process::{Alive, Process};
use super::seat::{Seat, SeatState};
use super::seen::Child;
use super::turns::{StartTurn, Turns};
use crate::metrics::Metrics;
use crate::supervision::budget::{RestartBudget, Verdict};
use crate::supervision::supervised::{LifeEnd, Rested, Supervised, supervise};
use clipper_config::ContainersConfig;

/// The last lines of a process that has ended are waited for so long.
const LAST_LINES_WAIT: Duration = Duration::from_millis(500);

/// One replica's process and everything it takes to start it again.
pub(super) struct Keeper {
    pub(super) model: ModelId,
    pub(super) number: u32,
    pub(super) launch: Launch,
    pub(super) config: Arc<ContainersConfig>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) alive: Alive,
    pub(super) turns: Turns,
    pub(super) keys: ChildKeys,
    pub(super) seat: Arc<Seat>,
    pub(super) seen: Arc<Child>,
    /// It is tried out: until it is adopted its end is final.
    pub(super) trial: Option<Arc<dyn Probation>>,
}

/// How one process came to its end.
enum ProcessEnd {
    /// As it was told to; none is to take its place.
    Stopped,
    /// Another one is to take its place.
    Why(String),
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.seat.over();
    }
}

impl Keeper {
    /// Returns when the process is gone and none is to take its place.
    pub(super) async fn keep(self) {
        let budget = RestartBudget::for_process(&self.config);
        let state = self.seat.watch();
        supervise(KeptProcess { keeper: self, state, why: String::new() }, budget).await;
    }

    async fn run_once(&self, state: &mut watch::Receiver<SeatState>) -> ProcessEnd {
        let Some(turn) = self.turn(state).await else { return ProcessEnd::Stopped };
        let key = self.keys.issue(&self.model);
        let spawned = Process::spawn(&self.launch, self.number, &self.config, &self.alive, key);
        let (mut process, stdout, stderr) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                self.seat.started(None);
                return ProcessEnd::Why(format!("it cannot be started: {error}"));
            }
        };
        let pid = process.pid();
        self.seat.started(pid);
        turn.last_until_served(&self.seat);
        self.metrics.child_started(&self.model);
        info!(model = %self.model, child = self.number, pid = pid.map(i32::from),
            "container process started");
        let mut output = Vec::new();
        output.extend(stdout.map(|stdout| actix::spawn(self.capture().run(stdout))));
        output.extend(stderr.map(|stderr| actix::spawn(self.capture().run(stderr))));
        let order = tokio::select! {
            status = process.ended() => ProcessEnd::Why(describe(status)),
            order = self.order(state) => {
                if let ProcessEnd::Why(why) = &order {
                    warn!(model = %self.model, child = self.number,
                        "container process is ended: {why}");
                }
                process.end(Duration::from_millis(self.config.stop_grace_ms)).await;
                order
            }
        };
        hear_out(output).await;
        order
    }

    /// Waits until it may start. `None`: it is not wanted any more.
    async fn turn(&self, state: &mut watch::Receiver<SeatState>) -> Option<StartTurn> {
        tokio::select! {
            turn = self.turns.wait() => turn,
            _ = state.wait_for(SeatState::is_stopping) => None,
        }
    }

    fn capture(&self) -> Capture {
        Capture {
            model: self.model.clone(),
            number: self.number,
            line_max_bytes: self.config.output_line_max_bytes,
            lines_per_second: self.config.output_lines_per_second_max,
            seen: Arc::clone(&self.seen),
            trial: self.trial.clone(),
        }
    }

    /// Waits until this process has to end although it runs.
    async fn order(&self, state: &mut watch::Receiver<SeatState>) -> ProcessEnd {
        let patience = Duration::from_millis(self.config.connect_timeout_ms);
        let mut lonely_since = Some(clock::now());
        loop {
            let current = state.borrow_and_update().clone();
            if current.is_stopping() {
                return ProcessEnd::Stopped;
            }
            if let Some((process, why)) = current.replace
                && process == current.process
            {
                return ProcessEnd::Why(why.to_string());
            }
            // A deployment has a limit of its own for its trial.
            let on_trial = self.trial.as_ref().is_some_and(|trial| !trial.is_adopted());
            let is_lonely = current.connections == 0 && !on_trial;
            lonely_since = is_lonely.then(|| lonely_since.unwrap_or_else(clock::now));
            let lonely_too_long: Option<Instant> = lonely_since.map(|since| since + patience);
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        return ProcessEnd::Stopped;
                    }
                }
                () = until(lonely_too_long) => {
                    let served = current.has_served;
                    let what = if served { "has had no connection" } else { "has not connected" };
                    return ProcessEnd::Why(format!(
                        "it {what} for {patience:?} (containers.connect_timeout_ms)"
                    ));
                }
            }
        }
    }
}

/// A process as its supervision sees it.
struct KeptProcess {
    keeper: Keeper,
    state: watch::Receiver<SeatState>,
    /// Why the last one has ended.
    why: String,
}

impl Supervised for KeptProcess {
    async fn live(&mut self) -> LifeEnd {
        let keeper = &self.keeper;
        let ProcessEnd::Why(why) = keeper.run_once(&mut self.state).await else {
            return LifeEnd::Unwanted;
        };
        let has_served = keeper.seat.state().has_served;
        keeper.seat.ended();
        keeper.seen.ended(&why, has_served);
        if let Some(trial) = keeper.trial.as_ref().filter(|trial| !trial.is_adopted()) {
            trial.exited(why);
            return LifeEnd::Unwanted;
        }
        self.why = why;
        LifeEnd::Died { has_served }
    }

    fn died(&mut self, verdict: Verdict) {
        let (Keeper { model, number: child, config, .. }, why) = (&self.keeper, &self.why);
        let budget = config.restart_budget;
        match verdict {
            Verdict::Restart { pause, failing: None } => {
                warn!(%model, child, ?pause, "container process ended and is started again: {why}");
            }
            Verdict::Restart { pause, failing: Some(failed) } => error!(
                %model, child, ?pause,
                "container process has failed to start {failed} times in a row and is tried rarely \
                 from now on (containers.restart_budget = {budget}); `clipper admin replicas \
                 restart` tries at once; last: {why}"
            ),
            Verdict::GiveUp => error!(%model, child, "container process is given up: {why}"),
        }
    }

    async fn rest(&mut self, pause: Duration) -> Rested {
        let hurried = self.state.wait_for(|state| state.is_stopping() || state.forgiven);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = hurried => {}
        }
        let is_forgiven = self.keeper.seat.take_forgiven();
        if self.keeper.seat.state().is_stopping() {
            Rested::Unwanted
        } else if is_forgiven {
            Rested::Forgiven
        } else {
            Rested::Enough
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits for the last lines: they say why. Then nobody can be writing any more but who has left
/// the process's group and family.
async fn hear_out(output: Vec<JoinHandle<()>>) {
    let all = futures_util::future::join_all(output);
    let _ = tokio::time::timeout(LAST_LINES_WAIT, all).await;
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end is unknown: {error}"),
    }
}
