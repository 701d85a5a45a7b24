//! The rows of the connected replicas in table 3, and the range of numbers that this server gives
//! to its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tracing::warn;

use crate::actors::pool::list::{ContainerInfo, ContainerList, OtherServer};
use crate::store::redis::client::{Link, LinkError};
use crate::store::redis::marker::{
    Memory, Peer, Remembered, every_peer, frontend_of, peer_key, peers_key, slot_key,
};
use crate::store::redis::scan::KeyScan;
use crate::store::redis::tables::{
    ContainerRow, Key, Raw, Table, container_fields, decode_container,
};
use crate::store::redis::writes::Write;

/// Numbers that one frontend may give to replicas of a model.
const SLOT_SIZE: u32 = 1_000_000;

/// Slots; the original reads numbers of replicas as C++ `int`.
const SLOTS: u32 = 2_000;

/// A slot is kept for its frontend this long after its last sign of life: longer than outages, so
/// that a number is not given twice.
const SLOT_LEASE: Duration = Duration::from_hours(24);

/// Rows that mean nothing, named one by one of those that are read together.
const NAMED_MAX: usize = 10;

/// What the keys of rows look like; others may keep keys of their own there.
const EVERY_ROW: &str = "*,*,*";

fn is_row(key: &Key) -> bool {
    key.name.split(|byte| *byte == b',').count() == 3
}

/// Before Redis is asked, replicas get numbers that no other frontend is likely to give: from the
/// range this one had last, or any of those that are handed out last.
pub(super) fn guess_numbers(data_dir: &Path, containers: &ContainerList) {
    let remembered = Memory::load(data_dir, String::new).ok().and_then(|m| m.slot);
    let slot = remembered.unwrap_or_else(|| rand::random_range(SLOTS / 2..SLOTS));
    containers.set_first_replica(slot * SLOT_SIZE);
}

/// What is in the table of containers, as far as one connection knows.
pub(super) struct ContainerRows {
    containers: ContainerList,
    lease_ms: u64,
    slot: Option<u32>,
    /// This server's, as they were written last.
    own: BTreeMap<Key, ContainerInfo>,
    /// Those of others, and whose they are.
    others: BTreeMap<Key, (ContainerInfo, Option<String>)>,
    /// What this server says of itself.
    me: Peer,
    /// The other servers that live, by name.
    peers: BTreeMap<String, Peer>,
}

impl ContainerRows {
    pub(super) fn new(containers: ContainerList, lease_ms: u64, me: Peer) -> Self {
        Self {
            containers,
            lease_ms,
            slot: None,
            own: BTreeMap::new(),
            others: BTreeMap::new(),
            me,
            peers: BTreeMap::new(),
        }
    }

    /// Tells the others of this server, and looks which there are: those in the list of names,
    /// those that were there, and these.
    async fn meet(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
        found: BTreeSet<Key>,
    ) -> Result<(), LinkError> {
        let name = &remembered.memory.frontend;
        let key = peer_key(name);
        let me = serde_json::to_string(&self.me).unwrap_or_default();
        let lease = Write::one(key.clone(), "PEXPIRE", &self.lease_ms.to_string());
        let listed = Write::one(peers_key(), "SADD", name);
        link.write_soft(&[Write::one(key.clone(), "SET", &me), lease, listed]).await?;
        let listed = link.read_set(&peers_key()).await?;
        let known = listed.iter().chain(self.peers.keys()).map(|name| peer_key(name));
        let mut keys: BTreeSet<Key> = known.chain(found).collect();
        keys.remove(&key);
        let (entries, _) = link.read(&keys).await?;
        let gone = listed.iter().filter(|name| entries.get(&peer_key(name)) == Some(&Raw::Absent));
        let gone: Vec<Write> = gone.map(|name| Write::one(peers_key(), "SREM", name)).collect();
        let peer = |(key, raw): (Key, Raw)| {
            let Raw::Text(text) = raw else { return None };
            Some((frontend_of(&key)?.to_owned(), serde_json::from_slice(&text).ok()?))
        };
        self.peers = entries.into_iter().filter_map(peer).collect();
        self.show_others();
        link.write_soft(&gone).await
    }

    /// Takes a range of replica numbers, clears rows of an earlier life, writes this server's.
    pub(super) async fn join(
        &mut self,
        link: &mut Link,
        remembered: &mut Remembered,
    ) -> Result<(), LinkError> {
        self.renew_slot(link, remembered).await?;
        self.load(link, remembered).await?;
        self.mirror(link, remembered).await
    }

    async fn renew_slot(
        &mut self,
        link: &mut Link,
        remembered: &mut Remembered,
    ) -> Result<(), LinkError> {
        let had = self.slot.or(remembered.memory.slot);
        for slot in had.into_iter().chain(0..SLOTS) {
            let me = &remembered.memory.frontend;
            let held = match link.hold(&slot_key(slot), me, SLOT_LEASE).await {
                Err(error @ LinkError::Refused(_)) => {
                    warn!(%error, "no range of replica numbers can be taken in Redis");
                    return Ok(());
                }
                held => held?,
            };
            if held {
                if self.slot != Some(slot) {
                    self.containers.set_first_replica(slot * SLOT_SIZE);
                    self.slot = Some(slot);
                    remembered.memory.slot = Some(slot);
                    remembered.keep()?;
                }
                return Ok(());
            }
        }
        let all = format!("all {SLOTS} ranges of replica numbers are taken by other frontends");
        Err(LinkError::Failed(all))
    }

