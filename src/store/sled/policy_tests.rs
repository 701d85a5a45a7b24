//! Values longer than a piece, and syncs of several threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use proptest::prelude::*;

use super::super::SledLog;
use super::*;
use clipper_config::JournalConfig;

const MAX: usize = 4;

fn open(dir: &Path) -> SledLog {
    SledLog::open(dir, &JournalConfig::default()).unwrap().0
}

fn all(table: &PolicyTable) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    table.each(&mut |key, value| drop(found.insert(key.to_owned(), value.to_owned()))).unwrap();
    found
}

/// A value of this length that differs from others of it.
fn value(length: usize, seed: u8) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    (0..length).map(|n| char::from(letters[(n / 7 + usize::from(seed)) % letters.len()])).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Put(&'static str, usize, u8),
    Remove(&'static str),
    RemovePrefix(&'static str),
    Reopen,
}

/// Keys of which some begin with others, as those of users 1 and 10 do.
const KEYS: [&str; 6] = ["a:1:0", "a:1:01", "a:10:0", "ab:1:0", "learned/a:1:0", "z"];
const LENGTHS: [usize; 9] = [0, 1, 4_095, 4_096, 4_097, 8_192, 8_193, 20_000, 65_536];

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::sample::select(&KEYS[..]);
    prop_oneof![
        6 => (key(), prop::sample::select(&LENGTHS[..]), 0..4_u8)
            .prop_map(|(key, length, seed)| Step::Put(key, length, seed)),
        2 => key().prop_map(Step::Remove),
        1 => prop::sample::select(&["a:", "learned/a:"][..]).prop_map(Step::RemovePrefix),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn values_in_pieces_are_those_of_a_map(steps in prop::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Some(open(dir.path()));
        let mut map = BTreeMap::<String, String>::new();
        for step in steps {
            if let Step::Reopen = step {
                // The lock of the first has to go before the second one takes it.
                log.take().unwrap().table.flush().unwrap();
                log = Some(open(dir.path()));
            }
            let table = &log.as_ref().unwrap().table;
            match step {
                Step::Put(key, length, seed) => {
                    let value = value(length, seed);
                    let is_room = map.contains_key(key) || map.len() < MAX;
                    let put = table.put(key, &value, MAX).unwrap();
                    prop_assert_eq!(put == Put::Full, !is_room, "{:?}", put);
                    if is_room {
                        map.insert(key.to_owned(), value);
                    }
                }
                Step::Remove(key) => {
                    table.remove(key).unwrap();
                    map.remove(key);
                }
                Step::RemovePrefix(prefix) => {
                    table.remove_prefix(prefix).unwrap();
                    map.retain(|key, _| !key.starts_with(prefix));
                }
                Step::Reopen => {}
            }
            prop_assert_eq!(&all(table), &map);
            for key in KEYS {
                let found = table.get(key).unwrap();
                prop_assert_eq!(found.as_ref(), map.get(key));
            }
        }
    }
}

#[test]
fn pieces_without_their_first_one_are_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for key in ["a:1:0", "b:1:0"] {
        log.table.put(key, &value(9_000, 1), MAX).unwrap();
    }
    log.table.with(|tree| tree.remove("b:1:0")).unwrap();
    assert_eq!(all(&log.table), BTreeMap::from([("a:1:0".to_owned(), value(9_000, 1))]));
    log.table.put("b:1:0", &value(100, 2), MAX).unwrap();
    assert_eq!(all(&log.table).get("b:1:0"), Some(&value(100, 2)));
    log.table.put("b:1:0", &value(4_096, 2), MAX).unwrap();
    assert_eq!(log.table.get("b:1:0").unwrap(), Some(value(4_096, 2)));
    assert_eq!(all(&log.table).len(), 2);
}

/// Who flushes while another thread's sync runs hears of it when that has ended.
#[test]
fn a_flush_waits_for_the_sync_of_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let table = &log.table;
    table.put("k", "v", MAX).unwrap();
    let (told, flushed) = mpsc::channel();
    std::thread::scope(|scope| {
        // As in the middle of a sync: nothing is counted as written any more.
        let syncing = table.syncing.lock();
        table.unsynced.store(0, Ordering::Relaxed);
        scope.spawn(move || told.send(table.flush()).unwrap());
        let early = flushed.recv_timeout(Duration::from_millis(50));
        assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{early:?}");
        drop(syncing);
        flushed.recv().unwrap().unwrap();
    });
}
