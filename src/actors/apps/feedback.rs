//! The one owner of what users' feedback leaves with an application's policy.
//!
//! Feedback comes from the HTTP workers, as much as there is room for, and is written off every
//! thread that answers predictions. What a deleted application has left is forgotten here, also
//! what it had left before a restart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, warn};

use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::learned_states::{EVERYBODY, LearnedStates};
use crate::store::projection::Effect;
use crate::store::served::Served;
use crate::supervision::kept::{Kept, Lifeline};
use clipper_domain::AppName;
use clipper_selection::state::{Contribution, SelectionState};

/// Keeps what feedback leaves. Its calls may take as long as a disk does.
pub trait FeedbackLog: Send + Sync {
    /// Records that user `uid` of `app` gave feedback; `initial` is the policy's state before any.
    fn record(&self, app: &AppName, uid: i64, initial: &str);

    /// Keeps what feedback has left with a user, over what was kept before.
    fn save(&self, _app: &AppName, _uid: i64, _state: &SelectionState) {}

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

/// Feedback that teaches a policy something. Sender: [`FeedbackQueue`], as [`Learn`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Observe {
    app: AppName,
    uid: i64,
    contribution: Contribution,
    /// Told when it counts.
    kept: oneshot::Sender<()>,
    room: OwnedSemaphorePermit,
}

/// Save what is not saved yet. Sender: the composition root, before the store is closed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SaveLearned;

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

    /// As [`Self::learn`], for a policy that learns.
    #[must_use]
    pub fn observe(
        &self,
        app: &AppName,
        uid: i64,
        contribution: Contribution,
    ) -> Option<oneshot::Receiver<()>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let (kept, told) = oneshot::channel();
        let observe = Observe { app: app.clone(), uid, contribution, kept, room };
        let _ = self.keeper.addr().try_send(observe);
        Some(told)
    }

    /// Saves what is not saved yet.
    pub async fn save(&self) {
        if self.keeper.addr().send(SaveLearned).await.is_err() {
            warn!("the owner of feedback ended before what it has learned was saved");
        }
    }
}

pub struct FeedbackKeeper {
    log: Arc<dyn FeedbackLog>,
    learned: Arc<LearnedStates>,
    save_every: Duration,
    /// Users whose state has changed since it was saved.
    changed: BTreeSet<(AppName, i64)>,
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
        (learned, save_every): (Arc<LearnedStates>, Duration),
        catalog: Kept<CatalogWriter>,
        lifeline: Lifeline,
    ) -> Self {
        let (changed, apps) = (BTreeSet::new(), BTreeSet::new());
        Self { log, learned, save_every, changed, catalog, apps, _lifeline: lifeline }
    }

    /// What has changed since the last call, to be saved.
    fn unsaved(&mut self) -> impl FnOnce(&dyn FeedbackLog) + Send + use<> {
        let changed = std::mem::take(&mut self.changed);
        let learned = Arc::clone(&self.learned);
        move |log| {
            for (app, uid) in changed {
                if let Some(state) = learned.of(&app).of_user_alone(uid) {
                    log.save(&app, uid, &state);
                }
            }
        }
    }

    /// Runs `job` on a thread that may wait for a disk; nothing else is handled meanwhile.
    fn write<J: FnOnce(&dyn FeedbackLog) + Send + 'static>(
        &self,
        job: J,
    ) -> impl ActorFuture<Self, Output = ()> + use<J> {
        let log = Arc::clone(&self.log);
        let written = tokio::task::spawn_blocking(move || job(&*log)).into_actor(self);
        written.map(|written, _, _| {
            if let Err(error) = written {
                error!(%error, "policy state cannot be kept");
            }
        })
    }
}

impl Actor for FeedbackKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.save_every, |keeper, ctx| {
            if !keeper.changed.is_empty() {
                let unsaved = keeper.unsaved();
                // What comes meanwhile waits, as for every write.
                ctx.wait(keeper.write(unsaved));
            }
        });
        // Nothing waits for it to have begun.
        drop(follower::follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

impl Handler<Learn> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, learn: Learn, _: &mut Self::Context) -> Self::Result {
        let Learn { app, uid, initial, kept, room } = learn;
        let is_there = self.apps.contains(&app);
        AtomicResponse::new(Box::pin(self.write(move |log| {
            if is_there {
                log.record(&app, uid, &initial);
            }
            // Who is told may give feedback again, and has its room then.
            drop(room);
            // Who asked may have gone.
            let _ = kept.send(());
        })))
    }
}

impl Handler<Observe> for FeedbackKeeper {
    type Result = ();

    fn handle(&mut self, observe: Observe, _: &mut Self::Context) {
        let Observe { app, uid, contribution, kept, room } = observe;
        if self.apps.contains(&app) {
            self.learned.learn(&app, uid, &contribution);
            self.changed.extend([(app.clone(), EVERYBODY), (app, uid)]);
        }
        drop(room);
        // Who asked may have gone.
        let _ = kept.send(());
    }
}

impl Handler<SaveLearned> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: SaveLearned, _: &mut Self::Context) -> Self::Result {
        let unsaved = self.unsaved();
        AtomicResponse::new(Box::pin(self.write(unsaved)))
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
                Effect::ForgetPolicyState(name) => {
                    self.learned.forget(name);
                    self.changed.retain(|(app, _)| app != name);
                    forgotten.push(name.clone());
                }
                _ => {}
            }
        }
        if forgotten.is_empty() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(())));
        }
        let forget = move |log: &dyn FeedbackLog| {
            for name in &forgotten {
                log.forget(name);
            }
        };
        AtomicResponse::new(Box::pin(self.write(forget)))
    }
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
