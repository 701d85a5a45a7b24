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

use super::keeping::Keeping;
use super::save_pace::SavePace;
use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::learned_states::{EVERYBODY, UserOf};
use crate::store::projection::Effect;
use crate::store::served::Served;
use crate::supervision::kept::{Kept, Lifeline};
use clipper_clock as clock;
use clipper_domain::AppName;
use clipper_selection::state::Contribution;

/// While nobody gives feedback and all users are in memory, it is looked so seldom whether some
/// have left it.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// What feedback leaves.
#[derive(Debug)]
enum Lesson {
    /// These users gave some; the policy's state before any.
    Known(Vec<i64>, String),
    /// It teaches a policy something, of each user.
    Observed(Vec<(i64, Contribution)>),
}

/// Feedback of an application. Sender: [`FeedbackQueue`], from an HTTP worker's thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Learn {
    app: AppName,
    lesson: Lesson,
    acknowledgement: Acknowledgement,
}

/// Who is told when feedback counts, and the room that it has until then.
#[derive(Debug)]
struct Acknowledgement {
    kept: oneshot::Sender<()>,
    room: Room,
}

impl Acknowledgement {
    /// Who is told may give feedback again, and has its room then; who asked may have gone.
    fn tell(self) {
        drop(self.room);
        let _ = self.kept.send(());
    }
}

/// Save what is not saved yet. Sender: the composition root, before the store is closed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SaveLearned;

/// Room for some feedback.
#[derive(Debug)]
pub struct Room {
    /// Given back when it is dropped.
    _permit: OwnedSemaphorePermit,
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

    /// Room for `count`; `None` if there is not so much now. To be asked for before feedback is
    /// judged: what is judged once is not judged again.
    #[must_use]
    pub fn room(&self, count: usize) -> Option<Room> {
        let count = u32::try_from(count).ok()?;
        let permit = Arc::clone(&self.room).try_acquire_many_owned(count).ok()?;
        Some(Room { _permit: permit })
    }

    /// Sends feedback of users on its way; the receiver hears when it is kept.
    #[must_use]
    pub fn learn(
        &self,
        room: Room,
        app: &AppName,
        uids: Vec<i64>,
        initial: &str,
    ) -> oneshot::Receiver<()> {
        self.send(room, app, Lesson::Known(uids, initial.to_owned()))
    }

    /// As [`Self::learn`], for a policy that learns.
    #[must_use]
    pub fn observe(
        &self,
        room: Room,
        app: &AppName,
        feedback: Vec<(i64, Contribution)>,
    ) -> oneshot::Receiver<()> {
        self.send(room, app, Lesson::Observed(feedback))
    }

    fn send(&self, room: Room, app: &AppName, lesson: Lesson) -> oneshot::Receiver<()> {
        let (kept, told) = oneshot::channel();
        let acknowledgement = Acknowledgement { kept, room };
        // An owner that has just ended drops it, which the receiver hears.
        let learn = Learn { app: app.clone(), lesson, acknowledgement };
        let _ = self.keeper.addr().try_send(learn);
        told
    }

    /// Saves what is not saved yet.
    pub async fn save(&self) {
        if self.keeper.addr().send(SaveLearned).await.is_err() {
            warn!("the owner of feedback ended before what it has learned was saved");
        }
    }
}

pub struct FeedbackKeeper {
    keeping: Keeping,
    saved_within: Duration,
    /// Users whose state has changed since it was saved.
    changed: BTreeSet<UserOf>,
    pace: SavePace,
    /// Looks whether there is something to save.
    next_look: Option<SpawnHandle>,
    /// Told at the end of the next save.
    held: Vec<Acknowledgement>,
    is_settling: bool,
    catalog: Kept<CatalogWriter>,
    /// Feedback of others, which was on its way when they were deleted, leaves nothing.
    apps: BTreeSet<AppName>,
    _lifeline: Lifeline,
}

impl FeedbackKeeper {
    /// One that follows the catalog when it is started.
    #[must_use]
    pub fn new(
        keeping: Keeping,
        saved_within: Duration,
        catalog: Kept<CatalogWriter>,
        lifeline: Lifeline,
    ) -> Self {
        Self {
            keeping,
            saved_within,
            changed: BTreeSet::new(),
            pace: SavePace::new(saved_within),
            next_look: None,
            held: Vec::new(),
            is_settling: false,
            catalog,
            apps: BTreeSet::new(),
            _lifeline: lifeline,
        }
    }

    /// More often than promised: what comes right after a save has the rest of the time for its
    /// own.
    fn soon(&self) -> Duration {
        (self.saved_within / 4).max(Duration::from_millis(1))
    }

    fn look_in(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let before = self.next_look.replace(ctx.run_later(pause, Self::look));
        if let Some(before) = before {
            ctx.cancel_future(before);
        }
    }

    fn look_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.changed.is_empty() {
            self.look_in(self.soon(), ctx);
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.next_look = None;
        let has_work = !self.changed.is_empty() || self.keeping.learned.may_know_more();
        if has_work {
            // In its turn: a timer that is due comes before what a handler waits for, and nobody
            // may leave memory while they are being saved or brought back.
            ctx.notify(SaveLearned);
        }
        let pause = if has_work { self.soon() } else { self.soon().max(IDLE_LOOK) };
        self.look_in(pause, ctx);
    }

