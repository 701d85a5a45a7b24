//! Child processes, and what the operating system says of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use clipper_clock as clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;

/// A child that ends with its handle.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }

    /// CPU time of all its threads so far, microseconds; those that have ended are not in it.
    pub(crate) fn cpu_us(&self) -> Result<f64> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            // A thread may end between the two reads.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let on_cpu_ns = text.split_whitespace().next().unwrap_or("0").parse()?;
            total += Duration::from_nanos(on_cpu_ns);
        }
        Ok(total.as_secs_f64() * 1e6)
    }

    /// Resident memory, MiB.
    pub(crate) fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line.and_then(|l| l.split_whitespace().next()).unwrap_or("0").parse()?;
        Ok(kib / 1024.0)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of several processes, microseconds.
pub(crate) fn cpu_us(processes: &[Process]) -> Result<f64> {
    processes.iter().map(Process::cpu_us).sum()
}

#[allow(clippy::disallowed_methods, reason = "this program has a thread to wait with")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let end = clock::now() + Duration::from_mins(1);
    while clock::now() < end {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        pause(Duration::from_millis(20));
    }
    Err(format!("waited for a minute in vain: {what}").into())
}

/// The body of `GET path`.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or("no HTTP response")?;
    Ok(body.to_owned())
}
