//! The Redis watcher: the only one that talks to Redis, and with Redis the only one that asks for
//! changes of the catalog.
//!
//! ```text
//! management --Execute--> queue --+                      +--Record--> CatalogWriter --> actors
//! Redis --notices (hints)---------+-> session, one after |
//! timers: pulse, reconcile, lease-+   the other ---------+--transaction, reads--> Redis
//! ContainerPool's list -----------+
//! ```
//!
//! A session is one connection: subscribe, look for lost data, read the whole tables, then follow
//! them. Any error ends it; the next one starts after a pause. In between the catalog stays as it
//! is, and changes are refused with the reason. One loop does everything in turn, so a notice of
//! our own transaction is looked at after its events are recorded, and finds nothing new.
//!
//! Supervision: the loop runs as a task of its own; if it panics, the actor starts it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::catalog::{Acknowledged, CatalogWriter, Execute, acknowledged};
use super::container_pool::ContainerList;
use super::kept::Kept;
use super::redis_rows::guess_numbers;
use super::redis_session::Session;
use crate::config::RedisConfig;
use crate::metrics::Metrics;
use crate::store::event::Origin;
use crate::store::policy_state::PolicyStateStore;
use crate::store::redis::client::Settings;
use crate::store::{CatalogView, ChangeError, MetadataWriter};
use clipper_clock::Backoff;
use clipper_domain::Command;

/// What the watcher works with.
#[derive(Clone)]
pub struct RedisParts {
    /// Where Redis is.
    pub url: String,
    /// Limits.
    pub config: RedisConfig,
    /// Who records events.
    pub catalog: Kept<CatalogWriter>,
    /// What is recorded.
    pub view: CatalogView,
    /// The replicas.
    pub containers: ContainerList,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What applications have learnt.
    pub states: PolicyStateStore,
    /// Where it remembers its Redis.
    pub data_dir: PathBuf,
    /// Events recorded at once, so that no subscriber falls behind.
    pub events_at_once: usize,
}

impl RedisParts {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            url: self.url.clone(),
            connect_timeout: Duration::from_millis(self.config.connect_timeout_ms),
            command_timeout: Duration::from_millis(self.config.command_timeout_ms),
        }
    }
}

/// The shared tables first.
impl MetadataWriter for Addr<RedisWatcher> {
    fn execute(
        &self,
        command: Command,
        origin: Origin,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let answer = self.send(Execute { command, origin });
        Box::pin(async move { acknowledged(answer.await) })
    }

    fn may_be_away(&self) -> bool {
        true
    }
}

/// Whether the tables are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Availability {
    /// The first attempt is under way.
    Starting,
    /// Yes.
    Following,
    /// No, for this reason.
    Away(String),
}

pub(super) type Reply = oneshot::Sender<Result<Acknowledged, ChangeError>>;

/// Something for the session to do in its turn.
pub(super) enum Job {
    Change(Execute, Reply),
    /// Take this server's rows out of the tables.
    Leave(oneshot::Sender<()>),
}

/// A user's policy state that was stored here first: its key and value.
pub type Learnt = (String, String);

/// What the sessions do in turn; each takes it over from the one before.
pub(super) struct Jobs {
    pub(super) jobs: Mutex<mpsc::Receiver<Job>>,
    pub(super) learnt: Mutex<mpsc::Receiver<Learnt>>,
}

/// The actor.
pub struct RedisWatcher {
    parts: RedisParts,
    jobs: mpsc::Sender<Job>,
    learnt: mpsc::Sender<Learnt>,
    todo: Arc<Jobs>,
    availability: watch::Sender<Availability>,
}

impl RedisWatcher {
    /// A watcher that connects when it is started.
    #[must_use]
    pub fn new(parts: RedisParts) -> Self {
        let (jobs, jobs_todo) = mpsc::channel(parts.config.queue_max);
        let (learnt, learnt_todo) = mpsc::channel(parts.config.queue_max);
        let todo = Jobs { jobs: Mutex::new(jobs_todo), learnt: Mutex::new(learnt_todo) };
        let availability = watch::Sender::new(Availability::Starting);
        parts.metrics.redis();
        guess_numbers(&parts);
        Self { parts, jobs, learnt, todo: Arc::new(todo), availability }
    }

    /// Where policy state goes that others should know; a full queue drops it, as it is soft.
    #[must_use]
    pub fn learnt(&self) -> mpsc::Sender<Learnt> {
        self.learnt.clone()
    }

    /// Starts it on a thread of its own; returns when the first attempt to follow the tables has
    /// succeeded or failed.
    pub async fn follow(self) -> Addr<Self> {
        let mut availability = self.availability.subscribe();
        let watcher = Self::start_in_arbiter(&Arbiter::new().handle(), |_| self);
        if availability.wait_for(|now| *now != Availability::Starting).await.is_err() {
            warn!("the Redis watcher has ended");
        }
        watcher
    }

