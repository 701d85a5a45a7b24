//! Keeps what checks keys equal to the catalog: a change is acknowledged when this has taken it, so
//! that a new key is good at once and a revoked one is not.

use std::sync::Arc;

use actix::prelude::*;

use super::follower::{Followed, follow};
use super::writer::CatalogWriter;
use crate::access::Access;
use crate::store::CatalogView;
use crate::store::projection::Effect;
use crate::supervision::kept::{Kept, Lifeline};

/// The actor. See the module's text.
pub struct KeyKeeper {
    access: Arc<Access>,
    view: CatalogView,
    catalog: Kept<CatalogWriter>,
    _lifeline: Lifeline,
}

impl KeyKeeper {
    #[must_use]
    pub fn new(
        access: Arc<Access>,
        view: CatalogView,
        catalog: Kept<CatalogWriter>,
        lifeline: Lifeline,
    ) -> Self {
        Self { access, view, catalog, _lifeline: lifeline }
    }
}

impl Actor for KeyKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Nobody waits for its first state: who made `access` has given it the keys.
        drop(follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

impl Handler<Followed> for KeyKeeper {
    type Result = ();

    fn handle(&mut self, followed: Followed, _: &mut Context<Self>) {
        let concerns_keys = match &followed {
            Followed::State(_) => true,
            Followed::Change(effects) => effects.contains(&Effect::KeysChanged),
        };
        // Not to be held while others are waited for.
        drop(followed);
        if concerns_keys {
            self.access.take(self.view.read().keys());
        }
    }
}
