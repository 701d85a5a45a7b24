//! The catalog writer: the only one that changes metadata.
//!
//! ```text
//! Execute --decide--> queue --(one commit at a time)--> Journal thread: append, flush
//!                                                            |
//!      answer <-- all subscribers applied <-- Published <-- CatalogView
//! ```
//!
//! Group commit: commands that arrive while a commit is under way are decided on the state that
//! includes everything accepted before them, and are then written together with one flush. The next
//! commit begins when the one before is durable; that subscribers have applied it is waited for
//! meanwhile. A refusal waits for what it was decided on to be durable. If a write fails and may
//! have left traces, all waiting commands answer `Unavailable` and the state is read again from the
//! store; what turns out to be durable is published.
//!
//! Supervision: the actor keeps nothing that the store does not have. After a panic [`Kept`] makes
//! a new one on the same [`Journal`]; subscribers of the old one subscribe again.
//!
//! [`Kept`]: crate::supervision::kept::Kept

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::event::{Author, Envelope, Event};
use crate::store::journal::Change;
use crate::store::projection::{Catalog, Effect};
use crate::store::replay::Replay;
use crate::store::{CatalogView, ChangeError, Journal, MetadataWriter, StoreError};
use crate::supervision::kept::{Kept, Lifeline};
use clipper_clock as clock;
use clipper_config::JournalConfig;
use clipper_domain::{Command, CommandError};

/// Sender: management handlers, bootstrap. Reply: after the change is durable and every subscriber
/// has applied it, or `journal.publish_timeout_ms` later. Full queue: `Unavailable` at once.
#[derive(Debug, Message)]
#[rtype(result = "Result<Acknowledged, ChangeError>")]
pub struct Execute {
    /// What is asked for.
    pub command: Command,
    pub author: Author,
}

/// Sender: the Redis watcher, about changes that the shared tables have already. Not decided on,
/// only recorded; otherwise as [`Execute`].
#[derive(Debug, Message)]
#[rtype(result = "Result<Acknowledged, ChangeError>")]
pub struct Record {
    /// What has happened; all of it is durable, or nothing.
    pub events: Vec<Event>,
    pub author: Author,
    /// More of the same follows at once: a snapshot waits for the last, as each holds everything.
    pub more: bool,
}

/// Sender: a [follower](super::follower) of anyone that mirrors the state. Reply: the durable state
/// and the changes after it, in order, none missed.
#[derive(Debug, Message)]
#[rtype(result = "Subscribed")]
pub struct Subscribe;

/// Where a subscriber starts from. After a panic of the writer there may still be changes that its
/// predecessor published: those up to `seq` are in the catalog already.
#[derive(Debug)]
pub struct Subscribed {
    /// The last event that the catalog includes.
    pub seq: u64,
    pub catalog: Arc<Catalog>,
    /// What happens after it.
    pub changes: Changes,
}

/// The changes for one subscriber. One that lets `journal.subscriber_queue_max` of them pile up is
/// cut off, which is logged as an error.
#[derive(Debug)]
pub struct Changes {
    queue: mpsc::Receiver<Published>,
    applied: watch::Sender<u64>,
}

impl Changes {
    /// The next one; none after the writer has ended or cut this subscriber off.
    pub async fn next(&mut self) -> Option<Published> {
        self.queue.recv().await
    }

    /// Everything up to this event is applied: who asked for the change may be answered.
    pub fn applied(&self, seq: u64) {
        self.applied.send_replace(seq);
    }
}

/// From the catalog writer to each subscriber. One durable event and what it asks of the actors.
///
/// The whole state is not in it, because copying it for each event would cost milliseconds with
/// many applications; it is in [`CatalogView`], which includes this event by now.
#[derive(Debug, Clone)]
pub struct Published {
    pub envelope: Arc<Envelope>,
    /// What must change outside.
    pub effects: Arc<[Effect]>,
}

/// A change that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its events; none if the state was already as asked for.
    pub events: Vec<Envelope>,
}

type Reply = oneshot::Sender<Result<Acknowledged, ChangeError>>;

/// Batches that are durable and not applied by every subscriber, while the next one is written:
/// more would only pile up in the subscribers' queues.
const APPLYING_MAX: usize = 2;

