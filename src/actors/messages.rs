//! Every message that crosses data-plane actors, grouped by receiver.
//!
//! Metadata messages (`Execute`, `Subscribe`, `Published`) stand in [`super::catalog::writer`].

use std::sync::Arc;

use actix::{Addr, Message};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::apps::prediction::{AppFacts, Prediction};
use super::models::batcher::Batcher;
use super::plane::directory::{ModelEntry, ModelHandle};
use super::replica::container::Container;
use crate::metrics::RpcEnd;
use crate::rpc::listener::{NotTaken, Refused, Registration, WhyNot};
use clipper_clock::Instant;
use clipper_domain::{AppName, InputType, ModelId, ModelName, ModelVersion, ReplicaId, Replicas};
use clipper_rpc::codec::Build;
use clipper_scheduling::dispatch::{Arrival, BatchId, Departure, Unanswered};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::parse::{BodyError, PredictBody, UpdateBody};

// ---------------------------------------------------------------------------------------- App

/// A request body, as text or already parsed: long ones are parsed away from the HTTP workers.
#[derive(Debug)]
pub enum RequestBody<T> {
    /// The JSON text.
    Text(Bytes),
    /// What it says.
    Parsed(Box<T>),
}

/// A request body for an application. Sender: the HTTP handler, on the same thread. Reply: the
/// answers on their way. Full mailbox: the sender waits; the number of senders is bounded by
/// connections.
#[derive(Debug, Message)]
#[rtype(result = "Result<Prediction, QueryRefused>")]
pub struct Predict {
    /// The body.
    pub body: RequestBody<PredictBody>,
    /// When it had arrived; the deadline counts from here.
    pub arrived: Instant,
}

/// Why a predict or update request is refused without an answer to its queries.
#[derive(Debug)]
pub enum QueryRefused {
    /// The body.
    Body(BodyError),
    /// The `version` asked for.
    Version(String),
    /// No room: `serving.inflight_queries_max`.
    Busy,
    /// No room for feedback: `serving.feedback_queue_max`.
    FeedbackFull,
}

/// Feedback on its way to its owner, who tells here when it is kept.
#[derive(Debug)]
pub struct Recorded(pub oneshot::Receiver<()>);

/// Feedback for an application. Sender: the HTTP handler, on the same thread. Reply: it is on its
/// way to its owner.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recorded, QueryRefused>")]
pub struct Update {
    /// The body.
    pub body: RequestBody<UpdateBody>,
}

/// What is needed to parse a body, and to count it if that fails. Sender: the HTTP handler, on the
/// same thread.
#[derive(Debug, Message)]
#[rtype(result = "Arc<AppFacts>")]
pub struct AskFacts;

/// A new definition. Sender: the worker's `Router`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Redefine(pub Arc<AppFacts>);

/// New links. Sender: the worker's `Router`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Relink(pub Option<Arc<ModelEntry>>);

/// The application was deleted. Sender: the worker's `Router`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopApp;

// ------------------------------------------------------------------------------------- Router

/// An application's actor has ended. Sender: `App`, from `stopped()`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AppEnded {
    /// Which.
    pub name: AppName,
    /// By a panic.
    pub panicked: bool,
}

// -------------------------------------------------------------------------------------- Model

/// The model's batcher has ended. Sender: `Batcher`, from `stopped()`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BatcherEnded {
    /// What it still had queued, for its successor.
    pub queued: Vec<Arrival<Arc<Flight>>>,
    /// By a panic.
    pub panicked: bool,
}

/// Sender: `Models`, before queries go to a deployed version. Reply: its batcher takes queries.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitBatcher;

/// The model version was retired. Sender: `Models`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RetireModel;

// ------------------------------------------------------------------------------------- Models

/// A model's actor has ended. Sender: `Model`, from `stopped()`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ModelEnded {
    /// Which registration.
    pub handle: Arc<ModelHandle>,
    /// By a panic.
    pub panicked: bool,
}

// ------------------------------------------------------------------------------------ Batcher

/// A replica is attached. Sender: `Container`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReplicaReady {
    /// Which.
    pub replica: ReplicaId,
    /// Where batches go.
    pub container: Addr<Container>,
    /// What an earlier batcher has sent it.
    pub unanswered: Vec<Unanswered<Arc<Flight>>>,
}

