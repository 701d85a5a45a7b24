//! Reading what is in tables without knowing its names, a slice at a time.

use std::collections::BTreeSet;

use redis::Value;

use super::answers::{bytes, text};
use super::client::{Link, LinkError};
use super::tables::{Key, Table};
use super::whole::{Names, PassedOver, WholeTables};

/// Keys that one step of a walk looks at: a millisecond of the server, about.
const SLICE: usize = 5_000;

/// A walk through the keys of a table that match a pattern.
pub struct KeyScan {
    table: Table,
    pattern: Option<String>,
    /// `None` after the last slice.
    cursor: Option<String>,
}

impl KeyScan {
    /// From the beginning.
    #[must_use]
    pub fn of(table: Table, pattern: Option<&str>) -> Self {
        Self { table, pattern: pattern.map(str::to_owned), cursor: Some("0".to_owned()) }
    }

    /// Those of all tables that the catalog is made of. Links come after the applications that
    /// they belong to.
    fn of_catalog() -> impl Iterator<Item = Self> {
        let shared = [Key::every_replicas(), Key::every_access()];
        let shared = shared.map(|pattern| Self::of(Table::Resource, Some(&pattern)));
        let tables = Table::CATALOG.into_iter().map(|table| {
            let pattern = (table == Table::Metadata).then(Key::every_current);
            Self::of(table, pattern.as_deref())
        });
        shared.into_iter().chain(tables)
    }
}

impl Link {
    /// The next slice of a walk: what is there all the time is in one of them. `None` after the
    /// last.
    ///
    /// # Errors
    /// The connection's.
    pub async fn next_keys(&mut self, scan: &mut KeyScan) -> Result<Option<Vec<Key>>, LinkError> {
        let Some(cursor) = scan.cursor.take() else { return Ok(None) };
        let mut command = redis::cmd("SCAN");
        command.arg(&cursor).arg("COUNT").arg(SLICE);
        if let Some(pattern) = &scan.pattern {
            command.arg("MATCH").arg(pattern);
        }
        let Value::Array(answer) = self.one(scan.table, command).await? else {
            return Err(LinkError::Failed("SCAN has answered no list".to_owned()));
        };
        let cursor = answer.first().and_then(text).unwrap_or_default();
        scan.cursor = Some(cursor).filter(|cursor| !cursor.is_empty() && cursor != "0");
        let Some(Value::Array(names)) = answer.get(1) else { return Ok(Some(Vec::new())) };
        let names = names.iter().filter_map(bytes);
        Ok(Some(names.map(|name| Key { table: scan.table, name: name.to_vec() }).collect()))
    }

    /// The keys of a table that match `pattern`, but for those that are not to be kept.
    ///
    /// # Errors
    /// The connection's.
    pub async fn keys(
        &mut self,
        table: Table,
        pattern: Option<&str>,
        keep: impl Fn(&Key) -> bool,
    ) -> Result<BTreeSet<Key>, LinkError> {
        let mut keys = BTreeSet::new();
        let mut scan = KeyScan::of(table, pattern);
        while let Some(slice) = self.next_keys(&mut scan).await? {
            keys.extend(slice.into_iter().filter(&keep));
        }
        Ok(keys)
    }

    /// Everything that the catalog is made of. Those of `ours` are in it whatever they hold.
    ///
    /// # Errors
    /// The connection's.
    pub async fn load(&mut self, ours: &BTreeSet<Key>) -> Result<WholeTables, LinkError> {
        let mut tables = WholeTables::of(self.read(ours).await?.0);
        for mut scan in KeyScan::of_catalog() {
            while let Some(slice) = self.next_keys(&mut scan).await? {
                self.add(&mut tables, slice).await?;
            }
        }
        Ok(tables)
    }

    /// As [`Self::load`], but what was passed over before is not read again: a notice would have
    /// told of its becoming something.
    ///
    /// # Errors
    /// The connection's.
    pub async fn load_news(
        &mut self,
        ours: &BTreeSet<Key>,
        known: &PassedOver,
    ) -> Result<WholeTables, LinkError> {
        let mut tables = WholeTables::of(self.read(ours).await?.0);
        let mut names = Names::default();
        for mut scan in KeyScan::of_catalog() {
            while let Some(slice) = self.next_keys(&mut scan).await? {
                let new = slice.iter().filter(|key| !tables.entries.contains_key(*key));
                new.for_each(|key| names.add(key));
            }
        }
        let changed = known.changed(&names);
        tables.passed_over = known.unchanged(&changed);
        if changed.any() {
            for mut scan in KeyScan::of_catalog() {
                while let Some(mut slice) = self.next_keys(&mut scan).await? {
                    slice.retain(|key| changed.contains(key));
                    self.add(&mut tables, slice).await?;
                }
            }
        }
        Ok(tables)
    }

    async fn add(&mut self, tables: &mut WholeTables, slice: Vec<Key>) -> Result<(), LinkError> {
        let wanted: BTreeSet<Key> = slice.into_iter().filter(|key| tables.wants(key)).collect();
        for (key, raw) in self.read(&wanted).await?.0 {
            tables.add(key, raw);
        }
        Ok(())
    }
}
