//! The session's other business: lost tables, and the rows of the connected replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::container_pool::ContainerInfo;
use super::redis_session::{Session, text};
use super::redis_watcher::{Learnt, RedisParts};
use crate::config::OnDataLoss;
use crate::store::policy_state::app_of;
use crate::store::projection::Catalog;
use crate::store::redis::client::LinkError;
use crate::store::redis::marker::{
    Found, Memory, Verdict, judge, marker_key, restoring_key, slot_key,
};
use crate::store::redis::tables::{
    ContainerRow, Key, Raw, Table, container_fields, decode_container,
};
use crate::store::redis::transaction::{Outcome, Transaction};
use crate::store::redis::writes::{Entries, Write, of_catalog};
use clipper_domain::AppName;

/// Numbers that one frontend may give to replicas of a model.
const SLOT_SIZE: u32 = 1_000_000;

/// Slots; the original reads numbers of replicas as C++ `int`.
const SLOTS: u32 = 2_000;

/// A slot is kept for its frontend this long after its last sign of life: longer than outages, so
/// that a number is not given twice.
const SLOT_LEASE: Duration = Duration::from_hours(24);

/// A frontend that restores lost tables and dies is replaced after this.
const RESTORE_LEASE: Duration = Duration::from_secs(10);

/// How often the others look whether it is done.
const RESTORE_POLL: Duration = Duration::from_millis(50);

/// Entries restored in one transaction.
const RESTORED_AT_ONCE: usize = 500;

/// Before Redis is asked, replicas get numbers that no other frontend is likely to give: from the
/// range this one had last, or any of those that are handed out last.
pub(super) fn guess_numbers(parts: &RedisParts) {
    let remembered = Memory::load(&parts.data_dir, String::new).ok().and_then(|m| m.slot);
    let slot = remembered.unwrap_or_else(|| rand::random_range(SLOTS / 2..SLOTS));
    parts.containers.set_first_replica(slot * SLOT_SIZE);
}

/// What is in the table of containers.
#[derive(Debug, Default)]
pub(super) struct Rows {
    slot: Option<u32>,
    /// This server's, as they were written last.
    own: BTreeMap<Key, ContainerInfo>,
    others: BTreeMap<Key, ContainerInfo>,
}

impl Session {
    /// The tables as they are to be believed: lost ones are restored or adopted first.
    pub(super) async fn sound_tables(&mut self) -> Result<Entries, String> {
        let run_id = self.link.run_id().await.map_err(text)?;
        loop {
            let marker = self.link.pulse().await.map_err(text)?.marker;
            let entries = self.link.load().await.map_err(text)?;
            let found = Found {
                marker: marker.as_deref(),
                run_id: run_id.as_deref(),
                tables_empty: entries.is_empty(),
                journal_empty: *self.parts.view.read() == Catalog::default(),
            };
            let verdict = judge(&self.memory, found);
            let restore = self.parts.config.on_data_loss == OnDataLoss::Restore;
            match verdict {
                Verdict::Marked => {
                    self.remember(marker, run_id)?;
                    return Ok(entries);
                }
                Verdict::New => info!("these tables are new to this server: they are the truth"),
                Verdict::Emptied => warn!("the tables were emptied by somebody: taken as truth"),
                Verdict::Lost if restore => {
                    if !self.restore().await? {
                        tokio::time::sleep(RESTORE_POLL).await;
                    }
                    continue;
                }
                Verdict::Lost => error!(
                    "Redis has LOST its data; by redis.on_data_loss = \"adopt\" its emptiness is \
                     the truth: what the journal has is deleted"
                ),
            }
            // Whoever is first; the next round reads it.
            self.mark().await?;
        }
    }

    async fn mark(&mut self) -> Result<(), String> {
        let marker = format!("{:016x}", rand::random::<u64>());
        let checks = [(marker_key(), Raw::Absent)].into();
        let writes = vec![Write::one(marker_key(), "SET", &marker)];
        let transaction = Transaction { checks, writes, ..Transaction::default() };
        self.link.commit(&transaction).await.map(|_| ()).map_err(text)
    }

    fn remember(&mut self, marker: Option<String>, run_id: Option<String>) -> Result<(), String> {
        if self.memory.marker == marker && self.memory.run_id == run_id {
            return Ok(());
        }
        (self.memory.marker, self.memory.run_id) = (marker, run_id);
        self.keep_memory()
    }

    fn keep_memory(&self) -> Result<(), String> {
        let stored = self.memory.store(&self.parts.data_dir);
        stored.map_err(|e| format!("what is to be remembered of Redis cannot be kept: {e}"))
    }

