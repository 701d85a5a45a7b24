//! The child processes of `[model.container]`: started, watched, started again, stopped.
//!
//! A child's stdin is a pipe that it watches: when the server ends, by whatever cause, the pipe
//! closes and the child exits. Its output lines become log lines with its name.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tracing::{error, info, warn};

use super::container_pool::ContainerPool;
use super::supervisor::{RestartBudget, Verdict};
use super::trial::{StartTrial, Trial, TrialLink};
use crate::actors::launch::{Launch, Launcher};
use crate::config::ContainersConfig;
use crate::metrics::Metrics;
use clipper_clock as clock;
use clipper_domain::{InputType, ModelId, Replicas};

/// The last lines of a process that has ended are waited for so long.
const LAST_LINES_WAIT: Duration = Duration::from_millis(500);

/// What to start for one model version, and how many of it.
#[derive(Debug, Clone)]
pub struct ChildPlan {
    /// How.
    pub launch: Launch,
    /// How many.
    pub replicas: u32,
}

/// End all children and start none. Sender: the composition root. Reply: they have ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopChildren;

/// All child processes of the server.
pub struct Children {
    config: ContainersConfig,
    metrics: Arc<Metrics>,
    plans: HashMap<ModelId, ChildPlan>,
    launcher: Launcher,
    running: HashMap<ModelId, Vec<Keeper>>,
    /// Processes of versions that are not registered.
    trials: HashMap<ModelId, TriedOut>,
}

/// The processes of a version that is tried out, and how to start more of them.
struct TriedOut {
    link: Arc<TrialLink>,
    plan: ChildPlan,
    keepers: Vec<Keeper>,
}

/// One replica's process is kept alive until `stop` is raised; its receiver is dropped when the
/// process is gone.
struct Keeper {
    stop: watch::Sender<bool>,
}

impl Children {
    /// Plans; nothing runs before its model is registered.
    #[must_use]
    pub fn new(
        config: ContainersConfig,
        metrics: Arc<Metrics>,
        plans: HashMap<ModelId, ChildPlan>,
        launcher: Launcher,
    ) -> Self {
        let (running, trials) = (HashMap::new(), HashMap::new());
        Self { config, metrics, plans, launcher, running, trials }
    }

    /// Starts the processes of a model version, if it has a plan and they do not run yet.
    pub fn start(&mut self, id: &ModelId, ctx: &mut Context<ContainerPool>) {
        let Some(plan) = self.plans.get(id) else { return };
        if self.running.contains_key(id) {
            return;
        }
        let (launch, replicas) = (plan.launch.clone(), plan.replicas);
        let keepers = (0..replicas).map(|n| self.spawn(id, n, launch.clone(), None, ctx)).collect();
        self.running.insert(id.clone(), keepers);
    }

    fn spawn(
        &self,
        id: &ModelId,
        number: u32,
        launch: Launch,
        trial: Option<Arc<TrialLink>>,
        ctx: &mut Context<ContainerPool>,
    ) -> Keeper {
        let (stop, stopped) = watch::channel(false);
        let child = KeptChild {
            model: id.clone(),
            number,
            launch,
            config: self.config.clone(),
            metrics: Arc::clone(&self.metrics),
            trial,
        };
        ctx.spawn(actix::fut::wrap_future(child.keep(stopped)));
        Keeper { stop }
    }

