//! The Redis watcher: the only one that talks to Redis, and with Redis the only one that asks for
//! changes of the catalog.
//!
//! ```text
//! management --Change--> mailbox --+                       +--Record--> CatalogWriter --> actors
//! Redis --notices (hints)----------+-> one thing at a time |
//! timers: pulse, reconcile, lease--+   on one Session -----+--transaction, reads--> Redis
//! ContainerPool's list, feedback---+
//! ```
//!
//! A [`Session`] is one connection: subscribe, look for lost data, read the whole tables, then
//! follow them. Any fault ends it; the next one starts after a pause. In between the catalog stays
//! as it is, and changes are refused with the reason. What is done on the session is done in turn
//! (`ctx.wait`), so a notice of our own transaction is looked at after its events are recorded, and
//! finds nothing new. The session's own parts are in the files beside: replica rows, lost data,
//! policy state, malformed entries; none of them knows the watcher.
//!
//! Supervision: [`Kept`] makes a new watcher after a panic; those who waited are told that their
//! change may have been written.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use tokio::sync::{Notify, oneshot, watch};
use tracing::{debug, info, warn};

use super::absences::SharedAbsences;
use super::changes::{Reply, answer};
use super::rollouts::{RolloutNews, SharedRollout};
use super::rows::guess_numbers;
use super::session::{RedisParts, Session};
use super::states::Learnt;
use crate::actors::catalog::writer::Execute;
use crate::store::event::Author;
use crate::store::redis::client::LinkError;
use crate::store::{ChangeError, MetadataWriter};
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::{Kept, Lifeline};
use clipper_clock::Backoff;
use clipper_domain::{AppName, Command};

/// Whether the tables are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// The first attempt is under way.
    Starting,
    Following,
    /// No, for this reason.
    Away(String),
}

/// The way to the watcher. Clones lead to the same one, from any thread.
#[derive(Clone)]
pub struct RedisMetadata {
    watcher: Kept<RedisWatcher>,
    availability: watch::Receiver<Availability>,
    queue_max: usize,
    change_timeout: Duration,
    command_timeout: Duration,
    rollout_lease: Duration,
    /// Names this process among those that look at rollouts.
    process: Arc<str>,
}

impl RedisMetadata {
    /// Starts the watcher; returns when the first attempt to follow the tables has succeeded or
    /// failed.
    pub async fn start(parts: RedisParts, rollout_lease: Duration, budget: RestartBudget) -> Self {
        let (told, mut availability) = watch::channel(Availability::Starting);
        let (config, metrics) = (parts.config.clone(), Arc::clone(&parts.metrics));
        metrics.redis();
        guess_numbers(&parts.data_dir, &parts.containers);
        let watcher = Kept::start("redis_watcher", metrics, budget, move |lifeline| {
            RedisWatcher::new(parts.clone(), told.clone(), lifeline)
        });
        if availability.wait_for(|now| *now != Availability::Starting).await.is_err() {
            warn!("the Redis watcher has ended");
        }
        Self {
            watcher,
            availability,
            queue_max: config.queue_max,
            change_timeout: Duration::from_millis(config.change_timeout_ms),
            command_timeout: Duration::from_millis(config.command_timeout_ms),
            rollout_lease,
            process: Arc::from(format!("{:016x}", rand::random::<u64>())),
        }
    }

    /// Tells the others what this server has seen of a rollout, and hears what they have. None
    /// while Redis is away.
    pub async fn share_rollout(
        &self,
        app: AppName,
        id: u64,
        sums: String,
    ) -> Option<SharedRollout> {
        let (reply, shared) = oneshot::channel();
        let (process, lease) = (self.process.to_string(), self.rollout_lease);
        let news = RolloutNews { app, id, process, sums, lease, reply };
        self.watcher.addr().try_send(ShareRollout(news)).ok()?;
        tokio::time::timeout(self.change_timeout, shared).await.ok()?.ok()
    }

    /// Whether the tables are followed, now and later.
    #[must_use]
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.clone()
    }

    /// Shares a user's policy state, its key and value, that was stored here first. A full mailbox
    /// drops it, as it is soft.
    pub fn learnt(&self, key: String, value: String) {
        if self.watcher.addr().try_send(Tell((key, value))).is_err() {
            debug!("others will not hear of a user's policy state");
        }
    }

    /// Takes this server's rows out of the tables.
    pub async fn leave(&self) {
        let left = self.watcher.send(Leave);
        if !matches!(tokio::time::timeout(self.command_timeout, left).await, Ok(Ok(()))) {
            warn!("this server's rows stay in Redis until their lease ends");
        }
    }
}

