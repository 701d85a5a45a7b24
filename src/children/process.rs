//! One child process: its start, its output, its end with everything that descends from it.

use std::collections::HashSet;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clipper_container::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use parking_lot::Mutex;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tracing::{debug, error, warn};

use super::environment;
use super::keys::{self, ChildKey};
use super::launch::Launch;
use clipper_config::ContainersConfig;
use clipper_priority::make_group_nicer;

/// The children that run, so that what others have left behind can be told from them.
#[derive(Debug, Clone, Default)]
pub(super) struct Alive(Arc<Mutex<HashSet<Pid>>>);

impl Alive {
    /// The children of this process that none of its own children is: a wrapper was killed, and
    /// what it was to end came here.
    fn orphans(&self) -> Vec<processes::Process> {
        let own = getpid();
        let alive = self.0.lock();
        let mut table = processes::all();
        table.retain(|process| process.parent == own && !alive.contains(&process.pid));
        drop(alive);
        table.retain(|orphan| orphan.is_zombie || is_replicas(orphan.pid));
        table
    }
}

/// Whether a replica has started this process: in a container of the operating system, others'
/// orphans come to the first process too.
fn is_replicas(pid: Pid) -> bool {
    let name = clipper_container::lifeline::VARIABLE.as_bytes();
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|variables| variables.split(|byte| *byte == 0).any(|v| v.starts_with(name)))
}

/// A running child. Dropping it ends it by its lifeline.
pub(super) struct Process {
    child: Child,
    pid: Option<Pid>,
    alive: Alive,
    /// Its stdin: closed, it tells the child that the server is gone.
    lifeline: Option<ChildStdin>,
    /// By which it is known to the port for containers, as long as it runs.
    _key: Option<ChildKey>,
}

impl Process {
    /// Starts it, as leader of a group of its own.
    pub(super) fn spawn(
        launch: &Launch,
        number: u32,
        config: &ContainersConfig,
        alive: &Alive,
        key: Option<ChildKey>,
    ) -> io::Result<(Self, Option<ChildStdout>, Option<ChildStderr>)> {
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .env_clear()
            .envs(environment::passed_on(std::env::vars_os(), &config.pass_environment))
            .envs(launch.env.iter().map(|(key, value)| (key, value)))
            .env(environment::REPLICA, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(key) = &key {
            command.env(keys::NAME_VARIABLE, keys::NAME).env(keys::SECRET_VARIABLE, &key.secret);
        }
        // Not to be seen as an orphan between its start and its entry.
        let mut running = alive.0.lock();
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        running.extend(pid);
        drop(running);
        if let Some(group) = pid
            && let Err(error) = make_group_nicer(group.as_raw(), config.niceness.into())
        {
            debug!(%group, %error, "a container process stays as nice as the server");
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // Waiting for a child closes its stdin, unless somebody else holds it.
        let lifeline = child.stdin.take();
        Ok((Self { child, pid, alive: alive.clone(), lifeline, _key: key }, stdout, stderr))
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Waits for its end, and ends what it leaves behind.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.clear_up().await;
        status
    }

    /// SIGTERM, then SIGKILL after the grace, to everything that descends from it.
    pub(super) async fn end(mut self, grace: Duration) {
        let Some(pid) = self.pid else { return };
        self.lifeline = None;
        if let Err(error) = kill(pid, Signal::SIGTERM) {
            debug!(%pid, %error, "cannot be told to stop");
        }
        // Only itself, if it is the wrapper of a program: that tells the program.
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            warn!(%pid, ?grace, "a container process did not stop in time: killed");
            processes::signal_tree(pid, pid, Signal::SIGKILL);
            if let Err(error) = self.child.kill().await {
                error!(%pid, %error, "a container process cannot be killed");
            }
        }
        self.clear_up().await;
    }

    /// Kills what is left of its group and of what came to this process by its death.
    async fn clear_up(&mut self) {
        let Some(pid) = self.pid.take() else { return };
        processes::signal_group(pid, Signal::SIGKILL);
        self.alive.0.lock().remove(&pid);
        let alive = self.alive.clone();
        processes::kill_all(|| alive.orphans()).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Still running: whoever kept it is gone.
        if let Some(pid) = self.pid {
            self.alive.0.lock().remove(&pid);
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}
