//! Replicas of a model version that is not registered: do they start, connect and answer?
//!
//! The pool owns their processes; whoever asked for the first one watches the [`TrialState`], sends
//! it trial batches, and asks for the rest. They become the replicas of their version when that is
//! registered with replicas, and end with [`EndTrial`] otherwise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::actors::replica::dispatch::ToReplica;
use crate::children::{Probation, TryOutError};
use clipper_domain::{InputType, ModelId, ReplicaId, Replicas, Signature};

/// Why a version is not tried out.
#[derive(Debug, thiserror::Error)]
pub enum TrialRefused {
    #[error("the server is stopping")]
    Stopping,
    /// Its queries go to replicas of it already.
    #[error("model {0} is registered already")]
    Registered(ModelId),
    #[error(transparent)]
    NotStarted(#[from] TryOutError),
}

/// Start one process. Sender: a deployment. Reply: what to watch, or why it was not started.
#[derive(Debug, Message)]
#[rtype(result = "Result<Trial, TrialRefused>")]
pub struct StartTrial {
    /// What it serves; not registered.
    pub id: ModelId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// What to run; one of it for now.
    pub replicas: Replicas,
    /// Lines of its output to remember.
    pub lines_max: usize,
}

/// Start the rest of the replicas. Sender: a deployment whose first one has answered. Reply: they
/// are being started.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GrowTrial(pub ModelId);

/// End the processes, unless they have become replicas. Sender: a deployment that failed. Reply:
/// they have ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EndTrial(pub ModelId);

/// How far a trial is.
#[derive(Debug, Clone, Default)]
pub struct TrialState {
    /// The connections, in the order in which they came.
    pub connected: Vec<(ReplicaId, Recipient<ToReplica>)>,
    /// Of type tensors: what the first of them has said; the others have to say the same.
    pub signature: Option<Arc<Signature>>,
    /// Why a connection ended or was refused.
    pub dropped: Option<String>,
    /// How a process ended.
    pub exited: Option<String>,
}

impl TrialState {
    /// Nothing good can come any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.dropped.is_some() || self.exited.is_some()
    }
}

/// A trial as its owner sees it.
#[derive(Debug)]
pub struct Trial {
    /// How far it is; closed if the pool ended.
    pub state: watch::Receiver<TrialState>,
    output: Arc<TrialLink>,
}

impl Trial {
    /// The last lines that the processes have written.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.tail.lock().iter().cloned().collect()
    }
}

/// What a trial's processes, their pool and its owner share.
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

    /// They are replicas like any other from now on.
    pub(super) fn adopt(&self) {
        self.adopted.store(true, Ordering::Release);
        *self.tail.lock() = VecDeque::new();
    }

    pub(super) fn connected(
        &self,
        replica: ReplicaId,
        container: Recipient<ToReplica>,
        signature: Option<Arc<Signature>>,
    ) {
        self.state.send_modify(|state| {
            state.signature = state.signature.take().or(signature);
            state.connected.push((replica, container));
        });
    }

    /// Whether a container with this signature is one of these replicas.
    pub(super) fn takes_signature(&self, stated: &Signature) -> bool {
        let state = self.state.borrow();
        state.signature.as_ref().is_none_or(|known| known.serves_as(stated))
    }

    pub(super) fn refused(&self, why: String) {
        self.state.send_modify(|state| state.dropped = state.dropped.take().or(Some(why)));
    }

    /// A replica's connection ended, perhaps one of these.
    pub(super) fn left(&self, replica: ReplicaId, why: &str) {
        self.state.send_if_modified(|state| {
            let before = state.connected.len();
            state.connected.retain(|(id, _)| *id != replica);
            let its = state.connected.len() < before;
            if its {
                state.dropped.get_or_insert_with(|| why.to_owned());
            }
            its
        });
    }

    /// The connections there are now.
    pub(super) fn connections(&self) -> Vec<ReplicaId> {
        self.state.borrow().connected.iter().map(|(replica, _)| *replica).collect()
    }
}

impl Probation for TrialLink {
    fn heard(&self, line: &str) {
        if self.is_adopted() {
            return;
        }
        let mut tail = self.tail.lock();
        if tail.len() >= self.lines_max {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }

    fn exited(&self, why: String) {
        self.state.send_modify(|state| state.exited = state.exited.take().or(Some(why)));
    }

    fn is_adopted(&self) -> bool {
        self.adopted.load(Ordering::Acquire)
    }
}