    /// Runs the loop as a task, so that its panic does not end the actor.
    fn keep_running(&self, ctx: &mut Context<Self>) {
        let run = run(self.parts.clone(), Arc::clone(&self.todo), self.availability.clone());
        let ended = actix::spawn(run).into_actor(self);
        ctx.spawn(ended.map(|ended, watcher, ctx| {
            error!(panicked = ended.is_err(), "the Redis session has failed; it is started again");
            watcher.parts.metrics.actor_restarted("redis_watcher");
            let pause = Duration::from_millis(watcher.parts.config.backoff_max_ms);
            ctx.run_later(pause, |watcher, ctx| watcher.keep_running(ctx));
        }));
    }
}

/// Sessions, one after the other, for ever.
async fn run(parts: RedisParts, todo: Arc<Jobs>, availability: watch::Sender<Availability>) {
    let config = parts.config.clone();
    let mut backoff = Backoff::from_millis(config.backoff_initial_ms, config.backoff_max_ms);
    loop {
        let opened = tokio::select! {
            opened = Session::open(&parts) => opened,
            never = refuse(&todo, &availability) => match never {},
        };
        let reason = match opened {
            Ok(mut session) => {
                info!("following the tables in Redis");
                parts.metrics.redis().connected.store(1, Relaxed);
                availability.send_replace(Availability::Following);
                backoff.reset();
                session.follow(&todo).await
            }
            Err(reason) => reason,
        };
        parts.metrics.redis().connected.store(0, Relaxed);
        parts.metrics.redis().failures.fetch_add(1, Relaxed);
        let before = availability.send_replace(Availability::Away(reason.clone()));
        if !matches!(before, Availability::Away(_)) {
            warn!(reason, "Redis is away: serving goes on from the journal, changes are refused");
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(backoff.next_pause())) => {}
            never = refuse(&todo, &availability) => match never {},
        }
    }
}

/// Half to one and a half of `pause`, so that frontends do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}

/// Refuses jobs while Redis is away; before the first attempt has ended they wait.
async fn refuse(
    todo: &Jobs,
    availability: &watch::Sender<Availability>,
) -> std::convert::Infallible {
    let mut todo = todo.jobs.lock().await;
    loop {
        let reason = match &*availability.borrow() {
            Availability::Away(reason) => Some(reason.clone()),
            Availability::Starting | Availability::Following => None,
        };
        let Some(reason) = reason else { std::future::pending().await };
        match todo.recv().await {
            Some(Job::Change(_, reply)) => {
                let reason = format!("nothing was written: Redis is away: {reason}");
                answer(reply, Err(ChangeError::unavailable(reason)));
            }
            // The rows go when their lease ends.
            Some(Job::Leave(done)) => drop(done),
            None => std::future::pending().await,
        }
    }
}

pub(super) fn answer(reply: Reply, result: Result<Acknowledged, ChangeError>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the change any more");
    }
}

impl Actor for RedisWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.parts.config.queue_max);
        self.keep_running(ctx);
    }
}

impl Handler<Execute> for RedisWatcher {
    type Result = ResponseFuture<Result<Acknowledged, ChangeError>>;

    fn handle(&mut self, change: Execute, _: &mut Context<Self>) -> Self::Result {
        let (reply, answered) = oneshot::channel();
        let queued = self.jobs.try_send(Job::Change(change, reply));
        let queue_max = self.parts.config.queue_max;
        let limit = Duration::from_millis(self.parts.config.change_timeout_ms);
        Box::pin(async move {
            if queued.is_err() {
                return Err(ChangeError::unavailable(format!(
                    "nothing was written: {queue_max} changes wait already (redis.queue_max)"
                )));
            }
            match tokio::time::timeout(limit, answered).await {
                Ok(Ok(result)) => result,
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
}

/// Take this server's rows out of the tables. Sender: the composition root, at the end. Reply:
/// done, or Redis is away.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LeaveRedis;

impl Handler<LeaveRedis> for RedisWatcher {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: LeaveRedis, _: &mut Context<Self>) -> Self::Result {
        let (done, left) = oneshot::channel();
        let queued = self.jobs.try_send(Job::Leave(done));
        let limit = Duration::from_millis(self.parts.config.command_timeout_ms);
        Box::pin(async move {
            if queued.is_err() || !matches!(tokio::time::timeout(limit, left).await, Ok(Ok(()))) {
                warn!("this server's rows stay in Redis until their lease ends");
            }
        })
    }
}
