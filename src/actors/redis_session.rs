//! One connection to Redis, from its first packet to its first error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::catalog::{Acknowledged, Execute, Record};
use super::redis_rows::Rows;
use super::redis_watcher::{Job, Jobs, RedisParts, Reply, answer};
use crate::store::ChangeError;
use crate::store::event::{Event, Origin};
use crate::store::redis::client::{ANNOUNCEMENTS, Link, LinkError, Notice};
use crate::store::redis::diff::{Observed, diff};
use crate::store::redis::marker::{Memory, linking_key, mark_of_link};
use crate::store::redis::tables::{Key, Raw, Table};
use crate::store::redis::transaction::{Outcome, Transaction};
use crate::store::redis::writes::{Entries, Write, key_of, keys_of, related, writes};
use clipper_clock::{self as clock, Instant};
use clipper_domain::Command;

/// An announcement that no notice has followed is forgotten after this.
const ANNOUNCED_FOR: Duration = Duration::from_secs(2);

/// Notices looked at together.
const NOTICES_AT_ONCE: usize = 1_000;

/// What a frontend says before it writes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Announcement {
    frontend: String,
    keys: Vec<(i64, String)>,
}

/// An open connection and what is known through it.
pub(super) struct Session {
    pub(super) parts: RedisParts,
    pub(super) link: Link,
    pub(super) memory: Memory,
    pub(super) rows: Rows,
    notices: mpsc::Receiver<Notice>,
    /// Notices were dropped, so the whole tables have to be read.
    overflown: Arc<AtomicBool>,
    announced: HashMap<Key, Instant>,
    malformed: BTreeMap<Key, String>,
    /// Keys of the catalog's tables that are there, as far as notices tell.
    known: BTreeSet<Key>,
    /// The last pulse told of others.
    out_of_step: bool,
    reconciled_at: Option<String>,
}