    /// Writes lost tables back, if no other frontend does; entries that are there again stay.
    async fn restore(&mut self) -> Result<bool, String> {
        let me = self.memory.frontend.clone();
        let lock = restoring_key();
        if !self.link.hold(&lock, &me, RESTORE_LEASE).await.map_err(text)? {
            return Ok(false);
        }
        let catalog = self.parts.view.copy().1;
        error!(
            applications = catalog.apps().count(),
            models = catalog.models().count(),
            "Redis has LOST its data; the journal writes it back (redis.on_data_loss = \"restore\")"
        );
        let groups = of_catalog(&catalog);
        for chunk in groups.chunks(RESTORED_AT_ONCE) {
            if self.restore_all(chunk).await? {
                continue;
            }
            for group in chunk {
                if !self.restore_all(std::slice::from_ref(group)).await? {
                    warn!(key = ?group.first().map(|w| &w.key), "not restored: it is there again");
                }
            }
            if !self.link.hold(&lock, &me, RESTORE_LEASE).await.map_err(text)? {
                return Ok(false);
            }
        }
        self.mark().await?;
        let unlock = [Write::bare(lock, "DEL")];
        self.link.write(&unlock).await.map_err(text)?;
        error!(entries = groups.len(), "the tables are restored");
        Ok(true)
    }

    async fn restore_all(&mut self, groups: &[Vec<Write>]) -> Result<bool, String> {
        let writes: Vec<Write> = groups.iter().flatten().cloned().collect();
        let checks = writes.iter().map(|write| (write.key.clone(), Raw::Absent)).collect();
        let transaction = Transaction { checks, writes, ..Transaction::default() };
        let outcome = self.link.commit(&transaction).await.map_err(text)?;
        Ok(outcome == Outcome::Done)
    }

    /// Takes a range of replica numbers, clears rows of an earlier life, writes this server's.
    pub(super) async fn join(&mut self) -> Result<(), String> {
        self.renew_slot().await?;
        self.load_rows().await?;
        self.mirror().await?;
        let states = self.link.keys(Table::State, None).await.map_err(text)?;
        self.look_at_states(&states).await?;
        self.tell_untold(&states).await
    }

    /// Shares policy state that the table, which has `there`, has not: it was stored here while
    /// Redis was away, or the table was lost.
    async fn tell_untold(&mut self, there: &BTreeSet<Key>) -> Result<(), String> {
        let kept = self.parts.states.all().map_err(|e| format!("policy state: {e}"))?;
        let writes: Vec<Write> = {
            let catalog = self.parts.view.read();
            let known = |key: &str| app_of(key).is_some_and(|app| catalog.app(app).is_some());
            let kept = kept.into_iter().filter(|(key, _)| known(key));
            let kept = kept.map(|(key, value)| (Key::new(Table::State, &key), value));
            let untold = kept.filter(|(key, _)| !there.contains(key));
            untold.map(|(key, value)| Write::one(key, "SETNX", &value)).collect()
        };
        self.write_soft(&writes).await
    }

    /// Takes over policy state that others have stored.
    pub(super) async fn look_at_states(&mut self, keys: &BTreeSet<Key>) -> Result<(), String> {
        let (entries, _) = self.link.read(keys).await.map_err(text)?;
        for (key, raw) in entries {
            let value = match &raw {
                Raw::Text(value) => std::str::from_utf8(value).ok(),
                _ => None,
            };
            let Ok(name) = std::str::from_utf8(&key.name) else { continue };
            if let Err(error) = self.parts.states.follow(name, value) {
                warn!(%key, %error, "policy state of others cannot be kept");
            }
        }
        Ok(())
    }

    /// Puts policy state that was stored here first into the shared table.
    pub(super) async fn tell_learnt(
        &mut self,
        first: Learnt,
        more: &mut mpsc::Receiver<Learnt>,
    ) -> Result<(), String> {
        let mut writes = Vec::new();
        let mut next = Some(first);
        while let Some((key, value)) = next {
            writes.push(Write::one(Key::new(Table::State, &key), "SETNX", &value));
            next = more.try_recv().ok();
        }
        self.write_soft(&writes).await
    }

    /// Removes the policy state of all users of an application.
    pub(super) async fn remove_states(&mut self, app: &AppName) -> Result<(), String> {
        let escape = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") };
        let pattern: String = app.as_str().chars().map(escape).chain([":*".to_owned()]).collect();
        let keys = self.link.keys(Table::State, Some(&pattern)).await.map_err(text)?;
        let writes: Vec<Write> = keys.into_iter().map(|key| Write::bare(key, "DEL")).collect();
        self.write_soft(&writes).await
    }

