//! What is known of the lanes of a container that answers in pieces.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::oneshot;

use clipper_rpc::codec::Extensions;
use clipper_scheduling::stream::{Bell, Stream};

/// How many queries a container answers at the same time.
#[derive(Debug)]
pub(super) enum Lanes {
    /// It answers whole batches, one after the other.
    None,
    /// It answers in pieces and has not said how many; who is to be told once it is among those
    /// that get queries.
    Awaited(Option<oneshot::Sender<()>>),
    Known(u32),
}

impl Lanes {
    pub(super) fn of(accepted: Extensions) -> Self {
        if accepted.has(Extensions::STREAMS) { Self::Awaited(None) } else { Self::None }
    }

    pub(super) fn known(&self) -> Option<u32> {
        match self {
            Self::Known(lanes) => Some(*lanes),
            Self::None | Self::Awaited(_) => None,
        }
    }
}

/// An answer in pieces under way.
#[derive(Debug)]
pub(super) struct Piecewise {
    pub(super) stream: Arc<Stream>,
    /// Pieces that may come.
    pub(super) credit: u32,
}

/// The bell has rung.
#[derive(Debug)]
pub(super) struct Rung;

/// An item whenever `bell` rings.
pub(super) fn rings(bell: Arc<Bell>) -> impl futures_util::Stream<Item = Rung> {
    futures_util::stream::unfold(bell, |bell| async move {
        poll_fn(|cx| bell.poll_rung(cx)).await;
        Some((Rung, bell))
    })
}
