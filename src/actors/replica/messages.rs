//! What the container pool and its replicas tell each other: one kind of message each way, so that
//! they stay in order.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::dispatch::FromReplica;
use crate::actors::plane::directory::ModelHandle;
use crate::metrics::RpcEnd;
use clipper_domain::{ModelId, ReplicaId};
use clipper_rpc::codec::Build;

/// To a `Container`. Sender: `ContainerPool`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum PoolOrder {
    /// The replica's model is registered: serve it.
    Attach {
        /// The registration.
        model: Arc<ModelHandle>,
        /// Its batcher.
        batcher: Recipient<FromReplica>,
        /// Told when the replica is among those that get queries.
        attached: oneshot::Sender<()>,
    },
    /// The replica's model was retired: keep the connection, serve nothing.
    Detach,
    /// End the connection.
    Close(RpcEnd),
}

/// To `ContainerPool`. Sender: the `Container` of a replica.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReplicaNews {
    /// Its model version.
    pub model: ModelId,
    /// Its number.
    pub replica: ReplicaId,
    /// What has happened.
    pub what: News,
}

/// What has happened to a replica.
#[derive(Debug)]
pub enum News {
    /// It has said which code and file it runs.
    Stated(Build),
    /// Its connection has ended, and its actor.
    Ended {
        /// Why.
        why: RpcEnd,
        /// In words.
        text: String,
    },
}
