//! The shared, read-only copy of the catalog: what is durable, cheap to read from any thread.

use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::event::{Envelope, Event};
use super::projection::{Catalog, Effect};
use clipper_domain::{Command, CommandError};

#[derive(Debug)]
struct Versioned {
    seq: u64,
    /// Shared with those that copy it; a change while they have it makes a copy of its own.
    catalog: Arc<Catalog>,
}

/// A read lock on the catalog.
pub type CatalogRead<'a> = MappedRwLockReadGuard<'a, Catalog>;

/// A handle to the durable catalog; clones share it. Only the catalog writer changes it.
#[derive(Debug, Clone)]
pub struct CatalogView(Arc<ViewState>);

#[derive(Debug)]
struct ViewState {
    state: RwLock<Versioned>,
    /// The number of the last event that the state includes, for whoever waits for the next.
    last: watch::Sender<u64>,
}

impl CatalogView {
    /// A view of `catalog` as of event `seq`.
    #[must_use]
    pub fn new(seq: u64, catalog: Catalog) -> Self {
        let state = RwLock::new(Versioned { seq, catalog: Arc::new(catalog) });
        Self(Arc::new(ViewState { state, last: watch::Sender::new(seq) }))
    }

    /// The catalog, consistent as of one event, until the guard is dropped.
    ///
    /// The writer waits for the guard: never hold it across an `.await`.
    pub fn read(&self) -> CatalogRead<'_> {
        RwLockReadGuard::map(self.0.state.read(), |v| v.catalog.as_ref())
    }

    /// The last event that [`Self::read`] includes.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.state.read().seq
    }

    /// What a command makes happen now.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, CommandError> {
        let versioned = self.0.state.read();
        command.check_base(versioned.seq)?;
        versioned.catalog.decide(command)
    }

    /// The catalog as it is now, and the last event it includes. Drop it soon: the first change
    /// meanwhile copies the whole.
    #[must_use]
    pub fn copy(&self) -> (u64, Arc<Catalog>) {
        let versioned = self.0.state.read();
        (versioned.seq, Arc::clone(&versioned.catalog))
    }

    /// The number of the last event, whenever it is another one.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }

    /// Folds durable events in, in order; returns what each asks of the actors.
    ///
    /// Events that it already includes are left out, so that none is applied twice.
    pub fn apply<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Envelope>,
    ) -> Vec<(Envelope, Vec<Effect>)> {
        let mut versioned = self.0.state.write();
        let mut seq = versioned.seq;
        let mut fresh = Vec::new();
        for envelope in events {
            if envelope.seq > seq {
                seq = envelope.seq;
                fresh.push(envelope);
            }
        }
        if fresh.is_empty() {
            return Vec::new();
        }
        versioned.seq = seq;
        let events: Vec<_> = fresh.iter().map(|envelope| &envelope.event).collect();
        let effects = Arc::make_mut(&mut versioned.catalog).apply_all(&events);
        drop(versioned);
        self.0.last.send_replace(seq);
        fresh.into_iter().cloned().zip(effects).collect()
    }
}
