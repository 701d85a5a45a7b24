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
        model: Arc<ModelHandle>,
        batcher: Recipient<FromReplica>,
        /// Told when the replica is among those that get queries.
        attached: oneshot::Sender<()>,
    },
    /// The replica's model was retired: keep the connection, serve nothing.
    Detach,
    Close(RpcEnd),
}

/// To `ContainerPool`. Sender: the `Container` of a replica.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReplicaNews {
    pub model: ModelId,
    pub replica: ReplicaId,
    pub what: News,
}

/// What has happened to a replica.
#[derive(Debug)]
pub enum News {
    /// It has said which code and file it runs.
    Stated(Build),
    /// Its connection has ended, and its actor.
    Ended { why: RpcEnd, text: String },
}