impl Session {
    /// Connects, subscribes, looks for lost data and reads everything.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn open(parts: &RedisParts) -> Result<Self, String> {
        let memory = Memory::load(&parts.data_dir, || format!("{:016x}", rand::random::<u64>()))
            .map_err(|e| format!("what is remembered of Redis cannot be read: {e}"))?;
        let (link, stream) = Link::open(&parts.settings()).await.map_err(text)?;
        let overflown = Arc::new(AtomicBool::new(false));
        let notices = queue(stream, parts.config.notices_max, Arc::clone(&overflown));
        let mut session = Self {
            parts: parts.clone(),
            link,
            memory,
            rows: Rows::default(),
            notices,
            overflown,
            announced: HashMap::new(),
            malformed: BTreeMap::new(),
            known: BTreeSet::new(),
            out_of_step: false,
            reconciled_at: None,
        };
        // Fails while the server still loads its data.
        session.link.pulse().await.map_err(text)?;
        if let Err(missing) = session.link.enable_notices().await.map_err(text)? {
            warn!(
                missing,
                "Redis sends no notices of changes: let an operator set notify-keyspace-events to \
                 KA; until then changes by others are seen at redis.reconcile_interval_ms"
            );
        }
        let entries = session.sound_tables().await?;
        session.take_whole(entries).await?;
        session.join().await?;
        Ok(session)
    }

    /// Follows the tables and carries jobs out until something fails; tells what.
    pub(super) async fn follow(&mut self, todo: &Jobs) -> String {
        let (mut learnt, mut todo) = (todo.learnt.lock().await, todo.jobs.lock().await);
        let config = &self.parts.config;
        let mut pulse = every(config.pulse_interval_ms);
        let mut reconcile = every(config.reconcile_interval_ms);
        let mut lease = every(config.lease_ms / 3);
        let containers = self.parts.containers.clone();
        loop {
            let done = tokio::select! {
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.look(notice).await,
                    None => Err("the connection for notices was closed".to_owned()),
                },
                Some(job) = todo.recv() => match job {
                    Job::Change(change, reply) => self.carry_out(change, reply).await,
                    Job::Leave(done) => {
                        let left = self.leave().await;
                        // The receiver has only stopped waiting.
                        let _ = done.send(());
                        left
                    }
                },
                Some(first) = learnt.recv() => self.tell_learnt(first, &mut learnt).await,
                () = containers.changed() => self.mirror().await,
                _ = pulse.tick() => self.feel_pulse().await,
                _ = reconcile.tick() => self.reconcile_if_changed().await,
                _ = lease.tick() => self.renew().await,
            };
            if let Err(reason) = done {
                return reason;
            }
        }
    }

    /// Looks at what notices point to, all that have arrived together.
    async fn look(&mut self, first: Notice) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        let (mut rows, mut states) = (BTreeSet::new(), BTreeSet::new());
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(notice) = next {
            taken += 1;
            match notice {
                Notice::Announced(text) => self.announced(&text),
                Notice::Changed(key) if key.table == Table::Container => {
                    rows.insert(key);
                }
                Notice::Changed(key) if key.table == Table::State => {
                    states.insert(key);
                }
                Notice::Changed(key) => keys.extend(related(&key)),
            }
            next = if taken < NOTICES_AT_ONCE { self.notices.try_recv().ok() } else { None };
        }
        if self.overflown.swap(false, Relaxed) {
            warn!("more notices than redis.notices_max: the whole tables are read again");
            let entries = self.link.load().await.map_err(text)?;
            self.take_whole(entries).await?;
            return self.load_rows().await;
        }
        if !keys.is_empty() {
            self.observe(keys).await.map_err(text)?;
        }
        self.look_at_states(&states).await?;
        self.look_at_rows(&rows).await
    }

    fn announced(&mut self, text: &str) {
        let Ok(announcement) = serde_json::from_str::<Announcement>(text) else { return };
        if announcement.frontend == self.memory.frontend {
            return;
        }
        let now = clock::now();
        self.announced.retain(|_, at| now - *at < ANNOUNCED_FOR);
        for (number, name) in announcement.keys {
            let key = Table::from_number(number).map(|table| Key::new(table, &name));
            self.announced.extend(key.map(|key| (key, now)));
        }
    }

    /// Reads `keys` and what gives them their meaning, and records what is new; tells what they
    /// hold and the server's time.
    async fn observe(&mut self, mut keys: BTreeSet<Key>) -> Result<(Entries, u64), LinkError> {
        let (mut entries, now) = self.link.read(&keys).await?;
        let mut observed = Observed::of(&entries);
        loop {
            keys = observed.follow_up().collect();
            if keys.is_empty() {
                break;
            }
            let (more, _) = self.link.read(&keys).await?;
            for (key, raw) in more {
                observed.add(&key, &raw);
                entries.insert(key, raw);
            }
        }
        for key in entries.keys().filter(|key| !observed.malformed.contains_key(*key)) {
            if self.malformed.remove(key).is_some() {
                info!(%key, "an entry in Redis is well-formed again");
            }
        }
        self.report_malformed(&observed);
        for (key, raw) in &entries {
            if *raw == Raw::Absent {
                self.known.remove(key);
            } else {
                self.known.insert(key.clone());
            }
        }
        self.take(&observed, &entries).await?;
        Ok((entries, now))
    }

    fn report_malformed(&mut self, observed: &Observed) {
        for (key, reason) in &observed.malformed {
            if self.malformed.insert(key.clone(), reason.clone()).as_ref() != Some(reason) {
                warn!(%key, reason, "an entry in Redis is passed over until it is fixed");
            }
        }
        self.parts.metrics.redis().malformed.store(self.malformed.len() as u64, Relaxed);
    }

    /// Makes the catalog equal to the whole tables.
    pub(super) async fn take_whole(&mut self, entries: Entries) -> Result<(), String> {
        let mut observed = Observed::of(&entries);
        self.known = entries.keys().cloned().collect();
        observed.complete(&self.parts.view.read());
        self.malformed.retain(|key, _| observed.malformed.contains_key(key));
        self.report_malformed(&observed);
        self.take(&observed, &entries).await.map_err(text)
    }

    async fn take(&mut self, observed: &Observed, entries: &Entries) -> Result<(), LinkError> {
        let (events, marked) = {
            let catalog = self.parts.view.read();
            let marked: Vec<Key> = observed.marked(&catalog).map(Key::model).collect();
            (diff(observed, &catalog), marked)
        };
        self.parts.metrics.redis().events.fetch_add(events.len() as u64, Relaxed);
        let mut rest = events.into_iter().peekable();
        while let Some(event) = rest.next() {
            let origin = self.origin_of(&event);
            let mut batch = vec![event];
            while batch.len() < self.parts.events_at_once
                && let Some(next) =
                    rest.next_if(|next| self.origin_of(next) == origin && !divides(&batch, next))
            {
                batch.push(next);
            }
            let more = rest.peek().is_some();
            self.record(batch, origin, more).await.map_err(LinkError::Failed)?;
        }
        // The second half of a deletion that another management frontend began.
        for key in marked {
            let checks = entries.get_key_value(&key).map(|(k, raw)| (k.clone(), raw.clone()));
            let writes = vec![Write::bare(key, "DEL")];
            let checks = checks.into_iter().collect();
            self.link.commit(&Transaction { checks, writes, ..Transaction::default() }).await?;
        }
        Ok(())
    }

    fn origin_of(&self, event: &Event) -> Origin {
        let now = clock::now();
        let announced = self.announced.get(&key_of(event));
        let fresh = announced.is_some_and(|at| now - *at < ANNOUNCED_FOR);
        if fresh { Origin::Frontend } else { Origin::Redis }
    }

    async fn record(
        &self,
        events: Vec<Event>,
        origin: Origin,
        more: bool,
    ) -> Result<Acknowledged, String> {
        let recorded = self.parts.catalog.send(Record { events, origin, more }).await;
        let recorded = recorded.map_err(|e| format!("the catalog writer: {e}"))?;
        recorded.map_err(|e| format!("the journal: {e}"))
    }

    /// Decides a change on what the tables hold now, writes it there, records it, answers.
    async fn carry_out(&mut self, change: Execute, reply: Reply) -> Result<(), String> {
        let retries = self.parts.config.conflict_retries_max;
        for _ in 0..=retries {
            // Nobody waits any more: it was answered as not written.
            if reply.is_closed() {
                return Ok(());
            }
            let (entries, now) = match self.read_for(&change.command).await {
                Ok(read) => read,
                Err(error) => return fail(reply, "nothing was written", &error),
            };
            let decided = self.parts.view.read().decide(&change.command);
            let events = match decided {
                Ok(events) => events,
                Err(refusal) => {
                    answer(reply, Err(refusal.into()));
                    return Ok(());
                }
            };
            let transaction = self.transaction(&events, entries, now);
            match self.link.commit(&transaction).await {
                Ok(Outcome::Done) => return self.recorded(events, change.origin, reply).await,
                Ok(Outcome::Conflict) => {
                    self.parts.metrics.redis().conflicts.fetch_add(1, Relaxed);
                }
                Ok(Outcome::Late) => {
                    let late = LinkError::Failed("it answers too late".to_owned());
                    return fail(reply, "nothing was written", &late);
                }
                Err(error) => return fail(reply, "it may still be written", &error),
            }
        }
        let reason = format!("nothing was written: others were first {} times", retries + 1);
        answer(reply, Err(ChangeError::unavailable(reason)));
        Ok(())
    }

    /// Reads what decides about `command`.
    async fn read_for(&mut self, command: &Command) -> Result<(Entries, u64), LinkError> {
        let linking = self.learn_links(command).await?;
        let keys = keys_of(command, &self.parts.view.read());
        let (mut entries, now) = self.observe(keys).await?;
        entries.extend(linking);
        Ok((entries, now))
    }

    /// A version's input type must suit all applications that are linked to its model. Which these
    /// are is known from notices, and the newest may still be on its way: if there was a link
    /// lately, all are read. What the mark of it was then must still be so at the write.
    async fn learn_links(&mut self, command: &Command) -> Result<Entries, LinkError> {
        let model = match command {
            Command::AddModel(model) | Command::StageModel(model) => &model.id.name,
            Command::Deploy(deployment) => &deployment.model.id.name,
            Command::SetModelVersion(id) | Command::DeleteUnqueriedModel(id) => &id.name,
            _ => return Ok(Entries::new()),
        };
        let (mark, _) = self.link.read(&[linking_key(model)].into()).await?;
        if mark.values().any(|raw| *raw != Raw::Absent) {
            let links = self.link.keys(Table::Links, None).await?;
            self.observe(links.iter().flat_map(related).collect()).await?;
        }
        Ok(mark)
    }

    fn transaction(&self, events: &[Event], entries: Entries, now: u64) -> Transaction {
        let mut writes: Vec<Write> = events.iter().flat_map(|e| writes(e, &entries)).collect();
        let linked = events.iter().filter_map(|event| match event {
            Event::ModelLinked { model, .. } => Some(model),
            _ => None,
        });
        writes.extend(linked.map(|model| mark_of_link(model, rand::random())));
        let keys = writes.iter().map(|write| {
            (write.key.table.number(), String::from_utf8_lossy(&write.key.name).into_owned())
        });
        let keys: BTreeSet<(i64, String)> = keys.collect();
        let announcement = Announcement {
            frontend: self.memory.frontend.clone(),
            keys: keys.into_iter().collect(),
        };
        let announce = serde_json::to_string(&announcement).ok();
        Transaction {
            checks: entries,
            writes,
            announce: announce.map(|text| (ANNOUNCEMENTS.to_owned(), text)),
            // The answer is waited for as long, so a change that gets none is written by then or
            // never.
            latest_ms: Some(now + self.parts.config.command_timeout_ms),
        }
    }

    /// Policy state of a deleted application goes from the shared table too.
    async fn forget_states(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            if let Event::AppDeleted { name } = event {
                self.remove_states(name).await?;
            }
        }
        Ok(())
    }

    async fn recorded(
        &mut self,
        events: Vec<Event>,
        origin: Origin,
        reply: Reply,
    ) -> Result<(), String> {
        match self.record(events.clone(), origin, false).await {
            Ok(acknowledged) => {
                answer(reply, Ok(acknowledged));
                self.forget_states(&events).await
            }
            Err(reason) => {
                let reason = format!("it is in Redis, but was not acknowledged: {reason}");
                answer(reply, Err(ChangeError::unavailable(reason.clone())));
                Err(reason)
            }
        }
    }

    /// Notices tell of everything but emptied tables and a dead connection.
    async fn feel_pulse(&mut self) -> Result<(), String> {
        let pulse = self.link.pulse().await.map_err(text)?;
        if pulse.marker != self.memory.marker {
            return Err("the marker in table 4 is gone or another".to_owned());
        }
        let known = Table::CATALOG.map(|table| {
            let first = Key { table, name: Vec::new() };
            self.known.range(first..).take_while(|key| key.table == table).count()
        });
        let in_step = known.iter().zip(&pulse.sizes).all(|(n, size)| *n as u64 == *size);
        // Once may be a notice on its way; twice is a table that was emptied.
        let again = std::mem::replace(&mut self.out_of_step, !in_step);
        if again && !in_step { self.reconcile().await } else { Ok(()) }
    }

    async fn reconcile_if_changed(&mut self) -> Result<(), String> {
        let changes = self.link.change_count().await.map_err(text)?;
        if changes.is_some() && changes == self.reconciled_at {
            return Ok(());
        }
        self.reconciled_at = changes;
        self.reconcile().await
    }

    async fn reconcile(&mut self) -> Result<(), String> {
        let entries = self.link.load().await.map_err(text)?;
        self.take_whole(entries).await?;
        self.load_rows().await
    }
}

