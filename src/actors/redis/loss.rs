//! What Redis has lost, told from what somebody has deleted, and how it comes back.
//!
//! - A server that was restarted without its data has no marker: by `redis.on_data_loss` the
//!   journal writes everything back, or the emptiness is taken as the truth.
//! - Keys that Redis gave up by itself, evicted to save memory or expired, were deleted by nobody:
//!   until they are written back the catalog keeps them. Their notices tell of them; where those
//!   were missed, the server's count of evicted keys does.
//! - Tables that were emptied on a running server are an order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::{error, info, warn};

use super::absences::SharedAbsences;
use crate::metrics::Metrics;
use crate::store::CatalogView;
use crate::store::projection::Catalog;
use crate::store::redis::client::{Condition, Link, LinkError};
use crate::store::redis::keys::{keys, ours, plans};
use crate::store::redis::marker::{
    Found, Remembered, TablesVerdict, judge, marker_key, restoring_key,
};
use crate::store::redis::tables::{Key, Raw};
use crate::store::redis::transaction::{Outcome, Transaction};
use crate::store::redis::whole::WholeTables;
use crate::store::redis::writes::{Entries, Write, of_catalog, of_key};
use clipper_config::OnDataLoss;

/// A frontend that restores lost tables and dies is replaced after this.
const RESTORE_LEASE: Duration = Duration::from_secs(10);

/// How often the others look whether it is done.
const RESTORE_POLL: Duration = Duration::from_millis(50);

/// Entries restored in one transaction.
const RESTORED_AT_ONCE: usize = 500;

/// What one connection knows of losses.
pub(super) struct DataLoss {
    view: CatalogView,
    policy: OnDataLoss,
    metrics: Arc<Metrics>,
    pub(super) absences: SharedAbsences,
    /// Redis has refused to take them back, and the log knows it.
    refused: bool,
}

impl DataLoss {
    pub(super) fn new(
        view: CatalogView,
        policy: OnDataLoss,
        metrics: Arc<Metrics>,
        absences: SharedAbsences,
    ) -> Self {
        Self { view, policy, metrics, absences, refused: false }
    }

    /// The tables as they are to be believed: lost ones are restored or adopted first.
    pub(super) async fn sound_tables(
        &mut self,
        link: &mut Link,
        remembered: &mut Remembered,
    ) -> Result<WholeTables, LinkError> {
        let condition = link.condition().await?;
        if condition.replica {
            return Err(LinkError::Unfit("READONLY: it is a replica and takes no writes".into()));
        }
        self.warn_of_eviction(&condition);
        loop {
            let marker = link.pulse(&[]).await?.marker;
            let known = ours(&self.view.read());
            let tables = link.load(&known).await?;
            let found = Found {
                marker: marker.as_deref(),
                run_id: condition.run_id.as_deref(),
                tables_empty: tables.entries.is_empty(),
                journal_empty: *self.view.read() == Catalog::default(),
                evicted: evicted_since(remembered, &condition),
            };
            let restore = self.policy == OnDataLoss::Restore;
            match judge(&remembered.memory, found) {
                TablesVerdict::Marked => {
                    if found.evicted {
                        self.give_up_absent(&tables.entries, &BTreeSet::new());
                    }
                    remember(remembered, marker, &condition)?;
                    return Ok(tables);
                }
                TablesVerdict::New => {
                    info!("these tables are new to this server: they are the truth");
                }
                TablesVerdict::Emptied => {
                    warn!("the tables were emptied by somebody: taken as truth");
                    self.keep_keys(link).await?;
                }
                TablesVerdict::Evicted => {
                    warn!("Redis has evicted the marker, and entries with it: they are restored");
                    self.give_up_absent(&tables.entries, &BTreeSet::new());
                    let old = remembered.memory.marker.clone();
                    self.mark(link, old.as_deref()).await?;
                    continue;
                }
                TablesVerdict::Lost if restore => {
                    if !self.restore(link, remembered).await? {
                        tokio::time::sleep(RESTORE_POLL).await;
                    }
                    continue;
                }
                TablesVerdict::Lost => error!(
                    "Redis has LOST its data; by redis.on_data_loss = \"adopt\" its emptiness is \
                     the truth: what the journal has is deleted"
                ),
            }
            // Whoever is first; the next round reads it.
            self.absences.take();
            self.mark(link, None).await?;
        }
    }

    fn warn_of_eviction(&self, condition: &Condition) {
        let policy = condition.maxmemory_policy.as_deref();
        let evicts = policy.is_some_and(|policy| policy != "noeviction");
        self.metrics.redis().evicts.store(u64::from(evicts), Relaxed);
        if let Some(policy) = policy.filter(|_| evicts) {
            warn!(
                policy,
                "Redis may evict entries of the tables to save memory: set maxmemory-policy to \
                 noeviction; what it evicts is written back, until it evicts it again"
            );
        }
    }

    /// Leaves a marker where there is none; a new one unless an old one is given.
    async fn mark(&self, link: &mut Link, old: Option<&str>) -> Result<(), LinkError> {
        let marker = old.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
        let checks = [(marker_key(), Raw::Absent)].into();
        let writes = vec![Write::one(marker_key(), "SET", &marker)];
        link.commit(&Transaction { checks, writes, ..Transaction::default() }).await.map(|_| ())
    }

