//! What the container pool is asked and told by others than its replicas.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Message, Recipient};

use crate::actors::plane::directory::ModelHandle;
use crate::actors::replica::dispatch::FromReplica;
use crate::children::ChildPlan;
use crate::metrics::RpcEnd;
use crate::rpc::registration::{NotTaken, Refused, Registration, WhyNot};
use clipper_domain::{InputType, ModelId, ModelName, ModelVersion, Replicas};

/// A connection has said what it serves. Sender: the RPC listener. Reply: taken, or why not.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), NotTaken>")]
pub struct Register(pub Registration);

/// Why a container is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationRefused {
    /// Its type is not that of its model.
    #[error("model {model} takes {registered}, but the container says {offered}")]
    InputType {
        model: ModelId,
        /// What the registration says.
        registered: InputType,
        /// What the container says.
        offered: InputType,
    },
    /// Its tensors are not those of its model.
    #[error(
        "model {0} has other tensors: they were registered so, or its other replicas have them"
    )]
    Signature(ModelId),
    /// Its model is neither registered nor on trial.
    #[error("no such model version is registered")]
    UnknownModel,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl RegistrationRefused {
    #[must_use]
    pub fn why_not(&self) -> WhyNot {
        match self {
            Self::UnknownModel => WhyNot::UnknownModel,
            Self::InputType { .. } | Self::Signature(_) => {
                WhyNot::Refused(Refused::new(RpcEnd::InputType, self))
            }
            Self::Stopping => WhyNot::Refused(Refused::new(RpcEnd::Shutdown, self)),
        }
    }
}

/// The containers that the config file describes are others now. Sender: the composition root.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PlansOfFile(pub HashMap<ModelId, ChildPlan>);

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

/// A model version has a (new) batcher. Sender: `Model`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BatcherReady {
    pub model: Arc<ModelHandle>,
    pub batcher: Recipient<FromReplica>,
}

/// Sender: `Models`, before queries go to deployed versions, and behind what their batchers have
/// said of themselves. Reply: their replicas get queries.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitAttached(pub Vec<ModelId>);

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
