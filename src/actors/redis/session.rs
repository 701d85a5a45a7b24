//! One connection to Redis, from its first packet to its first error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;

use super::absences::SharedAbsences;
use super::loss::{DataLoss, evicted_since};
use super::malformed::Malformed;
use super::not_recorded::NotRecorded;
use super::notices::{Announcement, Notices};
use super::rows::ContainerRows;
use super::states::SharedStates;
use crate::actors::catalog::writer::{Acknowledged, CatalogWriter, Record};
use crate::actors::plane::learned_states::LearnedStates;
use crate::actors::pool::list::ContainerList;
use crate::metrics::Metrics;
use crate::store::CatalogView;
use crate::store::event::{Author, Event, Origin};
use crate::store::policy_state::PolicyStateStore;
use crate::store::projection::turn::Turn;
use crate::store::redis::client::{Condition, Happened, Link, LinkError, Notice, Settings};
use crate::store::redis::diff::{Observed, diff};
use crate::store::redis::keys::{has, samples};
use crate::store::redis::marker::{Peer, Remembered};
use crate::store::redis::tables::{Key, Raw, Table, replicas_of};
use crate::store::redis::transaction::Transaction;
use crate::store::redis::writes::{Entries, Write, key_of, related};
use crate::supervision::kept::Kept;
use clipper_clock::{self as clock, Instant};
use clipper_config::RedisConfig;
use clipper_domain::{Asker, ModelId};

/// What the watcher works with.
#[derive(Clone)]
pub struct RedisParts {
    pub url: String,
    pub config: RedisConfig,
    pub catalog: Kept<CatalogWriter>,
    pub view: CatalogView,
    pub containers: ContainerList,
    pub metrics: Arc<Metrics>,
    /// What applications have learnt.
    pub states: PolicyStateStore,
    /// Of them, what policies have learned.
    pub learned: Arc<LearnedStates>,
    /// Where it remembers its Redis.
    pub data_dir: PathBuf,
    /// Events recorded at once, so that no subscriber falls behind.
    pub events_at_once: usize,
    /// What this server says of itself to the others.
    pub me: Peer,
}

impl RedisParts {
    fn settings(&self) -> Settings {
        Settings {
            url: self.url.clone(),
            connect_timeout: Duration::from_millis(self.config.connect_timeout_ms),
            command_timeout: Duration::from_millis(self.config.command_timeout_ms),
        }
    }
}

/// An announcement that no notice has followed is forgotten after this.
const ANNOUNCED_FOR: Duration = Duration::from_secs(2);

/// Between two looks at who is connected.
const ASKED_WHO_EVERY: Duration = Duration::from_secs(1);

/// Whether Redis may know whose doing something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// It has just been done.
    Asked,
    /// It may be long ago.
    Unknown,
}

/// Notices looked at together.
const NOTICES_AT_ONCE: usize = 1_000;

/// An open connection and what is known through it.
pub(super) struct Session {
    pub(super) parts: RedisParts,
    pub(super) link: Link,
    pub(super) remembered: Remembered,
    pub(super) rows: ContainerRows,
    pub(super) states: SharedStates,
    pub(super) loss: DataLoss,
    pub(super) malformed: Malformed,
    pub(super) notices: Notices,
    /// Redis tells of changes; else everything has to be looked at again and again.
    pub(super) told: bool,
    /// When Redis was asked last who its clients are.
    asked_who_at: Option<Instant>,
    announced: HashMap<Key, (Instant, Rc<Asker>)>,
    /// What the last pulse has looked for: each looks for other keys.
    looked_for: Turn,
    /// The last pulse missed keys that no notice told of.
    out_of_step: bool,
    pub(super) reconciled_at: Option<String>,
}

