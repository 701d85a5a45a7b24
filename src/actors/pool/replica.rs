//! A connected replica, as the pool keeps it.

use std::sync::Arc;

use actix::{Addr, Recipient};
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::replica::container::Container;
use crate::actors::replica::dispatch::FromReplica;
use crate::actors::replica::messages::PoolOrder;
use crate::children::SeatRef;
use crate::metrics::file_sd::MetricsAt;
use crate::supervision::control::Outbox;
use clipper_domain::{InputType, Signature};

#[derive(Debug)]
pub(super) struct Replica {
    /// The process of ours that it is.
    pub(super) child: Option<SeatRef>,
    pub(super) container: Addr<Container>,
    pub(super) orders: Outbox<PoolOrder>,
    pub(super) input_type: InputType,
    pub(super) signature: Option<Arc<Signature>>,
    pub(super) metrics_at: MetricsAt,
    pub(super) attached: Option<Attached>,
}

/// Ends when a replica is among those that get queries, or will not be.
pub(super) type Attached = Shared<oneshot::Receiver<()>>;

impl Replica {
    pub(super) fn attach(
        &mut self,
        model: Arc<ModelHandle>,
        batcher: Recipient<FromReplica>,
    ) -> Attached {
        let (attached, told) = oneshot::channel();
        self.tell(PoolOrder::Attach { model, batcher, attached });
        let told = told.shared();
        self.attached = Some(told.clone());
        told
    }

    /// Whether its tensors are those of its model.
    pub(super) fn is_signed(&self, handle: &ModelHandle, plane: &DataPlane) -> bool {
        let Some(stated) = &self.signature else { return true };
        let is_taken = handle.takes_signature(stated);
        if is_taken && handle.sign(stated) {
            plane.cache.retire(handle.serial);
        }
        is_taken
    }

    /// One that cannot be told has ended: the pool hears of it, or the sweep finds it.
    pub(super) fn tell(&self, order: PoolOrder) {
        if self.orders.tell(order).is_err() {
            tracing::debug!("a container could not be told");
        }
    }
}