/// Applications go before the models they query: a batch is acknowledged when every actor has
/// applied it, so that nobody is told of a model without replicas before being told 404.
fn divides(batch: &[Event], next: &Event) -> bool {
    let retires = |event: &Event| matches!(event, Event::ModelVersionRetired { .. });
    retires(next) && batch.last().is_some_and(|last| !retires(last))
}

/// Answers that the change failed; ends the session unless Redis has answered.
fn fail(reply: Reply, doubt: &str, error: &LinkError) -> Result<(), String> {
    let refused = matches!(error, LinkError::Refused(_));
    let doubt = if refused { "nothing was written" } else { doubt };
    error!(%error, doubt, "a change was not carried out");
    answer(reply, Err(ChangeError::unavailable(format!("{doubt}: Redis: {error}"))));
    if refused { Ok(()) } else { Err(error.to_string()) }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn text(error: LinkError) -> String {
    error.to_string()
}

fn every(millis: u64) -> tokio::time::Interval {
    let period = Duration::from_millis(millis.max(1));
    let mut interval = tokio::time::interval_at(clock::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Keeps at most `max` notices; what is too much is dropped and remembered as such.
fn queue(
    stream: impl Stream<Item = Notice> + 'static,
    max: usize,
    overflown: Arc<AtomicBool>,
) -> mpsc::Receiver<Notice> {
    let (sender, receiver) = mpsc::channel(max);
    actix::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let notice = tokio::select! {
                notice = stream.next() => notice,
                () = sender.closed() => return,
            };
            match notice.map(|notice| sender.try_send(notice)) {
                Some(Ok(())) => {}
                Some(Err(mpsc::error::TrySendError::Full(_))) => overflown.store(true, Relaxed),
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => return,
            }
        }
    });
    receiver
}