/// What is asked of the writer.
enum WriterRequest {
    Decide(Command),
    Record { events: Vec<Event>, more: bool },
}

/// A decided command and who waits for it.
struct Pending {
    decision: Result<Change, CommandError>,
    more: bool,
    reply: Reply,
}

struct Subscriber {
    queue: mpsc::Sender<Published>,
    applied: watch::Receiver<u64>,
    lagging: bool,
}

/// The actor. See the module's text.
pub struct CatalogWriter {
    journal: Journal,
    view: CatalogView,
    limits: JournalConfig,
    /// The durable state and everything accepted since.
    accepted: Catalog,
    next_seq: u64,
    queue: Vec<Pending>,
    in_flight: usize,
    /// Durable, but not applied by every subscriber yet: commands, and the batches they came in.
    unanswered: usize,
    applying: usize,
    /// Why nothing can be accepted; the next command tries to read the store again.
    broken: Option<String>,
    subscribers: Vec<Subscriber>,
    since_snapshot: u64,
    _lifeline: Lifeline,
}

impl CatalogWriter {
    /// A writer of `journal`; it reads the state when it is started. Cheap: a factory may call it
    /// again.
    #[must_use]
    pub fn new(journal: Journal, limits: JournalConfig, lifeline: Lifeline) -> Self {
        let view = journal.view();
        Self {
            journal,
            view,
            limits,
            accepted: Catalog::default(),
            next_seq: 0,
            queue: Vec::new(),
            in_flight: 0,
            unanswered: 0,
            applying: 0,
            broken: None,
            subscribers: Vec::new(),
            since_snapshot: 0,
            _lifeline: lifeline,
        }
    }

    fn accept(&mut self, request: WriterRequest, author: &Author, reply: Reply) {
        let recorded_at_ms = clock::unix_millis();
        let (decided, more) = match request {
            WriterRequest::Decide(command) => {
                // What waits to be written moves the state on, too.
                let checked = command.check_base(self.next_seq.saturating_sub(1));
                (checked.and_then(|()| self.accepted.decide(&command)), false)
            }
            WriterRequest::Record { events, more } => (Ok(events), more),
        };
        let decision = decided.map(|events| {
            let envelope = |event| {
                self.accepted.fold(&event);
                let seq = self.next_seq;
                self.next_seq += 1;
                Envelope { seq, recorded_at_ms, author: author.clone(), event }
            };
            events.into_iter().map(envelope).collect()
        });
        self.queue.push(Pending { decision, more, reply });
    }

    /// Takes a request, or answers at once why not; the reply comes within
    /// `journal.commit_timeout_ms`.
    fn request(
        &mut self,
        request: WriterRequest,
        author: &Author,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<Acknowledged, ChangeError>> {
        let (reply, answered) = oneshot::channel();
        if let Some(reason) = &self.broken {
            let reason = format!("nothing was written: the store is not readable: {reason}");
            answer(reply, Err(ChangeError::unavailable(reason)));
            self.reload(ctx);
        } else if self.queue.len() + self.in_flight + self.unanswered >= self.limits.queue_max {
            let reason = format!(
                "nothing was written: {} changes wait already (journal.queue_max)",
                self.limits.queue_max
            );
            answer(reply, Err(ChangeError::unavailable(reason)));
        } else {
            self.accept(request, author, reply);
            self.commit(ctx);
        }
        let limit = Duration::from_millis(self.limits.commit_timeout_ms);
        Box::pin(async move {
            match tokio::time::timeout(limit, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(ChangeError::unavailable(
                    "the change was not acknowledged (it may still be written): its writer failed",
                )),
                Err(_) => Err(ChangeError::unavailable(
                    "the change was not acknowledged in time (it may still be written)",
                )),
            }
        })
    }

    /// Writes everything that waits, unless a commit is under way, or subscribers are that far
    /// behind; what ends then calls this again.
    fn commit(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight > 0 || self.applying >= APPLYING_MAX || self.queue.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.queue);
        self.in_flight = batch.len();
        let changes: Vec<Change> = batch
            .iter()
            .filter_map(|p| p.decision.as_ref().ok())
            .filter(|change| !change.is_empty())
            .cloned()
            .collect();
        if changes.is_empty() {
            self.in_flight = 0;
            return self.answer_when_applied(batch, ctx);
        }
        let journal = self.journal.clone();
        let commit = async move { journal.commit(changes).await };
        ctx.spawn(commit.into_actor(self).map(|result, writer, ctx| match result {
            Ok(()) => writer.committed(batch, ctx),
            Err(error) => writer.failed(batch, &error, ctx),
        }));
    }

