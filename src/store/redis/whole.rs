//! What is kept of whole tables: what means something, and of the rest a number and some examples.
//!
//! Somebody else may keep a million keys in the same databases, so nothing here grows with them.
//! Pure.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use super::row_error::RowError;
use super::tables::{Entry, Key, Raw, Table, app_of, current_of, decode, model_of};
use super::writes::Entries;

/// Entries that mean nothing of which key and reason are kept; of more, the number.
pub const EXAMPLES_MAX: usize = 1_000;

/// Groups of names whose changes are seen. A group that has changed is read again, and among a
/// million names each has 15.
const GROUPS: usize = 1 << 16;

/// Whole tables, as far as they mean something.
#[derive(Debug, Default)]
pub struct WholeTables {
    pub entries: Entries,
    pub passed_over: PassedOver,
}

/// Entries that mean nothing: somebody else's, or badly written ones.
#[derive(Debug, Default)]
pub struct PassedOver {
    /// Some of them, with the reason.
    pub examples: BTreeMap<Key, String>,
    /// How many there are beside those.
    pub others: usize,
    names: Names,
}

/// Which names there are, in groups by their hash: of each the sum of the hashes and the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    sums: Vec<u64>,
    counts: Vec<u32>,
}

/// By group, whether names have come or gone.
pub(super) struct ChangedNames(Vec<bool>);

impl WholeTables {
    /// Tables with these entries, which stay whatever they hold.
    pub(super) fn of(mut entries: Entries) -> Self {
        entries.retain(|_, raw| *raw != Raw::Absent);
        Self { entries, passed_over: PassedOver::default() }
    }

    /// Whether a key that was found is to be read.
    pub(super) fn wants(&mut self, key: &Key) -> bool {
        if self.entries.contains_key(key) {
            return false;
        }
        match fault_of_name(key) {
            Some(fault) => {
                self.passed_over.add(key, &fault);
                false
            }
            None => true,
        }
    }

    /// Takes what a key holds, if it means something.
    pub(super) fn add(&mut self, key: Key, raw: Raw) {
        match decode(&key, &raw) {
            Ok(Some(Entry::Links(app, _))) if !self.entries.contains_key(&Key::app(&app)) => {
                self.passed_over.add(&key, &RowError::NoApplication);
            }
            Ok(Some(_)) => {
                self.entries.insert(key, raw);
            }
            // Gone by now.
            Ok(None) => {}
            Err(fault) => self.passed_over.add(&key, &fault),
        }
    }
}

/// What makes a key nobody's entry, whatever it holds.
fn fault_of_name(key: &Key) -> Option<RowError> {
    let (is_name, empty) = match key.table {
        Table::Application => (app_of(key).is_some(), Raw::Hash(BTreeMap::new())),
        Table::Model => (model_of(key).is_some(), Raw::Hash(BTreeMap::new())),
        Table::Links => (app_of(key).is_some(), Raw::Set([].into())),
        Table::Metadata => (current_of(key).is_some(), Raw::Text(Vec::new())),
        // By a pattern, so that those are ours.
        Table::Resource | Table::State | Table::Container => (true, Raw::Absent),
    };
    if is_name { None } else { decode(key, &empty).err() }
}

impl PassedOver {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.examples.len() + self.others
    }

    fn add(&mut self, key: &Key, fault: &RowError) {
        self.names.add(key);
        if self.has_room() {
            self.examples.insert(key.clone(), fault.to_string());
        } else {
            self.others += 1;
        }
    }

    /// Whether there is room for another example.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.examples.len() < EXAMPLES_MAX
    }

    /// By group, whether other names are there now.
    pub(super) fn changed(&self, now: &Names) -> ChangedNames {
        let pairs = |names: &Names| {
            names.sums.iter().copied().zip(names.counts.iter().copied()).collect::<Vec<_>>()
        };
        let (before, now) = (pairs(&self.names), pairs(now));
        ChangedNames(before.iter().zip(&now).map(|(before, now)| before != now).collect())
    }

    /// Those of groups that have not changed.
    pub(super) fn unchanged(&self, changed: &ChangedNames) -> Self {
        let mut names = self.names.clone();
        for (group, _) in changed.0.iter().enumerate().filter(|(_, changed)| **changed) {
            (names.sums[group], names.counts[group]) = (0, 0);
        }
        let mut examples = self.examples.clone();
        examples.retain(|key, _| !changed.contains(key));
        let count: usize = names.counts.iter().map(|count| *count as usize).sum();
        Self { others: count.saturating_sub(examples.len()), examples, names }
    }
}

