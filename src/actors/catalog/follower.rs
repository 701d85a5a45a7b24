//! Follows the catalog for an actor: from its present state on, each change once and in order, over
//! deaths of the catalog writer.
//!
//! ```text
//! CatalogWriter --state, then changes--> follower (a task beside the actor)
//!                                            | Followed, one after the other
//!                                            v
//!                                          actor: reconcile(state, what runs), or the effects
//! ```
//!
//! The next change is sent when the actor has answered the one before: what an actor does in order,
//! it need not wait for by looking again and again.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::writer::{CatalogWriter, Changes, Subscribe, Subscribed};
use crate::store::projection::{Catalog, Effect};
use crate::store::served::{Served, reconcile};
use crate::supervision::kept::Kept;

/// What a follower tells its actor. Reply: it is done.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Followed {
    /// Make everything as the catalog says, whatever it was: the first one, and the first after the
    /// catalog writer was replaced. Drop it soon: the next change copies what somebody holds.
    State(Arc<Catalog>),
    /// Run these, in order.
    Change(Arc<[Effect]>),
}

impl Followed {
    /// The effects to run where this runs now.
    pub fn effects(self, running: impl FnOnce() -> Served) -> Arc<[Effect]> {
        match self {
            Self::State(catalog) => reconcile(&catalog, &running()).into(),
            Self::Change(effects) => effects,
        }
    }

    /// Whether it is all there is, and not a change of it.
    #[must_use]
    pub fn is_state(&self) -> bool {
        matches!(self, Self::State(_))
    }
}

/// Starts to follow, on this thread, until the actor ends. Told once when the actor has taken the
/// first state; dropped if it never will.
#[must_use]
pub fn follow(catalog: Kept<CatalogWriter>, actor: Recipient<Followed>) -> oneshot::Receiver<()> {
    let (loaded, told) = oneshot::channel();
    actix::spawn(run(catalog, actor, loaded));
    told
}

async fn run(
    catalog: Kept<CatalogWriter>,
    actor: Recipient<Followed>,
    loaded: oneshot::Sender<()>,
) {
    let mut loaded = Some(loaded);
    loop {
        let mut replacements = std::pin::pin!(catalog.replacements());
        match catalog.send(Subscribe).await {
            Ok(Subscribed { seq, catalog, changes }) => {
                if actor.send(Followed::State(catalog)).await.is_err() {
                    return;
                }
                if let Some(loaded) = loaded.take() {
                    // Who started this may have gone on.
                    let _ = loaded.send(());
                }
                if pass_on(seq, changes, &actor).await.is_err() {
                    return;
                }
            }
            // Its successor is followed.
            Err(error) => warn!(%error, "the catalog cannot be followed for now"),
        }
        if catalog.addr().connected() {
            warn!(
                "an actor was cut off from the catalog's changes and starts from its state again"
            );
        } else if replacements.next().await.is_none() {
            return error!("there is no catalog writer any more; all stays as it is");
        }
    }
}

/// Until there are no more; an error means that the actor has ended.
pub(super) async fn pass_on(
    mut seq: u64,
    mut changes: Changes,
    actor: &Recipient<Followed>,
) -> Result<(), MailboxError> {
    while let Some(published) = changes.next().await {
        // Known by the state.
        if published.envelope.seq > seq {
            seq = published.envelope.seq;
            actor.send(Followed::Change(published.effects)).await?;
        }
        changes.applied(seq);
    }
    Ok(())
}