    /// Starts the processes of a deployed version, if they do not run yet. Those that were
    /// tried out are the first of them.
    pub fn keep(
        &mut self,
        id: &ModelId,
        input_type: InputType,
        replicas: &Replicas,
        ctx: &mut Context<ContainerPool>,
    ) {
        if self.running.contains_key(id) {
            return;
        }
        let launch = match self.launcher.plan(id, input_type, &replicas.runtime, Path::new("/")) {
            Ok(launch) => launch,
            Err(error) => return error!(model = %id, "its replicas cannot be started: {error}"),
        };
        let mut keepers: Vec<Keeper> = Vec::new();
        if let Some(trial) = self.trials.remove(id) {
            trial.link.adopt();
            keepers.extend(trial.keepers.into_iter().filter(|keeper| !keeper.stop.is_closed()));
        }
        let started = u32::try_from(keepers.len()).unwrap_or(u32::MAX);
        for number in started..replicas.count {
            keepers.push(self.spawn(id, number, launch.clone(), None, ctx));
        }
        self.running.insert(id.clone(), keepers);
    }

    /// Starts one process of a version that is not registered.
    ///
    /// # Errors
    /// Why not.
    pub fn try_out(
        &mut self,
        start: StartTrial,
        ctx: &mut Context<ContainerPool>,
    ) -> Result<Trial, String> {
        let StartTrial { id, input_type, replicas, lines_max } = start;
        if self.trials.contains_key(&id) {
            return Err(format!("model {id} is being deployed already"));
        }
        let launch = self.launcher.plan(&id, input_type, &replicas.runtime, Path::new("/"))?;
        let (link, trial) = TrialLink::new(input_type, lines_max);
        let plan = ChildPlan { launch: launch.clone(), replicas: replicas.count };
        let keepers = vec![self.spawn(&id, 0, launch, Some(Arc::clone(&link)), ctx)];
        self.trials.insert(id, TriedOut { link, plan, keepers });
        Ok(trial)
    }

    /// Starts the other processes of a version that is tried out.
    pub fn grow_trial(&mut self, id: &ModelId, ctx: &mut Context<ContainerPool>) {
        let Some(mut trial) = self.trials.remove(id) else { return };
        for number in 1..trial.plan.replicas {
            let (launch, link) = (trial.plan.launch.clone(), Arc::clone(&trial.link));
            trial.keepers.push(self.spawn(id, number, launch, Some(link), ctx));
        }
        self.trials.insert(id.clone(), trial);
    }

    /// The trial of a version.
    pub(super) fn trial(&self, id: &ModelId) -> Option<&TrialLink> {
        self.trials.get(id).map(|trial| &*trial.link)
    }

    /// Stops the processes that are tried out, if any; done when they have ended.
    pub fn end_trial(&mut self, id: &ModelId) -> impl Future<Output = ()> + use<> {
        let trial = self.trials.remove(id);
        end_all(trial.map_or_else(Vec::new, |trial| trial.keepers))
    }

    /// Stops the processes of a model version.
    pub fn stop(&mut self, id: &ModelId) {
        for keeper in self.running.remove(id).into_iter().flatten() {
            keeper.stop.send_replace(true);
        }
    }

    /// Stops all; done when they have ended.
    pub fn stop_all(&mut self) -> impl Future<Output = ()> + use<> {
        let trials = self.trials.drain().flat_map(|(_, trial)| trial.keepers);
        let running = self.running.drain().flat_map(|(_, keepers)| keepers);
        let keepers: Vec<Keeper> = running.chain(trials).collect();
        end_all(keepers)
    }
}

async fn end_all(keepers: Vec<Keeper>) {
    for keeper in &keepers {
        keeper.stop.send_replace(true);
    }
    for keeper in &keepers {
        keeper.stop.closed().await;
    }
}

/// One replica's process and everything it takes to start it again.
struct KeptChild {
    model: ModelId,
    number: u32,
    launch: Launch,
    config: ContainersConfig,
    metrics: Arc<Metrics>,
    /// It is tried out: until it is adopted its end is final.
    trial: Option<Arc<TrialLink>>,
}