/// The shared tables first.
impl MetadataWriter for RedisMetadata {
    fn execute(
        &self,
        command: Command,
        author: Author,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let (reply, answered) = oneshot::channel();
        let change = CatalogChange { change: Execute { command, author }, reply };
        let sent = self.watcher.addr().try_send(change);
        let (limit, queue_max) = (self.change_timeout, self.queue_max);
        Box::pin(async move {
            match sent {
                Ok(()) => {}
                Err(SendError::Full(_)) => {
                    return Err(ChangeError::unavailable(format!(
                        "nothing was written: {queue_max} changes wait already (redis.queue_max)"
                    )));
                }
                Err(SendError::Closed(_)) => {
                    let restarting = "nothing was written: the metadata writer is being restarted";
                    return Err(ChangeError::unavailable(restarting));
                }
            }
            match tokio::time::timeout(limit, answered).await {
                Ok(Ok(result)) => result.map(|_| ()),
                Ok(Err(_)) => Err(ChangeError::unavailable(
                    "the change was not acknowledged (it may still be written): the Redis \
                     session failed",
                )),
                Err(_) => Err(ChangeError::unavailable(
                    "the change was not acknowledged in time (it may still be written)",
                )),
            }
        })
    }

    fn may_be_away(&self) -> bool {
        true
    }
}

pub struct RedisWatcher {
    parts: RedisParts,
    availability: watch::Sender<Availability>,
    backoff: Backoff,
    /// Told when there are notices to look at.
    arrived: Arc<Notify>,
    /// The open connection; absent too while something is done on it.
    session: Option<Session>,
    /// Changes that came before the first attempt has ended.
    early: Vec<CatalogChange>,
    learnt: Vec<Learnt>,
    absences: SharedAbsences,
    _lifeline: Lifeline,
}

impl RedisWatcher {
    fn new(
        parts: RedisParts,
        availability: watch::Sender<Availability>,
        lifeline: Lifeline,
    ) -> Self {
        let config = &parts.config;
        let backoff = Backoff::from_millis(config.backoff_initial_ms, config.backoff_max_ms);
        Self {
            parts,
            availability,
            backoff,
            arrived: Arc::default(),
            session: None,
            early: Vec::new(),
            learnt: Vec::new(),
            absences: SharedAbsences::default(),
            _lifeline: lifeline,
        }
    }

    /// Opens a session; meanwhile changes are refused, or wait for the first attempt.
    fn connect(&mut self, ctx: &mut Context<Self>) {
        let (arrived, absences) = (Arc::clone(&self.arrived), Rc::clone(&self.absences));
        let opening = Session::open(self.parts.clone(), arrived, absences);
        ctx.spawn(opening.into_actor(self).map(move |opened, watcher, ctx| match opened {
            Ok(session) => watcher.follow(session, ctx),
            Err(fault) => watcher.lose(&fault, ctx),
        }));
    }

    fn follow(&mut self, session: Session, ctx: &mut Context<Self>) {
        info!("following the tables in Redis");
        self.session = Some(session);
        self.backoff.reset();
        self.parts.metrics.redis().connected.store(1, Relaxed);
        self.availability.send_replace(Availability::Following);
        ctx.notify(NoticesArrived);
        for change in std::mem::take(&mut self.early) {
            ctx.notify(change);
        }
    }

    /// The session has ended, or none could be opened.
    fn lose(&mut self, fault: &LinkError, ctx: &mut Context<Self>) {
        let reason = fault.to_string();
        self.session = None;
        self.parts.metrics.redis().connected.store(0, Relaxed);
        self.parts.metrics.redis().failures.fetch_add(1, Relaxed);
        let before = self.availability.send_replace(Availability::Away(reason.clone()));
        if !matches!(before, Availability::Away(_)) {
            warn!(reason, "Redis is away: serving goes on from the journal, changes are refused");
        }
        for change in std::mem::take(&mut self.early) {
            refuse(change.reply, &reason);
        }
        ctx.run_later(jittered(self.backoff.next_pause()), Self::connect);
    }

    /// Does something on the session, if there is one; everything else waits until it is done.
    fn with_session<W>(&mut self, ctx: &mut Context<Self>, work: W)
    where
        W: for<'s> FnOnce(&'s mut Session) -> LocalBoxFuture<'s, Result<(), LinkError>> + 'static,
    {
        let Some(mut session) = self.session.take() else { return };
        let done = async move {
            let result = work(&mut session).await;
            (session, result)
        };
        ctx.wait(done.into_actor(self).map(|(session, result), watcher, ctx| match result {
            Ok(()) => {
                if session.has_more() {
                    ctx.notify(NoticesArrived);
                }
                watcher.session = Some(session);
            }
            Err(fault) => watcher.lose(&fault, ctx),
        }));
    }
}

/// Something to do again and again.
type Job = fn(&mut RedisWatcher, &mut Context<RedisWatcher>);

fn every(ctx: &mut Context<RedisWatcher>, millis: u64, job: Job) {
    ctx.run_interval(Duration::from_millis(millis.max(1)), job);
}