    /// Writes lost tables back, if no other frontend does; entries that are there again stay.
    async fn restore(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
    ) -> Result<bool, LinkError> {
        let me = &remembered.memory.frontend;
        let lock = restoring_key();
        if !link.hold(&lock, me, RESTORE_LEASE).await? {
            return Ok(false);
        }
        let catalog = self.view.copy().1;
        error!(
            applications = catalog.apps().count(),
            models = catalog.models().count(),
            "Redis has LOST its data; the journal writes it back (redis.on_data_loss = \"restore\")"
        );
        let groups = of_catalog(&catalog);
        for chunk in groups.chunks(RESTORED_AT_ONCE) {
            for group in self.write_back(link, chunk).await? {
                warn!(key = ?group.first().map(|w| &w.key), "not restored: it is there again");
            }
            if !link.hold(&lock, me, RESTORE_LEASE).await? {
                return Ok(false);
            }
        }
        self.mark(link, None).await?;
        link.write(&[Write::bare(lock, "DEL")]).await?;
        error!(entries = groups.len(), "the tables are restored");
        Ok(true)
    }

    /// Writes groups back where nothing is there of them; tells which were not written.
    async fn write_back<'g>(
        &self,
        link: &mut Link,
        groups: &'g [Vec<Write>],
    ) -> Result<Vec<&'g Vec<Write>>, LinkError> {
        if write_where_absent(link, groups.iter().flatten()).await? {
            return Ok(Vec::new());
        }
        let mut there = Vec::new();
        for group in groups {
            if !write_where_absent(link, group).await? {
                there.push(group);
            }
        }
        Ok(there)
    }

    /// What the catalog has and whole tables have not was given up, and not deleted; but for keys
    /// that a notice of something else points to.
    pub(super) fn give_up_absent(&self, entries: &Entries, changed: &BTreeSet<Key>) {
        let catalog = self.view.copy().1;
        let all = keys(&catalog).chain(plans(&catalog));
        let absent = all.filter(|key| !entries.contains_key(key));
        let mut absences = self.absences.borrow_mut();
        absent.filter(|key| !changed.contains(key)).for_each(|key| absences.give_up(key));
    }

    /// Emptied tables are no truth about keys: a frontend that comes later must not find none.
    async fn keep_keys(&self, link: &mut Link) -> Result<(), LinkError> {
        let catalog = self.view.copy().1;
        for key in catalog.keys() {
            write_where_absent(link, &of_key(&Key::access(&key.name), &catalog)).await?;
        }
        Ok(())
    }

    /// The marker is gone from a server that runs on: was it given up too?
    pub(super) async fn marker_is_gone(
        &mut self,
        link: &mut Link,
        remembered: &mut Remembered,
        evicted: bool,
    ) -> Result<(), LinkError> {
        if evicted || self.absences.borrow().given_up().next().is_some() {
            let old = remembered.memory.marker.clone();
            return self.mark(link, old.as_deref()).await;
        }
        warn!("the tables were emptied by somebody: taken as truth");
        self.keep_keys(link).await?;
        self.mark(link, None).await?;
        remembered.memory.marker = link.pulse(&[]).await?.marker;
        remembered.keep()
    }

    /// Writes back what was given up.
    pub(super) async fn heal(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let groups: Vec<Vec<Write>> = {
            let (absences, catalog) = (self.absences.borrow(), self.view.read());
            let groups = absences.given_up().map(|key| of_key(key, &catalog));
            groups.filter(|group| !group.is_empty()).collect()
        };
        if groups.is_empty() {
            self.absences.borrow_mut().written_back();
            return Ok(());
        }
        for chunk in groups.chunks(RESTORED_AT_ONCE) {
            match self.write_back(link, chunk).await {
                Ok(_) => {}
                Err(error @ LinkError::Refused(_)) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        warn!(%error, "Redis does not take back what it has given up");
                    }
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
        self.refused = false;
        self.absences.borrow_mut().written_back();
        self.metrics.redis().restored.fetch_add(groups.len() as u64, Relaxed);
        warn!(entries = groups.len(), "entries that Redis evicted or let expire are written back");
        Ok(())
    }
}

async fn write_where_absent(
    link: &mut Link,
    writes: impl IntoIterator<Item = &Write>,
) -> Result<bool, LinkError> {
    let writes: Vec<Write> = writes.into_iter().cloned().collect();
    let checks = writes.iter().map(|write| (write.key.clone(), Raw::Absent)).collect();
    let transaction = Transaction { checks, writes, ..Transaction::default() };
    Ok(link.commit(&transaction).await? == Outcome::Done)
}

/// Whether the server counts evictions that nothing here knows of.
pub(super) fn evicted_since(remembered: &Remembered, condition: &Condition) -> bool {
    let memory = &remembered.memory;
    let same_run = memory.run_id.is_some() && memory.run_id == condition.run_id;
    same_run && condition.evicted > memory.evicted && memory.evicted.is_some()
}

/// Remembers what was found, once everything that follows from it is known.
pub(super) fn remember(
    remembered: &mut Remembered,
    marker: Option<String>,
    condition: &Condition,
) -> Result<(), LinkError> {
    let memory = &mut remembered.memory;
    let now = (marker, condition.run_id.clone(), condition.evicted);
    if (&memory.marker, &memory.run_id, &memory.evicted) == (&now.0, &now.1, &now.2) {
        return Ok(());
    }
    (memory.marker, memory.run_id, memory.evicted) = now;
    remembered.keep()
}