impl KeptChild {
    /// Keeps one process alive until told to stop. Returns when it is gone.
    async fn keep(self, mut stop: watch::Receiver<bool>) {
        let mut budget = RestartBudget::new(&self.config);
        loop {
            budget.started(clock::now());
            let why = match self.spawn() {
                Ok((mut child, output)) => {
                    // Waiting for a child closes its stdin, unless somebody else holds it.
                    let lifeline = child.stdin.take();
                    self.metrics.child_started(&self.model);
                    info!(
                        model = %self.model,
                        child = self.number,
                        pid = child.id(),
                        "container process started"
                    );
                    tokio::select! {
                        ended = child.wait() => {
                            self.hear_out(output).await;
                            describe(ended)
                        }
                        _ = stop.wait_for(|stop| *stop) => {
                            drop(lifeline);
                            return self.end(child).await;
                        }
                    }
                }
                Err(error) => format!("it cannot be started: {error}"),
            };
            if let Some(trial) = self.trial.as_ref().filter(|trial| !trial.is_adopted()) {
                return trial.exited(why);
            }
            match budget.died(clock::now()) {
                Verdict::GiveUp => {
                    error!(
                        model = %self.model,
                        child = self.number,
                        "container process ended too often and is given up \
                         (containers.restart_budget = {}); last: {why}",
                        self.config.restart_budget
                    );
                    // The pipe of waiters must stay until the server stops.
                    let _ = stop.wait_for(|stop| *stop).await;
                    return;
                }
                Verdict::RestartAfter(pause) => {
                    warn!(model = %self.model, child = self.number, ?pause,
                        "container process ended and is started again: {why}");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }
        }
    }

    /// Starts the process; the tasks end when what it wrote has been read.
    fn spawn(&self) -> io::Result<(Child, Vec<JoinHandle<()>>)> {
        let mut child = Command::new(&self.launch.program)
            .args(&self.launch.args)
            .envs(self.launch.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut output = Vec::new();
        output.extend(child.stdout.take().map(|stdout| self.capture(stdout)));
        output.extend(child.stderr.take().map(|stderr| self.capture(stderr)));
        Ok((child, output))
    }

    /// Waits for the last lines of a trial that ended: they say why.
    async fn hear_out(&self, output: Vec<JoinHandle<()>>) {
        if self.trial.is_some() {
            let all = futures_util::future::join_all(output);
            // Somebody else may hold the pipe open.
            let _ = tokio::time::timeout(LAST_LINES_WAIT, all).await;
        }
    }

    /// Turns the child's lines into log lines; overlong ones are cut.
    fn capture(&self, output: impl AsyncRead + Unpin + 'static) -> JoinHandle<()> {
        let lines = LinesCodec::new_with_max_length(self.config.output_line_max_bytes);
        let mut lines = FramedRead::new(output, lines);
        let (model, child, trial) = (self.model.clone(), self.number, self.trial.clone());
        actix::spawn(async move {
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) => {
                        info!(target: "container", %model, child, "{line}");
                        if let Some(trial) = &trial {
                            trial.heard(&line);
                        }
                    }
                    Err(LinesCodecError::MaxLineLengthExceeded) => {
                        warn!(target: "container", %model, child, "(an overlong line was cut)");
                    }
                    // Not UTF-8, or the pipe broke; the child's end is reported by `keep`.
                    Err(LinesCodecError::Io(error))
                        if error.kind() == io::ErrorKind::InvalidData =>
                    {
                        warn!(target: "container", %model, child, "(a line that is not UTF-8)");
                    }
                    Err(LinesCodecError::Io(_)) => return,
                }
            }
        })
    }

    /// SIGTERM, then SIGKILL after the grace.
    async fn end(&self, mut child: Child) {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        {
            warn!(model = %self.model, child = self.number, %error, "cannot be told to stop");
        }
        let grace = Duration::from_millis(self.config.stop_grace_ms);
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            warn!(model = %self.model, child = self.number, ?grace, "did not stop in time: killed");
            if let Err(error) = child.kill().await {
                error!(model = %self.model, child = self.number, %error, "cannot be killed");
            }
        }
    }
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end is unknown: {error}"),
    }
}