    /// Writes what others can do without: a server that takes no writes is followed all the same.
    async fn write_soft(&mut self, writes: &[Write]) -> Result<(), String> {
        match self.link.write(writes).await {
            Err(error @ LinkError::Refused(_)) => {
                warn!(%error, "Redis does not take rows of containers or policy state");
                Ok(())
            }
            result => result.map_err(text),
        }
    }

    async fn renew_slot(&mut self) -> Result<(), String> {
        let me = self.memory.frontend.clone();
        let had = self.rows.slot.or(self.memory.slot);
        for slot in had.into_iter().chain(0..SLOTS) {
            let held = match self.link.hold(&slot_key(slot), &me, SLOT_LEASE).await {
                Err(error @ LinkError::Refused(_)) => {
                    warn!(%error, "no range of replica numbers can be taken in Redis");
                    return Ok(());
                }
                held => held.map_err(text)?,
            };
            if held {
                if self.rows.slot != Some(slot) {
                    self.parts.containers.set_first_replica(slot * SLOT_SIZE);
                    self.rows.slot = Some(slot);
                    self.memory.slot = Some(slot);
                    self.keep_memory()?;
                }
                return Ok(());
            }
        }
        Err(format!("all {SLOTS} ranges of replica numbers are taken by other frontends"))
    }

    /// Reads the whole table of containers.
    pub(super) async fn load_rows(&mut self) -> Result<(), String> {
        let keys = self.link.keys(Table::Container, None).await.map_err(text)?;
        self.rows.others.clear();
        self.look_at_rows(&keys).await?;
        self.show_others();
        Ok(())
    }

    /// Reads some rows; those of this server that nothing stands for any more are removed.
    pub(super) async fn look_at_rows(&mut self, keys: &BTreeSet<Key>) -> Result<(), String> {
        if keys.is_empty() {
            return Ok(());
        }
        let (entries, _) = self.link.read(keys).await.map_err(text)?;
        let mut stale = Vec::new();
        for (key, raw) in entries {
            self.rows.others.remove(&key);
            match decode_container(&raw) {
                Ok(None) => {}
                Ok(Some(row)) if row.frontend.as_ref() == Some(&self.memory.frontend) => {
                    if !self.rows.own.contains_key(&key) {
                        stale.push(Write::bare(key, "DEL"));
                    }
                }
                Ok(Some(row)) => {
                    let ContainerRow { model, replica, input_type, .. } = row;
                    self.rows.others.insert(key, ContainerInfo { model, replica, input_type });
                }
                Err(reason) => warn!(%key, reason, "a row of containers is passed over"),
            }
        }
        self.show_others();
        self.write_soft(&stale).await
    }

    fn show_others(&self) {
        self.parts.containers.set_others(self.rows.others.values().cloned());
    }

    /// Writes what has changed among this server's replicas.
    pub(super) async fn mirror(&mut self) -> Result<(), String> {
        let own = self.parts.containers.own().into_iter();
        let now: BTreeMap<Key, ContainerInfo> =
            own.map(|info| (Key::container(&info.model, info.replica), info)).collect();
        let mut writes = Vec::new();
        for key in self.rows.own.keys().filter(|key| !now.contains_key(*key)) {
            writes.push(Write::bare(key.clone(), "DEL"));
        }
        for (key, info) in now.iter().filter(|(key, info)| self.rows.own.get(*key) != Some(*info)) {
            writes.extend(self.row(key, info));
        }
        self.rows.own = now;
        self.write_soft(&writes).await
    }

    /// The row, and the end of its lease.
    fn row(&self, key: &Key, info: &ContainerInfo) -> [Write; 2] {
        let row = ContainerRow {
            model: info.model.clone(),
            replica: info.replica,
            input_type: info.input_type,
            frontend: Some(self.memory.frontend.clone()),
        };
        let lease = self.parts.config.lease_ms.to_string();
        [
            Write::hash(key.clone(), container_fields(&row)),
            Write::one(key.clone(), "PEXPIRE", &lease),
        ]
    }

    /// Keeps this server's rows and numbers alive.
    pub(super) async fn renew(&mut self) -> Result<(), String> {
        self.renew_slot().await?;
        let writes: Vec<Write> =
            self.rows.own.iter().flat_map(|(key, info)| self.row(key, info)).collect();
        self.write_soft(&writes).await
    }

    /// Removes this server's rows.
    pub(super) async fn leave(&mut self) -> Result<(), String> {
        let own = std::mem::take(&mut self.rows.own).into_keys();
        let slot = self.rows.slot.take().map(slot_key);
        let writes: Vec<Write> = own.chain(slot).map(|key| Write::bare(key, "DEL")).collect();
        self.write_soft(&writes).await
    }
}