/// A replica has answered a batch, and its queries were told. Sender: `Container`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BatchDone {
    /// Which.
    pub replica: ReplicaId,
    /// The batch.
    pub batch: BatchId,
    /// When the answer was read.
    pub answered: Instant,
}

/// A replica is gone. Sender: `Container`, from `stopped()` or when detached.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReplicaLeft {
    /// Which.
    pub replica: ReplicaId,
    /// Why.
    pub cause: Departure,
}

/// The model version was retired: answer what waits by the default output and end. Sender: `Model`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopBatcher;

// ---------------------------------------------------------------------------------- Container

/// The replica's model is registered: serve it. Sender: `ContainerPool`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The registration.
    pub model: Arc<ModelHandle>,
    /// Its batcher.
    pub batcher: Addr<Batcher>,
}

/// The replica's model was retired: keep the connection, serve nothing. Sender: `ContainerPool`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Detach;

/// One batch; the replica is idle or about to be (invariant C1). Sender: `Batcher`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RunBatch {
    /// Its name, for its sender.
    pub batch: BatchId,
    /// At least one.
    pub flights: Arc<[Arc<Flight>]>,
}

/// End the connection. Sender: `ContainerPool`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CloseContainer(pub RpcEnd);

/// The replica hangs, in words: end the connection. Sender: `Batcher`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GiveUp(pub Arc<str>);

// ------------------------------------------------------------------------------ ContainerPool

/// A connection has said what it serves. Sender: the RPC listener. Reply: taken, or why not.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), NotTaken>")]
pub struct Register(pub Registration);

/// End all child processes and start none. Sender: the composition root. Reply: they have ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopChildren;

/// Replace the processes of these versions by new ones. Sender: the management frontend. Reply: how
/// many.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct RestartReplicas {
    /// Of this model; of all models otherwise.
    pub name: Option<ModelName>,
    /// Of this version; of all versions otherwise.
    pub version: Option<ModelVersion>,
}

/// Why a container is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationRefused {
    /// Its type is not that of its model.
    #[error("model {model} takes {registered}, but the container says {offered}")]
    InputType {
        /// The model version.
        model: ModelId,
        /// What the registration says.
        registered: InputType,
        /// What the container says.
        offered: InputType,
    },
    /// Its model is neither registered nor on trial.
    #[error("no such model version is registered")]
    UnknownModel,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl RegistrationRefused {
    /// For the listener.
    #[must_use]
    pub fn why_not(&self) -> WhyNot {
        match self {
            Self::UnknownModel => WhyNot::UnknownModel,
            Self::InputType { .. } => WhyNot::Refused(Refused::new(RpcEnd::InputType, self)),
            Self::Stopping => WhyNot::Refused(Refused::new(RpcEnd::Shutdown, self)),
        }
    }
}

/// A replica's actor has ended. Sender: `Container`, from `stopped()`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ContainerEnded {
    /// Its model version.
    pub model: ModelId,
    /// Which.
    pub replica: ReplicaId,
    /// Why.
    pub why: RpcEnd,
    /// In words.
    pub text: String,
}

/// A replica has said which code and file it runs. Sender: `Container`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ContainerStated {
    /// Its model version.
    pub model: ModelId,
    /// Which.
    pub replica: ReplicaId,
    /// What it runs.
    pub build: Build,
}

/// A model version has a (new) batcher. Sender: `Model`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BatcherReady {
    /// The registration.
    pub model: Arc<ModelHandle>,
    /// Its batcher.
    pub batcher: Addr<Batcher>,
}

/// Model versions were registered or retired, in this order. Sender: `Models`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ModelsChanged(pub Vec<ModelChange>);

/// One of [`ModelsChanged`].
#[derive(Debug)]
pub enum ModelChange {
    /// Start its child processes; the batcher follows.
    Registered(Arc<ModelHandle>),
    /// Keep these replicas of a registered version alive.
    Planned(ModelId, Replicas),
    /// Keep no replicas of it alive any more; those that connect by themselves stay.
    Released(ModelId),
    /// Stop its child processes, detach its replicas.
    Retired(ModelId),
}
