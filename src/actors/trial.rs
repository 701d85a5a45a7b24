//! A replica of a model version that is not registered: does it start, connect and answer?
//!
//! The pool owns its process; whoever asked for it watches its [`TrialState`] and sends it trial
//! batches. It becomes the first replica of its version when that is registered with replicas, and
//! ends with [`EndTrial`] otherwise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::container::Container;
use crate::domain::{InputType, ModelId, ReplicaId, Replicas};

/// Start one process. Sender: a deployment. Reply: what to watch, or why it was not started.
#[derive(Debug, Message)]
#[rtype(result = "Result<Trial, String>")]
pub struct StartTrial {
    /// What it serves; not registered.
    pub id: ModelId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// What to run.
    pub replicas: Replicas,
    /// Lines of its output to remember.
    pub lines_max: usize,
}

/// End the process, unless it has become a replica. Sender: a deployment that failed. Reply: it has
/// ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EndTrial(pub ModelId);

/// How far a trial is.
#[derive(Debug, Clone, Default)]
pub struct TrialState {
    /// Its connection.
    pub connected: Option<(ReplicaId, Addr<Container>)>,
    /// Why a connection ended or was refused.
    pub dropped: Option<String>,
    /// How the process ended.
    pub exited: Option<String>,
}

/// A trial as its owner sees it.
#[derive(Debug)]
pub struct Trial {
    /// How far it is; closed if the pool ended.
    pub state: watch::Receiver<TrialState>,
    output: Arc<TrialLink>,
}

impl Trial {
    /// The last lines that the process has written.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.tail.lock().iter().cloned().collect()
    }
}

/// What a trial's process, its pool and its owner share.
#[derive(Debug)]
pub(super) struct TrialLink {
    pub(super) input_type: InputType,
    adopted: AtomicBool,
    state: watch::Sender<TrialState>,
    tail: Mutex<VecDeque<String>>,
    lines_max: usize,
}

impl TrialLink {
    pub(super) fn new(input_type: InputType, lines_max: usize) -> (Arc<Self>, Trial) {
        let (state, watched) = watch::channel(TrialState::default());
        let adopted = AtomicBool::new(false);
        let tail = Mutex::default();
        let link = Arc::new(Self { input_type, adopted, state, tail, lines_max });
        let trial = Trial { state: watched, output: Arc::clone(&link) };
        (link, trial)
    }

    /// It is a replica like any other from now on.
    pub(super) fn adopt(&self) {
        self.adopted.store(true, Ordering::Release);
        *self.tail.lock() = VecDeque::new();
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.adopted.load(Ordering::Acquire)
    }

    /// Remembers a line of the process.
    pub(super) fn heard(&self, line: &str) {
        if self.is_adopted() {
            return;
        }
        let mut tail = self.tail.lock();
        if tail.len() >= self.lines_max {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }

    pub(super) fn connected(&self, replica: ReplicaId, container: Addr<Container>) {
        self.state.send_modify(|state| state.connected = Some((replica, container)));
    }

    pub(super) fn refused(&self, why: String) {
        self.state.send_modify(|state| state.dropped = Some(why));
    }

    /// A replica's connection ended; whether it was this one's.
    pub(super) fn left(&self, replica: ReplicaId, why: &str) {
        self.state.send_if_modified(|state| {
            let its = state.connected.as_ref().is_some_and(|(id, _)| *id == replica);
            if its {
                state.connected = None;
                state.dropped = Some(why.to_owned());
            }
            its
        });
    }

    pub(super) fn exited(&self, why: String) {
        self.state.send_modify(|state| state.exited = Some(why));
    }

    /// The connection it has now.
    pub(super) fn connection(&self) -> Option<(ReplicaId, Addr<Container>)> {
        self.state.borrow().connected.clone()
    }
}