    /// The batch is durable: show it, tell the subscribers, write the next one.
    fn committed(&mut self, batch: Vec<Pending>, ctx: &mut Context<Self>) {
        let changes = batch.iter().filter_map(|p| p.decision.as_ref().ok());
        self.publish(changes.flatten());
        let more = batch.iter().any(|p| p.more);
        if !more && self.is_snapshot_due() {
            self.since_snapshot = 0;
            self.journal.snapshot();
        }
        self.in_flight = 0;
        self.answer_when_applied(batch, ctx);
        self.commit(ctx);
    }

    /// A snapshot holds everything, so with many entries it waits for as many changes as make it
    /// worth its writing: the sum of what is written grows with the changes, not with their square.
    fn is_snapshot_due(&self) -> bool {
        let every = self.limits.snapshot_every_events;
        let half = u64::try_from(self.accepted.size() / 2).unwrap_or(u64::MAX);
        self.since_snapshot >= every.max(half)
    }

    fn answer_when_applied(&mut self, batch: Vec<Pending>, ctx: &mut Context<Self>) {
        let seq = self.view.seq();
        self.unanswered += batch.len();
        self.applying += 1;
        ctx.spawn(self.applied(seq).into_actor(self).map(move |(), writer, ctx| {
            writer.review_subscribers(seq);
            writer.unanswered -= batch.len();
            writer.applying -= 1;
            for Pending { decision, reply, .. } in batch {
                answer(reply, decision.map(|events| Acknowledged { events }).map_err(Into::into));
            }
            writer.commit(ctx);
        }));
    }

    /// Nobody is acknowledged: not the batch, nor what was decided on top of it.
    fn failed(&mut self, batch: Vec<Pending>, error: &StoreError, ctx: &mut Context<Self>) {
        let certain = error.certainly_not_written();
        tracing::error!(%error, commands = batch.len(), certain, "a commit failed");
        let doubt = if certain { "nothing was written" } else { "it may still be written" };
        let reason = format!("the change was not acknowledged ({doubt}): {error}");
        for pending in batch {
            answer(pending.reply, Err(ChangeError::unavailable(reason.clone())));
        }
        let reason = format!("nothing was written: the change before it failed: {error}");
        for pending in std::mem::take(&mut self.queue) {
            answer(pending.reply, Err(ChangeError::unavailable(reason.clone())));
        }
        self.in_flight = 0;
        if error.asks_for_reading() {
            self.reload(ctx);
        } else {
            let (seq, catalog) = self.view.copy();
            self.accepted = Arc::unwrap_or_clone(catalog);
            self.next_seq = seq + 1;
        }
    }

    /// Does the view show what was replayed, or something newer that another writer published?
    fn shows_at_least(&self, replay: &Replay) -> bool {
        let (seq, catalog) = self.view.copy();
        seq > replay.seq || *catalog == replay.catalog
    }

