//! The append-only log of events, and the thread that writes it.
//!
//! [`EventLog`] is what a storage engine offers; [`Journal`] owns one on a thread of its own,
//! because writing and flushing block. Jobs are done in the order they were sent, so a load sees
//! every commit before it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::event::Envelope;
use super::projection::Catalog;
use super::replay::Replay;
use super::view::CatalogView;
use clipper_clock as clock;

/// The events of one command: all of them survive, or none.
pub type Change = Vec<Envelope>;

/// A storage engine for events. Calls block.
pub trait EventLog: Send {
    /// Appends the changes, each whole or not at all; durable only after [`Self::flush`].
    /// Refuses, with nothing written, events whose numbers do not go on where the log ends.
    fn append(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Makes everything appended durable.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Reads the state again, after a failure from the disk itself; `tail` holds the events after
    /// `after`.
    fn load(&mut self, after: u64) -> Result<Replay, StoreError>;

    /// Keeps the state after event `seq`, and drops what is no longer needed.
    fn snapshot(&mut self, seq: u64, catalog: &Catalog) -> Result<(), StoreError>;

    /// Called again and again, and when nothing else is to do; flushes soft state.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Called at the end.
    fn close(&mut self) -> Result<(), StoreError> {
        self.flush()
    }
}

/// Checks that `changes` go on after event `last`; answers their last event (invariant J1).
///
/// # Errors
/// `NotWritten` if a number is skipped or used again, as by a writer that was replaced.
pub fn check_continues(last: u64, changes: &[Change]) -> Result<u64, StoreError> {
    changes.iter().flatten().try_fold(last, |last, envelope| {
        if envelope.seq == last + 1 {
            return Ok(envelope.seq);
        }
        let reason = format!("event {} does not follow event {last}", envelope.seq);
        Err(StoreError::NotWritten { reason })
    })
}

/// What opening a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OpenReport {
    /// The last event; 0 = none yet.
    pub last_seq: u64,
    /// The snapshot the state was built on; 0 = none.
    pub snapshot_seq: u64,
    /// Snapshots that are damaged and were passed over.
    pub bad_snapshots: Vec<u64>,
    /// The tail that was cut.
    pub cut: Option<Cut>,
    /// The last event that was acknowledged, if a repair went on without it.
    pub lost_up_to: Option<u64>,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last event {}, built on the snapshot of {}", self.last_seq, self.snapshot_seq)?;
        if !self.bad_snapshots.is_empty() {
            write!(f, "\npassed over damaged snapshots: {:?}", self.bad_snapshots)?;
        }
        if let Some(Cut { seq, offset, reason, records, bytes }) = &self.cut {
            write!(f, "\ncut {records} records ({bytes} bytes) at event {seq} (byte {offset}): ")?;
            f.write_str(reason)?;
        }
        if let Some(to) = self.lost_up_to {
            write!(f, "\nlost events {} to {to}", self.last_seq + 1)?;
        }
        Ok(())
    }
}

/// A part of the journal that was moved aside because it was not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The first event cut.
    pub seq: u64,
    /// Bytes of good records before it.
    pub offset: u64,
    pub reason: String,
    pub records: usize,
    /// Their bytes.
    pub bytes: u64,
}

enum Job {
    Commit { changes: Vec<Change>, reply: oneshot::Sender<Result<(), StoreError>> },
    Load { after: u64, reply: oneshot::Sender<Result<Replay, StoreError>> },
    Snapshot,
    Close { reply: oneshot::Sender<()> },
}

/// A handle to the journal's thread; clones share it. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Journal {
    jobs: mpsc::Sender<Job>,
    view: CatalogView,
}

impl Journal {
    /// Replays `log`, then serves it from a thread of its own; `idle_every` flushes soft state.
    ///
    /// # Errors
    /// What the replay found, or that no thread can be started.
    pub fn start(mut log: Box<dyn EventLog>, idle_every: Duration) -> Result<Self, StoreError> {
        let replay = log.load(u64::MAX)?;
        let view = CatalogView::new(replay.seq, replay.catalog.clone());
        let (jobs, todo) = mpsc::channel();
        let thread_view = view.clone();
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || work(log, &todo, &thread_view, idle_every, replay))
            .map_err(|e| StoreError::Read { reason: format!("no thread for the journal: {e}") })?;
        Ok(Self { jobs, view })
    }

    #[must_use]
    pub fn view(&self) -> CatalogView {
        self.view.clone()
    }

    /// Appends and flushes; when it answers `Ok`, all of it is on the disk.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Commit { changes, reply }).await?
    }

    /// Reads the state again; `tail` holds the events after `after`.
    pub async fn load(&self, after: u64) -> Result<Replay, StoreError> {
        self.ask(|reply| Job::Load { after, reply }).await?
    }

    /// Asks for a snapshot of the durable state; a failure is logged.
    pub fn snapshot(&self) {
        if self.jobs.send(Job::Snapshot).is_err() {
            tracing::warn!("no snapshot: the journal is closed");
        }
    }

    /// Finishes all jobs sent before, flushes and ends the thread. Later jobs answer `Closed`.
    pub async fn close(&self) {
        if self.ask(|reply| Job::Close { reply }).await.is_err() {
            tracing::debug!("the journal was closed already");
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

fn work(
    mut log: Box<dyn EventLog>,
    todo: &mpsc::Receiver<Job>,
    view: &CatalogView,
    idle_every: Duration,
    read: Replay,
) {
    // Nobody has written since it was read; whoever loads first need not read it all again.
    let mut fresh = Some(read);
    let mut last_idle = clock::now();
    loop {
        let idle_in = idle_every.saturating_sub(clock::now() - last_idle);
        match todo.recv_timeout(idle_in) {
            Ok(Job::Commit { changes, reply }) => {
                fresh = None;
                let commit = |log: &mut dyn EventLog| {
                    log.append(&changes)?;
                    log.flush()
                };
                answer(reply, guarded(log.as_mut(), commit));
            }
            Ok(Job::Load { after, reply }) => match fresh.take().filter(|r| after >= r.seq) {
                Some(replay) => answer(reply, Ok(replay)),
                None => answer(reply, guarded(log.as_mut(), |log| log.load(after))),
            },
            Ok(Job::Snapshot) => {
                let (seq, catalog) = view.copy();
                if let Err(error) = guarded(log.as_mut(), |log| log.snapshot(seq, &catalog)) {
                    tracing::warn!(seq, %error, "no snapshot was written");
                }
            }
            Ok(Job::Close { reply }) => {
                finish(log);
                return answer(reply, ());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Err(error) = guarded(log.as_mut(), |log| log.idle()) {
                    tracing::warn!(%error, "policy state was not flushed");
                }
                last_idle = clock::now();
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return finish(log),
        }
    }
}

fn finish(mut log: Box<dyn EventLog>) {
    if let Err(error) = guarded(log.as_mut(), |log| log.close()) {
        tracing::warn!(%error, "the last flush of the journal failed");
    }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the journal's answer");
    }
}

/// A panic of the engine is an error like any other: the outcome of the write is unknown.
fn guarded<T>(
    log: &mut dyn EventLog,
    job: impl FnOnce(&mut dyn EventLog) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(|| job(log))).unwrap_or_else(|panic| {
        Err(StoreError::Write { reason: format!("the engine panicked: {}", panic_text(&*panic)) })
    })
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