    /// Reads the whole table of containers, and looks for servers that are not in the list of
    /// names, as those of earlier releases are not.
    pub(super) async fn load(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
    ) -> Result<(), LinkError> {
        let found = link.keys(Table::Resource, Some(&every_peer()), |_| true).await?;
        self.meet(link, remembered, found).await?;
        self.others.clear();
        let mut unreadable = 0;
        let mut scan = KeyScan::of(Table::Container, Some(EVERY_ROW));
        while let Some(slice) = link.next_keys(&mut scan).await? {
            let rows = slice.into_iter().filter(is_row).collect();
            unreadable += self.read(link, remembered, &rows, unreadable).await?;
        }
        if unreadable > NAMED_MAX {
            warn!(unreadable, "rows of containers in Redis are passed over");
        }
        self.show_others();
        Ok(())
    }

    /// Looks at some rows.
    pub(super) async fn look(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
        keys: &BTreeSet<Key>,
    ) -> Result<(), LinkError> {
        let rows: BTreeSet<Key> = keys.iter().filter(|key| is_row(key)).cloned().collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.read(link, remembered, &rows, 0).await?;
        self.show_others();
        Ok(())
    }

    /// Reads some rows; those of this server that nothing stands for any more are removed. Tells
    /// how many mean nothing, after `before` others.
    async fn read(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
        keys: &BTreeSet<Key>,
        before: usize,
    ) -> Result<usize, LinkError> {
        let (entries, _) = link.read(keys).await?;
        let (mut stale, mut unreadable) = (Vec::new(), 0);
        for (key, raw) in entries {
            self.others.remove(&key);
            match decode_container(&raw) {
                Ok(None) => {}
                Ok(Some(row)) if row.frontend.as_ref() == Some(&remembered.memory.frontend) => {
                    if !self.own.contains_key(&key) {
                        stale.push(Write::bare(key, "DEL"));
                    }
                }
                Ok(Some(row)) => {
                    let ContainerRow { model, replica, input_type, frontend } = row;
                    let info = ContainerInfo { model, replica, input_type };
                    self.others.insert(key, (info, frontend));
                }
                Err(reason) => {
                    unreadable += 1;
                    if before + unreadable <= NAMED_MAX {
                        warn!(%key, %reason, "a row of containers is passed over");
                    }
                }
            }
        }
        link.write_soft(&stale).await?;
        Ok(unreadable)
    }

    fn show_others(&self) {
        self.containers.set_others(self.others.values().map(|(info, _)| info.clone()));
        let servers = self.peers.iter().map(|(name, peer)| {
            let own = self.others.values().filter(|(_, frontend)| frontend.as_ref() == Some(name));
            OtherServer {
                place: peer.place.clone(),
                keeps_planned: peer.keeps_planned,
                serves: own.map(|(info, _)| info.model.clone()).collect(),
            }
        });
        self.containers.set_servers(servers.collect());
    }

    /// Writes what has changed among this server's replicas.
    pub(super) async fn mirror(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
    ) -> Result<(), LinkError> {
        let own = self.containers.own().into_iter();
        let now: BTreeMap<Key, ContainerInfo> =
            own.map(|info| (Key::container(&info.model, info.replica), info)).collect();
        let mut writes = Vec::new();
        for key in self.own.keys().filter(|key| !now.contains_key(*key)) {
            writes.push(Write::bare(key.clone(), "DEL"));
        }
        for (key, info) in now.iter().filter(|(key, info)| self.own.get(*key) != Some(*info)) {
            writes.extend(self.row(remembered, key, info));
        }
        self.own = now;
        link.write_soft(&writes).await
    }

    /// The row, and the end of its lease.
    fn row(&self, remembered: &Remembered, key: &Key, info: &ContainerInfo) -> [Write; 2] {
        let row = ContainerRow {
            model: info.model.clone(),
            replica: info.replica,
            input_type: info.input_type,
            frontend: Some(remembered.memory.frontend.clone()),
        };
        [
            Write::hash(key.clone(), container_fields(&row)),
            Write::one(key.clone(), "PEXPIRE", &self.lease_ms.to_string()),
        ]
    }

    /// Keeps this server's rows and numbers alive.
    pub(super) async fn renew(
        &mut self,
        link: &mut Link,
        remembered: &mut Remembered,
    ) -> Result<(), LinkError> {
        self.renew_slot(link, remembered).await?;
        self.meet(link, remembered, BTreeSet::new()).await?;
        let row = |(key, info): (&Key, &ContainerInfo)| self.row(remembered, key, info);
        let writes: Vec<Write> = self.own.iter().flat_map(row).collect();
        link.write_soft(&writes).await
    }

    /// Removes this server's rows.
    pub(super) async fn leave(
        &mut self,
        link: &mut Link,
        remembered: &Remembered,
    ) -> Result<(), LinkError> {
        let own = std::mem::take(&mut self.own).into_keys();
        let slot = self.slot.take().map(slot_key);
        let me = peer_key(&remembered.memory.frontend);
        let rows = own.chain(slot).chain([me]).map(|key| Write::bare(key, "DEL"));
        let listed = Write::one(peers_key(), "SREM", &remembered.memory.frontend);
        link.write_soft(&rows.chain([listed]).collect::<Vec<_>>()).await
    }
}