    /// Reads the state from the store; messages wait meanwhile, `journal.commit_timeout_ms` at
    /// most.
    fn reload(&mut self, ctx: &mut Context<Self>) {
        let journal = self.journal.clone();
        let shown = self.view.seq();
        let limit = Duration::from_millis(self.limits.commit_timeout_ms);
        let load = async move {
            let late = StoreError::Read { reason: "it does not answer".to_owned() };
            tokio::time::timeout(limit, journal.load(shown)).await.unwrap_or(Err(late))
        };
        ctx.wait(load.into_actor(self).map(move |loaded, writer, ctx| {
            let broken = match loaded {
                Ok(replay) if replay.seq < shown => {
                    let seq = replay.seq;
                    Some(format!("the store went back from event {shown} to {seq}; restart"))
                }
                Ok(replay) => {
                    writer.publish(&replay.tail);
                    debug_assert!(writer.shows_at_least(&replay), "invariant J2");
                    writer.since_snapshot = replay.seq - replay.snapshot_seq;
                    writer.accepted = replay.catalog;
                    writer.next_seq = replay.seq + 1;
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = &broken {
                tracing::error!(reason, "the state cannot be read from the store");
            }
            writer.broken = broken;
            writer.commit(ctx);
        }));
    }

    /// Folds durable events into the view and queues them for every subscriber, in order.
    fn publish<'a>(&mut self, events: impl IntoIterator<Item = &'a Envelope>) {
        for (envelope, effects) in self.view.apply(events) {
            self.since_snapshot += 1;
            let published = Published { envelope: Arc::new(envelope), effects: Arc::from(effects) };
            self.subscribers.retain(|s| match s.queue.try_send(published.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::error!("an actor that applies no changes was cut off");
                    false
                }
            });
        }
    }

    /// Ends when every subscriber that kept up so far has applied event `seq`, or in time.
    fn applied(&self, seq: u64) -> impl Future<Output = ()> + use<> {
        let limit = Duration::from_millis(self.limits.publish_timeout_ms);
        let keeping_up = self.subscribers.iter().filter(|s| !s.lagging);
        let waits: Vec<_> = keeping_up.map(|s| s.applied.clone()).collect();
        async move {
            let all = waits.into_iter().map(|mut applied| async move {
                // An error means that the subscriber is gone, and so has nothing to apply.
                applied.wait_for(|at| *at >= seq).await.is_ok()
            });
            if tokio::time::timeout(limit, futures_util::future::join_all(all)).await.is_err() {
                tracing::warn!(seq, "an actor has not applied a change in time");
            }
        }
    }

    /// Forgets dead subscribers; does not wait again for one that lags, until it has caught up.
    fn review_subscribers(&mut self, seq: u64) {
        self.subscribers.retain(|s| !s.queue.is_closed());
        for subscriber in &mut self.subscribers {
            subscriber.lagging = *subscriber.applied.borrow() < seq;
        }
    }
}

fn answer(reply: Reply, result: Result<Acknowledged, ChangeError>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the command's answer");
    }
}

impl Actor for CatalogWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.limits.queue_max);
        self.reload(ctx);
    }
}

impl Handler<Execute> for CatalogWriter {
    type Result = ResponseFuture<Result<Acknowledged, ChangeError>>;

    fn handle(&mut self, msg: Execute, ctx: &mut Context<Self>) -> Self::Result {
        self.request(WriterRequest::Decide(msg.command), &msg.author, ctx)
    }
}

/// The embedded mode: the catalog writer alone.
impl MetadataWriter for Kept<CatalogWriter> {
    fn execute(
        &self,
        command: Command,
        author: Author,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let answer = self.send(Execute { command, author });
        Box::pin(async move { acknowledged(answer.await) })
    }
}

/// What an asker is told of what a writer has answered, if it still lives.
pub(in crate::actors) fn acknowledged(
    answer: Result<Result<Acknowledged, ChangeError>, MailboxError>,
) -> Result<(), ChangeError> {
    let ended = |_| ChangeError::unavailable("the metadata writer is being restarted");
    answer.map_err(ended)?.map(|_| ())
}

impl Handler<Record> for CatalogWriter {
    type Result = ResponseFuture<Result<Acknowledged, ChangeError>>;

    fn handle(&mut self, msg: Record, ctx: &mut Context<Self>) -> Self::Result {
        let Record { events, author, more } = msg;
        self.request(WriterRequest::Record { events, more }, &author, ctx)
    }
}

impl Handler<Subscribe> for CatalogWriter {
    type Result = MessageResult<Subscribe>;

    fn handle(&mut self, _: Subscribe, _: &mut Context<Self>) -> MessageResult<Subscribe> {
        let (seq, catalog) = self.view.copy();
        let (queue, queued) = mpsc::channel(self.limits.subscriber_queue_max.max(1));
        let (applied_to, applied) = watch::channel(seq);
        self.subscribers.push(Subscriber { queue, applied, lagging: false });
        let changes = Changes { queue: queued, applied: applied_to };
        MessageResult(Subscribed { seq, catalog, changes })
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
