//! The one owner of what users' feedback leaves with an application's policy.
//!
//! Feedback comes from the HTTP workers, as much as there is room for, and is written off every
//! thread that answers predictions. What a deleted application has left is forgotten here, also
//! what it had left before a restart.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::error;

use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::store::projection::Effect;
use crate::store::served::Served;
use crate::supervision::kept::{Kept, Lifeline};
use clipper_domain::AppName;

/// Keeps what feedback leaves. Its calls may take as long as a disk does.
pub trait FeedbackLog: Send + Sync {
    /// Records that user `uid` of `app` gave feedback; `initial` is the policy's state before any.
    fn record(&self, app: &AppName, uid: i64, initial: &str);

    /// Forgets all users of an application.
    fn forget(&self, _app: &AppName) {}

    /// The applications that something is kept of.
    fn apps(&self) -> BTreeSet<AppName> {
        BTreeSet::new()
    }
}

/// A user gave feedback. Sender: [`FeedbackQueue`], from an HTTP worker's thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Learn {
    app: AppName,
    uid: i64,
    /// The policy's state before any feedback.
    initial: String,
    /// Told when it is kept.
    kept: oneshot::Sender<()>,
    room: OwnedSemaphorePermit,
}

/// The way to the owner of feedback. Clones share its room, which a mailbox's bound would not be:
/// each clone of an address may always send one more.
#[derive(Debug, Clone)]
pub struct FeedbackQueue {
    keeper: Kept<FeedbackKeeper>,
    room: Arc<Semaphore>,
}

impl FeedbackQueue {
    /// Room for `max` that are not kept yet.
    #[must_use]
    pub fn new(keeper: Kept<FeedbackKeeper>, max: usize) -> Self {
        Self { keeper, room: Arc::new(Semaphore::new(max)) }
    }

    /// Sends feedback of user `uid` on its way; the receiver hears when it is kept. `None`: there
    /// is no room.
    #[must_use]
    pub fn learn(&self, app: &AppName, uid: i64, initial: &str) -> Option<oneshot::Receiver<()>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let (kept, told) = oneshot::channel();
        let (app, initial) = (app.clone(), initial.to_owned());
        // An owner that has just ended drops it, which the receiver hears.
        let _ = self.keeper.addr().try_send(Learn { app, uid, initial, kept, room });
        Some(told)
    }
}

/// The actor.
pub struct FeedbackKeeper {
    log: Arc<dyn FeedbackLog>,
    catalog: Kept<CatalogWriter>,
    /// Feedback of others, which was on its way when they were deleted, leaves nothing.
    apps: BTreeSet<AppName>,
    _lifeline: Lifeline,
}

impl FeedbackKeeper {
    /// One that follows the catalog when it is started.
    #[must_use]
    pub fn new(
        log: Arc<dyn FeedbackLog>,
        catalog: Kept<CatalogWriter>,
        lifeline: Lifeline,
    ) -> Self {
        Self { log, catalog, apps: BTreeSet::new(), _lifeline: lifeline }
    }

    /// Runs `job` on a thread that may wait for a disk; nothing else is handled meanwhile.
    fn write(
        &self,
        job: impl FnOnce(&dyn FeedbackLog) + Send + 'static,
    ) -> AtomicResponse<Self, ()> {
        let log = Arc::clone(&self.log);
        let written = tokio::task::spawn_blocking(move || job(&*log)).into_actor(self);
        AtomicResponse::new(Box::pin(written.map(|written, _, _| {
            if let Err(error) = written {
                error!(%error, "policy state cannot be kept");
            }
        })))
    }
}

impl Actor for FeedbackKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Nothing waits for it to have begun.
        drop(follower::follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

impl Handler<Learn> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, learn: Learn, _: &mut Self::Context) -> Self::Result {
        let Learn { app, uid, initial, kept, room } = learn;
        let is_there = self.apps.contains(&app);
        self.write(move |log| {
            if is_there {
                log.record(&app, uid, &initial);
            }
            // Who is told may give feedback again, and has its room then.
            drop(room);
            // Who asked may have gone.
            let _ = kept.send(());
        })
    }
}

impl Handler<Followed> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, followed: Followed, _: &mut Self::Context) -> Self::Result {
        if followed.is_state() {
            self.apps.clear();
        }
        let kept = if followed.is_state() { self.log.apps() } else { BTreeSet::new() };
        let effects = followed.effects(|| Served { traces: kept, ..Served::default() });
        let mut forgotten = Vec::new();
        for effect in effects.iter() {
            match effect {
                Effect::ServeApp(app) => drop(self.apps.insert(app.name.clone())),
                Effect::StopApp(name) => drop(self.apps.remove(name)),
                Effect::ForgetPolicyState(name) => forgotten.push(name.clone()),
                _ => {}
            }
        }
        if forgotten.is_empty() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(())));
        }
        self.write(move |log| forgotten.iter().for_each(|name| log.forget(name)))
    }
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