impl Session {
    /// Connects, subscribes, looks for lost data and reads everything; `arrived` is told whenever
    /// there are notices to look at.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn open(
        parts: RedisParts,
        arrived: Arc<Notify>,
        absences: SharedAbsences,
    ) -> Result<Self, LinkError> {
        let remembered = Remembered::load(&parts.data_dir)?;
        let (link, stream) = Link::open(&parts.settings()).await?;
        let (view, metrics) = (parts.view.clone(), Arc::clone(&parts.metrics));
        let (max, known) = (parts.config.notices_max, Rc::clone(&absences));
        let notices = Notices::queue(stream, max, arrived, view.clone(), known);
        let on_data_loss = parts.config.on_data_loss;
        let loss = DataLoss::new(view.clone(), on_data_loss, Arc::clone(&metrics), absences);
        let (states, learned) = (parts.states.clone(), Arc::clone(&parts.learned));
        let me = remembered.memory.frontend.clone();
        let mut session = Self {
            link,
            remembered,
            rows: ContainerRows::new(
                parts.containers.clone(),
                parts.config.lease_ms,
                parts.me.clone(),
            ),
            states: SharedStates::new(states, learned, view, me),
            loss,
            malformed: Malformed::new(metrics),
            notices,
            told: true,
            asked_who_at: None,
            announced: HashMap::new(),
            looked_for: Turn::default(),
            out_of_step: false,
            reconciled_at: None,
            parts,
        };
        // Fails while the server still loads its data.
        session.link.pulse(&[]).await?;
        if let Err(missing) = session.link.enable_notices().await? {
            session.told = false;
            warn!(
                %missing,
                "Redis sends no notices of changes: let an operator set notify-keyspace-events to \
                 KA; until then changes by others are seen at redis.reconcile_interval_ms"
            );
        }
        let mut tables =
            session.loss.sound_tables(&mut session.link, &mut session.remembered).await?;
        session.look_for_missing(&mut tables.entries, true).await?;
        session.take_whole(tables).await?;
        session.rows.join(&mut session.link, &mut session.remembered).await?;
        session.states.join(&mut session.link).await?;
        session.loss.heal(&mut session.link).await?;
        Ok(session)
    }

    /// Looks at what notices point to, all that have arrived together.
    pub(super) async fn look(&mut self) -> Result<(), LinkError> {
        let mut keys = BTreeSet::new();
        let (mut rows, mut states) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..NOTICES_AT_ONCE {
            match self.notices.next()? {
                Some(Notice::Announced(text)) => keys.extend(self.announced(&text)),
                Some(Notice::Changed(key, _)) if key.table == Table::Container => {
                    rows.insert(key);
                }
                Some(Notice::Changed(key, _)) if key.table == Table::State => {
                    states.insert(key);
                }
                Some(Notice::Changed(key, happened)) => keys.extend(self.sort(&key, happened)),
                None => break,
            }
        }
        if self.notices.take_overflow() {
            warn!("more notices than redis.notices_max: the whole tables are read again");
            self.reconcile(true).await?;
            return self.states.join(&mut self.link).await;
        }
        if !keys.is_empty() {
            self.observe(keys).await?;
        }
        self.states.look(&mut self.link, &states).await.map(drop)?;
        self.rows.look(&mut self.link, &self.remembered, &rows).await
    }

    /// Whether more has arrived than one look takes.
    pub(super) fn has_more(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The keys to read because of a notice of the catalog's tables; none for what is not ours.
    fn sort(&mut self, key: &Key, happened: Happened) -> Vec<Key> {
        match happened {
            Happened::Written => related(key),
            Happened::GivenUp if has(&self.view(), key) => Vec::new(),
            _ if has(&self.view(), key) => related(key),
            Happened::GivenUp => {
                self.malformed.gone(key);
                Vec::new()
            }
            _ if self.malformed.contains(key) => related(key),
            _ => Vec::new(),
        }
    }

    /// Notes what another frontend is about to write; tells what no notice will tell of.
    fn announced(&mut self, text: &str) -> Vec<Key> {
        let Ok(announcement) = serde_json::from_str::<Announcement>(text) else {
            return Vec::new();
        };
        if announcement.frontend == self.remembered.memory.frontend {
            return Vec::new();
        }
        let now = clock::now();
        self.announced.retain(|_, (at, _)| now - *at < ANNOUNCED_FOR);
        let asker = Rc::new(announcement.asker);
        let key =
            |(number, name): (i64, String)| Some(Key::new(Table::from_number(number)?, &name));
        let keys: Vec<Key> = announcement.keys.into_iter().filter_map(key).collect();
        self.announced.extend(keys.iter().cloned().map(|key| (key, (now, Rc::clone(&asker)))));
        keys.into_iter().filter(|key| key.table == Table::Resource).collect()
    }

    /// Everything that Redis has told so far has been heard when this returns: what it gave up by
    /// itself is known before a missing key is taken for a deleted one. False if it may have told
    /// more.
    pub(super) async fn fence(&mut self) -> Result<bool, LinkError> {
        let fence = format!("fence:{:016x}", rand::random::<u64>());
        if !self.link.announce(&fence).await? {
            return Ok(false);
        }
        let limit = Duration::from_millis(self.parts.config.command_timeout_ms);
        self.notices.hear_until(&fence, limit).await
    }

    /// Reads `keys` and what gives them their meaning, and records what is new; tells what they
    /// hold and the server's time.
    pub(super) async fn observe(
        &mut self,
        mut keys: BTreeSet<Key>,
    ) -> Result<(Entries, u64), LinkError> {
        let (mut entries, now) = self.read(&keys).await?;
        let mut observed = Observed::of(&entries);
        loop {
            keys = observed.follow_up().collect();
            if keys.is_empty() {
                break;
            }
            let (more, _) = self.read(&keys).await?;
            for (key, raw) in more {
                observed.add(&key, &raw);
                entries.insert(key, raw);
            }
        }
        let gone = |(key, raw): (&Key, &Raw)| *raw == Raw::Absent && has(&self.view(), key);
        let heard_all = !entries.iter().any(gone) || self.fence().await?;
        let absent = || entries.iter().filter(|(_, raw)| **raw == Raw::Absent).map(|(key, _)| key);
        if !heard_all {
            self.loss.absences.borrow_mut().missed_notices(absent());
        }
        for key in absent() {
            if self.loss.absences.borrow().is_given_up(key) {
                observed.believe(key, &self.view());
                continue;
            }
            self.loss.absences.borrow_mut().forget(key);
            if let Some(id) = replicas_of(key).filter(|_| self.announced_by(key).is_some()) {
                observed.release(id);
            }
        }
        self.malformed.read(entries.keys(), &observed.malformed);
        self.take(&mut observed, &entries, Whose::Asked).await?;
        Ok((entries, now))
    }

    /// What keys hold. What notices that were heard before say of the absence of those that are
    /// there is past; notices of later are still to be heard.
    pub(super) async fn read(&mut self, keys: &BTreeSet<Key>) -> Result<(Entries, u64), LinkError> {
        let read = self.link.read(keys).await?;
        self.saw(&read.0);
        Ok(read)
    }

    pub(super) fn saw(&self, entries: &Entries) {
        let mut absences = self.loss.absences.borrow_mut();
        let there = entries.iter().filter(|(_, raw)| **raw != Raw::Absent);
        there.for_each(|(key, _)| absences.saw(key));
    }

    pub(super) fn view(&self) -> crate::store::view::CatalogRead<'_> {
        self.parts.view.read()
    }

    pub(super) async fn take(
        &mut self,
        observed: &mut Observed,
        entries: &Entries,
        whose: Whose,
    ) -> Result<(), LinkError> {
        if !self.parts.me.keeps_planned {
            observed.ignore_replicas();
        }
        let (events, marked) = {
            let catalog = self.parts.view.read();
            let marked: Vec<ModelId> = observed.marked(&catalog).cloned().collect();
            (diff(observed, &catalog), marked)
        };
        self.parts.metrics.redis().events.fetch_add(events.len() as u64, Relaxed);
        let retired = events.iter().filter_map(|event| match event {
            Event::ModelVersionRetired { id } => Some(Write::bare(Key::replicas(id), "DEL")),
            _ => None,
        });
        let plans: Vec<Write> = retired.collect();
        let strangers = match whose {
            Whose::Asked => self.strangers(&events).await?,
            Whose::Unknown => BTreeMap::new(),
        };
        let mut rest = events.into_iter().peekable();
        while let Some(event) = rest.next() {
            let author = self.author_of(&event, &strangers);
            let mut batch = vec![event];
            while batch.len() < self.parts.events_at_once
                && let Some(next) = rest.next_if(|next| {
                    self.author_of(next, &strangers) == author && !divides(&batch, next)
                })
            {
                batch.push(next);
            }
            let more = rest.peek().is_some();
            let recorded = self.record(batch, author, more).await;
            recorded.map_err(|why| LinkError::Failed(why.to_string()))?;
        }
        // The second half of a deletion that another management frontend began.
        for key in marked.iter().map(Key::model) {
            let checks = entries.get_key_value(&key).map(|(k, raw)| (k.clone(), raw.clone()));
            let writes = vec![Write::bare(key, "DEL")];
            let checks = checks.into_iter().collect();
            self.link.commit(&Transaction { checks, writes, ..Transaction::default() }).await?;
        }
        // Whoever else deletes a version knows nothing of the plan of its replicas.
        self.link.write_soft(&plans).await
    }

    fn announced_by(&self, key: &Key) -> Option<Author> {
        let (at, asker) = self.announced.get(key)?;
        let is_fresh = clock::now() - *at < ANNOUNCED_FOR;
        is_fresh.then(|| Author { origin: Origin::Frontend, asker: Asker::clone(asker) })
    }

    /// Who may have written what no frontend has announced. Asked once a second at most, as Redis
    /// tells of all clients.
    async fn strangers(&mut self, events: &[Event]) -> Result<BTreeMap<Table, Asker>, LinkError> {
        let keys = events.iter().map(key_of);
        let strange = keys.filter(|key| self.announced_by(key).is_none()).map(|key| key.table);
        let tables: BTreeSet<Table> = strange.collect();
        let now = clock::now();
        let is_early = self.asked_who_at.is_some_and(|at| now - at < ASKED_WHO_EVERY);
        if tables.is_empty() || is_early {
            return Ok(BTreeMap::new());
        }
        self.asked_who_at = Some(now);
        self.link.writers(&tables).await
    }

    fn author_of(&self, event: &Event, strangers: &BTreeMap<Table, Asker>) -> Author {
        let key = key_of(event);
        let stranger = || Author {
            origin: Origin::Redis,
            asker: strangers.get(&key.table).cloned().unwrap_or_default(),
        };
        self.announced_by(&key).unwrap_or_else(stranger)
    }

    pub(super) async fn record(
        &self,
        events: Vec<Event>,
        author: Author,
        more: bool,
    ) -> Result<Acknowledged, NotRecorded> {
        Ok(self.parts.catalog.send(Record { events, author, more }).await??)
    }

    /// Notices tell of everything but emptied tables, a changed role and a dead connection.
    pub(super) async fn pulse(&mut self) -> Result<(), LinkError> {
        let looked_for = self.view().turn_after(&self.looked_for);
        let samples = samples(&looked_for);
        self.looked_for = looked_for;
        let pulse = self.link.pulse(&samples).await?;
        let condition = self.link.condition().await?;
        if condition.replica {
            return Err(LinkError::Unfit("READONLY: it has become a replica".to_owned()));
        }
        let evicted = evicted_since(&self.remembered, &condition).then_some(condition);
        if pulse.marker != self.remembered.memory.marker {
            return self.marker_changed(pulse.marker, evicted).await;
        }
        if let Some(condition) = evicted {
            self.reconcile_after_eviction(&condition).await?;
        }
        let given_up = |key: &Key| self.loss.absences.borrow().is_given_up(key);
        let ours = |key: &Key| has(&self.view(), key) && !given_up(key);
        let missed = samples.iter().zip(&pulse.present).any(|(key, there)| !there && ours(key));
        // Once may be a notice on its way; twice is a table that was emptied.
        let again = std::mem::replace(&mut self.out_of_step, missed);
        if again && missed {
            self.reconcile(true).await?;
        }
        self.loss.heal(&mut self.link).await
    }

    async fn marker_changed(
        &mut self,
        marker: Option<String>,
        evicted: Option<Condition>,
    ) -> Result<(), LinkError> {
        if marker.is_some() {
            // Somebody else has judged, and marked what there is.
            self.remembered.memory.marker = marker;
            self.remembered.keep()?;
            return self.reconcile(true).await;
        }
        self.fence().await?;
        let (link, remembered) = (&mut self.link, &mut self.remembered);
        self.loss.marker_is_gone(link, remembered, evicted.is_some()).await?;
        match evicted {
            Some(condition) => self.reconcile_after_eviction(&condition).await,
            None => self.reconcile(true).await,
        }
    }

    /// Writes what has changed among this server's replicas.
    pub(super) async fn mirror(&mut self) -> Result<(), LinkError> {
        self.rows.mirror(&mut self.link, &self.remembered).await
    }

    /// Keeps this server's rows and numbers alive.
    pub(super) async fn renew(&mut self) -> Result<(), LinkError> {
        self.rows.renew(&mut self.link, &mut self.remembered).await
    }

    /// Shares all that policies have learned here, and removes this server's rows.
    pub(super) async fn leave(&mut self) -> Result<(), LinkError> {
        self.states.share(&mut self.link, usize::MAX).await?;
        self.rows.leave(&mut self.link, &self.remembered).await
    }
}

/// Applications go before the models they query: a batch is acknowledged when every actor has
/// applied it, so that nobody is told of a model without replicas before being told 404.
fn divides(batch: &[Event], next: &Event) -> bool {
    let retires = |event: &Event| matches!(event, Event::ModelVersionRetired { .. });
    retires(next) && batch.last().is_some_and(|last| !retires(last))
}