fn refuse(reply: Reply, reason: &str) {
    let reason = format!("nothing was written: Redis is away: {reason}");
    answer(reply, Err(ChangeError::unavailable(reason)));
}

/// Half to one and a half of `pause`, so that frontends do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}

impl Actor for RedisWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let config = self.parts.config.clone();
        ctx.set_mailbox_capacity(config.queue_max);
        every(ctx, config.pulse_interval_ms, |watcher, ctx| {
            watcher.with_session(ctx, |session| Box::pin(session.pulse()));
        });
        every(ctx, config.reconcile_interval_ms, |watcher, ctx| {
            watcher.with_session(ctx, |session| Box::pin(session.reconcile_if_changed()));
        });
        every(ctx, config.share_interval_ms, |watcher, ctx| {
            watcher.with_session(ctx, |session| Box::pin(session.share()));
        });
        every(ctx, config.lease_ms / 3, |watcher, ctx| {
            watcher.with_session(ctx, |session| Box::pin(session.renew()));
        });
        let containers = self.parts.containers.clone();
        ctx.add_message_stream(futures_util::stream::unfold(containers, |containers| async move {
            containers.changed().await;
            Some((Mirror, containers))
        }));
        let arrived = Arc::clone(&self.arrived);
        ctx.add_message_stream(futures_util::stream::unfold(arrived, |arrived| async move {
            arrived.notified().await;
            Some((NoticesArrived, arrived))
        }));
        self.connect(ctx);
    }
}

/// Carry out a change of the catalog. Sender: [`RedisMetadata`]. Reply: by the channel in it, after
/// its events are durable here. Full mailbox: refused at once.
#[derive(Message)]
#[rtype(result = "()")]
struct CatalogChange {
    change: Execute,
    reply: Reply,
}

impl Handler<CatalogChange> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, change: CatalogChange, ctx: &mut Context<Self>) {
        let now = self.availability.borrow().clone();
        match now {
            Availability::Following => self.with_session(ctx, |session| {
                Box::pin(session.carry_out(change.change, change.reply))
            }),
            Availability::Starting if self.early.len() < self.parts.config.queue_max => {
                self.early.push(change);
            }
            Availability::Starting => refuse(change.reply, "the first connection is being made"),
            Availability::Away(reason) => refuse(change.reply, &reason),
        }
    }
}

/// Notices have arrived. Sender: the connection, through a stream.
#[derive(Message)]
#[rtype(result = "()")]
struct NoticesArrived;

impl Handler<NoticesArrived> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, _: NoticesArrived, ctx: &mut Context<Self>) {
        self.with_session(ctx, |session| Box::pin(session.look()));
    }
}

/// This server's replicas have changed. Sender: their list, through a stream.
#[derive(Message)]
#[rtype(result = "()")]
struct Mirror;

impl Handler<Mirror> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, _: Mirror, ctx: &mut Context<Self>) {
        self.with_session(ctx, |session| Box::pin(session.mirror()));
    }
}

/// A user's policy state was stored here first. Sender: feedback. Full mailbox: dropped.
#[derive(Message)]
#[rtype(result = "()")]
struct Tell(Learnt);

/// Share what was seen of a rollout. Sender: `RolloutKeeper`. Reply: by the channel in it; dropped
/// while Redis is away. Full mailbox: it stays where it is.
#[derive(Message)]
#[rtype(result = "()")]
struct ShareRollout(RolloutNews);

impl Handler<ShareRollout> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, ShareRollout(news): ShareRollout, ctx: &mut Context<Self>) {
        self.with_session(ctx, |session| Box::pin(session.share_rollout(news)));
    }
}

/// Share what has been learnt. Sender: the watcher itself, once for all that came together.
#[derive(Message)]
#[rtype(result = "()")]
struct TellAll;

impl Handler<Tell> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, Tell(learnt): Tell, ctx: &mut Context<Self>) {
        // Without a session it is told at the next one, from the store.
        if self.session.is_some() {
            if self.learnt.is_empty() {
                ctx.notify(TellAll);
            }
            self.learnt.push(learnt);
        }
    }
}

impl Handler<TellAll> for RedisWatcher {
    type Result = ();

    fn handle(&mut self, _: TellAll, ctx: &mut Context<Self>) {
        let learnt = std::mem::take(&mut self.learnt);
        self.with_session(ctx, |session| Box::pin(async move { session.tell(&learnt).await }));
    }
}

/// Take this server's rows out of the tables. Sender: the composition root, at the end. Reply:
/// done, or Redis is away.
#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for RedisWatcher {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Context<Self>) -> Self::Result {
        let (done, left) = oneshot::channel::<()>();
        self.with_session(ctx, |session| {
            Box::pin(async move {
                let left = session.leave().await;
                drop(done);
                left
            })
        });
        Box::pin(async move { drop(left.await) })
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
