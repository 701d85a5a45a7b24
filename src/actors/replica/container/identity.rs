//! What a replica's container has said of itself.

use std::net::SocketAddr;
use std::sync::Arc;

use clipper_domain::{InputType, ModelId, ReplicaId, Signature};
use clipper_rpc::codec::Extensions;

/// What a container is, as registered.
#[derive(Debug, Clone)]
pub struct Identity {
    pub model: ModelId,
    pub replica: ReplicaId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// The extensions of the protocol that it announced.
    pub extensions: Extensions,
    /// Of type tensors: what goes in and comes out.
    pub signature: Option<Arc<Signature>>,
    pub peer: SocketAddr,
}

impl Identity {
    /// The extensions that both sides know.
    pub(super) fn accepted(&self) -> Extensions {
        self.extensions.and(Extensions::KNOWN)
    }
}