impl ChangedNames {
    /// Whether any has.
    pub(super) fn any(&self) -> bool {
        self.0.contains(&true)
    }

    /// Whether the group of a key has.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.0[group_of(key).0]
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { sums: vec![0; GROUPS], counts: vec![0; GROUPS] }
    }
}

impl Names {
    pub(super) fn add(&mut self, key: &Key) {
        let (group, hash) = group_of(key);
        self.sums[group] = self.sums[group].wrapping_add(hash);
        self.counts[group] = self.counts[group].saturating_add(1);
    }
}

/// A key's group and its hash.
#[allow(clippy::cast_possible_truncation, reason = "the lowest bits are as good as others")]
fn group_of(key: &Key) -> (usize, u64) {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    (hash as usize % GROUPS, hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::tables::app_fields;
    use crate::store::samples::{add_app, app_name};
    use clipper_domain::Command;

    /// A well-formed application.
    fn app() -> Raw {
        let Command::AddApp(app) = add_app("a") else { unreachable!() };
        let fields = app_fields(&app).into_iter();
        Raw::Hash(fields.map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn foreign(count: usize) -> impl Iterator<Item = (Key, Raw)> {
        (0..count).map(|n| match n % 5 {
            0 => (Key::new(Table::Model, &format!("theirs:{n}")), Raw::Hash(BTreeMap::new())),
            1 => (Key::new(Table::Model, &format!("theirs{n}")), Raw::OtherType),
            2 => (Key::new(Table::Application, &format!("theirs:{n}")), Raw::OtherType),
            3 => (Key::new(Table::Links, &format!("theirs{n}")), Raw::Set([b"m".to_vec()].into())),
            _ => (Key::new(Table::Application, &format!("theirs{n}")), Raw::OtherType),
        })
    }

    fn found(tables: &mut WholeTables, entries: impl IntoIterator<Item = (Key, Raw)>) {
        for (key, raw) in entries {
            if tables.wants(&key) {
                tables.add(key, raw);
            }
        }
    }

    #[test]
    fn what_others_keep_leaves_a_number_and_some_examples() {
        let mut tables = WholeTables::of(Entries::new());
        found(&mut tables, foreign(100_000));
        let ours = [Key::app(&app_name("a")), Key::app(&app_name("b"))];
        found(&mut tables, ours.iter().map(|key| (key.clone(), app())));
        assert_eq!(tables.entries.len(), 2);
        let passed = &tables.passed_over;
        assert_eq!((passed.count(), passed.examples.len()), (100_000, EXAMPLES_MAX));
        assert_eq!((passed.names.sums.len(), passed.names.counts.len()), (GROUPS, GROUPS));
    }

    #[test]
    fn what_the_catalog_has_stays_whatever_it_holds() {
        let (there, gone) = (Key::app(&app_name("a")), Key::app(&app_name("b")));
        let read = [(there.clone(), Raw::OtherType), (gone.clone(), Raw::Absent)];
        let mut tables = WholeTables::of(read.into());
        assert!(!tables.wants(&there) && tables.wants(&gone));
        assert_eq!(tables.entries.into_keys().collect::<Vec<_>>(), [there]);
        assert_eq!(tables.passed_over.count(), 0);
    }

    #[test]
    fn only_names_that_came_or_went_are_read_again() {
        let names = |entries: Vec<(Key, Raw)>| {
            let mut names = Names::default();
            for (key, _) in &entries {
                names.add(key);
            }
            names
        };
        let mut known = WholeTables::of(Entries::new());
        found(&mut known, foreign(20_000));
        let known = known.passed_over;
        assert!(!known.changed(&names(foreign(20_000).collect())).any());
        let new = Key::new(Table::Application, "a");
        let now: Vec<_> = foreign(19_999).chain([(new.clone(), app())]).collect();
        let changed = known.changed(&names(now.clone()));
        let news: Vec<_> = now.into_iter().filter(|(key, _)| changed.contains(key)).collect();
        assert!(news.len() < 20 && news.iter().any(|(key, _)| *key == new), "{}", news.len());
        let mut tables = WholeTables::of(Entries::new());
        tables.passed_over = known.unchanged(&changed);
        found(&mut tables, news);
        assert_eq!(tables.entries.into_keys().collect::<Vec<_>>(), [new]);
        assert_eq!(tables.passed_over.count(), 19_999);
        assert!(!tables.passed_over.changed(&names(foreign(19_999).collect())).any());
    }
}
