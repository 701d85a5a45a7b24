//! The child processes of `[model.container]`: started, watched, started again, stopped.
//!
//! A child's stdin is a pipe that it watches: when the server ends, by whatever cause, the pipe
//! closes and the child exits. Its output lines become log lines with its name.

use std::collections::HashMap;
use std::io;
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
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tracing::{error, info, warn};

use super::container_pool::ContainerPool;
use super::supervisor::{RestartBudget, Verdict};
use crate::clock;
use crate::config::ContainersConfig;
use crate::domain::ModelId;
use crate::metrics::Metrics;
use crate::runtime::launch::Launch;

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
    running: HashMap<ModelId, Vec<Keeper>>,
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
    ) -> Self {
        Self { config, metrics, plans, running: HashMap::new() }
    }

    /// Starts the processes of a model version, if it has a plan and they do not run yet.
    pub fn start(&mut self, id: &ModelId, ctx: &mut Context<ContainerPool>) {
        let Some(plan) = self.plans.get(id) else { return };
        if self.running.contains_key(id) {
            return;
        }
        let keepers = (0..plan.replicas).map(|number| {
            let (stop, stopped) = watch::channel(false);
            let child = KeptChild {
                model: id.clone(),
                number,
                launch: plan.launch.clone(),
                config: self.config.clone(),
                metrics: Arc::clone(&self.metrics),
            };
            ctx.spawn(actix::fut::wrap_future(child.keep(stopped)));
            Keeper { stop }
        });
        let keepers = keepers.collect();
        self.running.insert(id.clone(), keepers);
    }

    /// Stops the processes of a model version.
    pub fn stop(&mut self, id: &ModelId) {
        for keeper in self.running.remove(id).into_iter().flatten() {
            keeper.stop.send_replace(true);
        }
    }

    /// Stops all; done when they have ended.
    pub fn stop_all(&mut self) -> impl Future<Output = ()> + use<> {
        let keepers: Vec<Keeper> = self.running.drain().flat_map(|(_, keepers)| keepers).collect();
        async move {
            for keeper in &keepers {
                keeper.stop.send_replace(true);
            }
            for keeper in &keepers {
                keeper.stop.closed().await;
            }
        }
    }
}

/// One replica's process and everything it takes to start it again.
struct KeptChild {
    model: ModelId,
    number: u32,
    launch: Launch,
    config: ContainersConfig,
    metrics: Arc<Metrics>,
}

impl KeptChild {
    /// Keeps one process alive until told to stop. Returns when it is gone.
    async fn keep(self, mut stop: watch::Receiver<bool>) {
        let mut budget = RestartBudget::new(&self.config);
        loop {
            budget.started(clock::now());
            let why = match self.spawn() {
                Ok(mut child) => {
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
                        ended = child.wait() => describe(ended),
                        _ = stop.wait_for(|stop| *stop) => {
                            drop(lifeline);
                            return self.end(child).await;
                        }
                    }
                }
                Err(error) => format!("it cannot be started: {error}"),
            };
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

    fn spawn(&self) -> io::Result<Child> {
        let mut child = Command::new(&self.launch.program)
            .args(&self.launch.args)
            .envs(self.launch.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(stdout) = child.stdout.take() {
            self.capture(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            self.capture(stderr);
        }
        Ok(child)
    }

    /// Turns the child's lines into log lines; overlong ones are cut.
    fn capture(&self, output: impl AsyncRead + Unpin + 'static) {
        let lines = LinesCodec::new_with_max_length(self.config.output_line_max_bytes);
        let mut lines = FramedRead::new(output, lines);
        let (model, child) = (self.model.clone(), self.number);
        actix::spawn(async move {
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) => info!(target: "container", %model, child, "{line}"),
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
        });
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