    /// Saves what has changed since the last call, and makes room.
    fn save(&mut self) -> impl ActorFuture<Self, Output = ()> + use<> {
        let changed = std::mem::take(&mut self.changed);
        let held = std::mem::take(&mut self.held);
        let again = changed.clone();
        self.pace.begin(clock::now());
        let saved = self.write(move |keeping| keeping.save(changed));
        saved.map(|failed, keeper, ctx| {
            keeper.changed.extend(failed.unwrap_or(again));
            keeper.pace.end(clock::now());
            keeper.look_soon(ctx);
            held.into_iter().for_each(Acknowledgement::tell);
            keeper.settle(ctx);
        })
    }

    /// Moves what was saved to where it is kept for long, while feedback goes on.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_settling, true) {
            return;
        }
        let log = Arc::clone(&self.keeping.log);
        let settled = tokio::task::spawn_blocking(move || while log.settle() {});
        ctx.spawn(settled.into_actor(self).map(|_, keeper, _| keeper.is_settling = false));
    }

    /// Runs `job` on a thread that may wait for a disk; nothing else is handled meanwhile. `None`:
    /// it panicked.
    fn write<T: Send + 'static, J: FnOnce(&Keeping) -> T + Send + 'static>(
        &self,
        job: J,
    ) -> impl ActorFuture<Self, Output = Option<T>> + use<T, J> {
        let keeping = self.keeping.clone();
        let written = tokio::task::spawn_blocking(move || job(&keeping)).into_actor(self);
        written.map(|written, _, _| {
            written.inspect_err(|error| error!(%error, "policy state cannot be kept")).ok()
        })
    }

    /// Takes feedback in. Who gave it is told now, or once it is saved.
    fn observed(
        &mut self,
        app: &AppName,
        feedback: &[(i64, Contribution)],
        acknowledgement: Acknowledgement,
        ctx: &mut Context<Self>,
    ) {
        self.keeping.learned.learn(app, feedback);
        let users = feedback.iter().map(|(uid, _)| (app.clone(), *uid));
        let was_saved = self.changed.is_empty();
        self.changed.extend(users.chain([(app.clone(), EVERYBODY)]));
        if was_saved {
            self.look_soon(ctx);
        }
        if self.pace.taught(clock::now()) {
            return acknowledgement.tell();
        }
        if self.held.is_empty() {
            // After all that has come by now: one save is for many.
            ctx.notify(SaveLearned);
        }
        self.held.push(acknowledgement);
    }

    /// Of those who gave feedback, users that the store may know and memory does not.
    fn unknown(&self, app: &AppName, feedback: &[(i64, Contribution)]) -> Vec<UserOf> {
        if !self.keeping.learned.may_know_more() {
            return Vec::new();
        }
        let learned = self.keeping.learned.of(app);
        let users = feedback.iter().map(|(uid, _)| *uid).filter(|uid| !learned.knows(*uid));
        users.map(|uid| (app.clone(), uid)).collect()
    }
}

impl Actor for FeedbackKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look_in(self.soon(), ctx);
        // Nothing waits for it to have begun.
        drop(follower::follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

/// Nothing to wait for.
fn done() -> AtomicResponse<FeedbackKeeper, ()> {
    AtomicResponse::new(Box::pin(actix::fut::ready(())))
}

impl Handler<Learn> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, learn: Learn, ctx: &mut Self::Context) -> Self::Result {
        let Learn { app, lesson, acknowledgement } = learn;
        if !self.apps.contains(&app) {
            acknowledgement.tell();
            return done();
        }
        match lesson {
            Lesson::Known(uids, initial) => {
                let written = self.write(move |keeping| {
                    for uid in uids {
                        keeping.log.record(&app, uid, &initial);
                    }
                    acknowledgement.tell();
                });
                AtomicResponse::new(Box::pin(written.map(|_, _, _| ())))
            }
            Lesson::Observed(feedback) => {
                let unknown = self.unknown(&app, &feedback);
                if unknown.is_empty() {
                    self.observed(&app, &feedback, acknowledgement, ctx);
                    return done();
                }
                let loaded = self.write(move |keeping| keeping.load(unknown));
                AtomicResponse::new(Box::pin(loaded.map(move |_, keeper, ctx| {
                    keeper.observed(&app, &feedback, acknowledgement, ctx);
                })))
            }
        }
    }
}

impl Handler<SaveLearned> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: SaveLearned, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(self.save()))
    }
}

impl Handler<Followed> for FeedbackKeeper {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, followed: Followed, _: &mut Self::Context) -> Self::Result {
        if followed.is_state() {
            self.apps.clear();
        }
        let kept = if followed.is_state() { self.keeping.log.apps() } else { BTreeSet::new() };
        let effects = followed.effects(|| Served { traces: kept, ..Served::default() });
        let mut forgotten = Vec::new();
        for effect in effects.iter() {
            match effect {
                Effect::ServeApp(app) => drop(self.apps.insert(app.name.clone())),
                Effect::StopApp(name) => drop(self.apps.remove(name)),
                Effect::ForgetPolicyState(name) => {
                    self.keeping.learned.forget(name);
                    self.changed.retain(|(app, _)| app != name);
                    forgotten.push(name.clone());
                }
                _ => {}
            }
        }
        if forgotten.is_empty() {
            return done();
        }
        let forget = move |keeping: &Keeping| {
            for name in &forgotten {
                keeping.log.forget(name);
            }
        };
        AtomicResponse::new(Box::pin(self.write(forget).map(|_, _, _| ())))
    }
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
