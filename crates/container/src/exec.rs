//! Runs any program as a container: in a process group of its own, which ends with the server,
//! together with everything else that descends from the program.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{lifeline, processes};

/// What to run and how to end it.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    pub command: Vec<OsString>,
    /// Time between SIGTERM and SIGKILL to the group.
    pub grace: Duration,
    /// Also end when stdin ends.
    pub lifeline: bool,
}

/// Runs the program until it ends, or until SIGTERM, SIGINT or the lifeline ends it.
///
/// Returns the program's exit code, or 128 plus the number of the signal that killed it. When the
/// wrapper itself was told to end, that is a clean exit and the code is 0.
///
/// # Errors
/// When the program cannot be started.
pub async fn run(options: &ExecOptions) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (server_gone, mut lifeline_end) = oneshot::channel::<()>();
    if options.lifeline {
        processes::adopt_orphans();
        lifeline::watch(move || {
            // Nobody listens any more once the program has ended by itself.
            let _ = server_gone.send(());
        })?;
    }
    let mut child = spawn(options)?;
    // Taken out, as `wait` would close it; held, so that it lives as long as this process.
    let _program_lifeline = child.stdin.take();
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else {
        return Err(std::io::Error::other("the program has no process id"));
    };
    let code = tokio::select! {
        status = child.wait() => exit_code(status?),
        _ = terminate.recv() => end(&mut child, group, options).await,
        _ = interrupt.recv() => end(&mut child, group, options).await,
        Ok(()) = &mut lifeline_end => end(&mut child, group, options).await,
        never = reap_orphans(group, options.lifeline) => match never? {},
    };
    // What the program started and left behind goes as well.
    processes::signal_group(group, Signal::SIGKILL);
    if options.lifeline {
        processes::kill_all(|| processes::descendants(getpid())).await;
    }
    Ok(code)
}

fn spawn(options: &ExecOptions) -> std::io::Result<Child> {
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(std::io::Error::other("no program given"));
    };
    // The program must not read the server's pipe away. It gets a lifeline of its own, so that a
    // program that watches it ends even when this process is killed.
    let stdin = if options.lifeline { Stdio::piped() } else { Stdio::null() };
    Command::new(program).args(arguments).stdin(stdin).process_group(0).spawn().map_err(|error| {
        let text = format!("cannot start {}: {error}", program.to_string_lossy());
        std::io::Error::new(error.kind(), text)
    })
}

async fn end(child: &mut Child, group: Pid, options: &ExecOptions) -> u8 {
    // Descendants of this process are the program's only where this process is a wrapper.
    let signal_all = |signal| {
        if options.lifeline {
            processes::signal_tree(getpid(), group, signal);
        } else {
            processes::signal_group(group, signal);
        }
    };
    signal_all(Signal::SIGTERM);
    let grace = options.grace;
    if timeout(grace, child.wait()).await.is_err() {
        signal_all(Signal::SIGKILL);
        tracing::warn!("the program ignored SIGTERM for {grace:?}: killed");
        if let Err(error) = child.wait().await {
            tracing::warn!("cannot wait for the program: {error}");
        }
    }
    0
}

/// Reaps what the program has left behind and what has ended since; the program itself is waited
/// for elsewhere.
async fn reap_orphans(program: Pid, adopted: bool) -> std::io::Result<std::convert::Infallible> {
    let mut child_ended = signal(SignalKind::child())?;
    loop {
        child_ended.recv().await;
        if !adopted {
            continue;
        }
        let (own, table) = (getpid(), processes::all());
        let orphans = table.iter().filter(|one| one.parent == own && one.pid != program);
        orphans.filter(|orphan| orphan.is_zombie).for_each(|orphan| processes::reap(orphan.pid));
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
