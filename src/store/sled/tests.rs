//! Invariants J1 and J2 on sled, and damaged records.

use proptest::prelude::*;

use super::*;
use crate::store::head::Acknowledged;
use crate::store::history::Point;
use crate::store::inspect;
use crate::store::policy_state::Put;
use crate::store::samples::{add_app, add_model, any_command, app_name, changes};
use crate::store::scan::Fault;
use clipper_domain::{Command, InputType};

fn config() -> JournalConfig {
    JournalConfig::default()
}

fn open(data_dir: &Path) -> SledLog {
    SledLog::open(data_dir, &config()).unwrap().0
}

fn write(log: &mut SledLog, changes: &[Change]) {
    log.append(changes).unwrap();
    log.flush().unwrap();
}

/// Ten applications and a model: events 1 to 12, the last two of one change.
fn twelve_events() -> Vec<Change> {
    let mut commands: Vec<Command> = (0..10).map(|n| add_app(&format!("a{n}"))).collect();
    commands.push(add_model("m", "1"));
    changes(&commands).0
}

/// A store of [`twelve_events`] whose record `seq` is what `damage` makes of it (`None` = removed).
fn damaged(seqs: &[u64], damage: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    write(&mut log, &twelve_events());
    log.close().unwrap();
    for seq in seqs {
        let engine = log.engine().unwrap();
        let key = seq.to_be_bytes();
        let record = engine.journal.get(key).unwrap().unwrap().to_vec();
        match damage(record) {
            Some(record) => drop(engine.journal.insert(key, record).unwrap()),
            None => drop(engine.journal.remove(key).unwrap()),
        }
    }
    log.engine().unwrap().sync().unwrap();
    dir
}

type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

const FLIP: Damage = |mut record| {
    *record.last_mut()? ^= 1;
    Some(record)
};

fn fold(state: &mut Catalog, change: &Change) {
    for envelope in change {
        state.apply(&envelope.event);
    }
}

#[test]
fn what_was_flushed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (all, state) = changes(&[add_app("a"), add_model("m", "1")]);
    write(&mut open(dir.path()), &all);
    let (mut log, report) = SledLog::open(dir.path(), &config()).unwrap();
    assert_eq!(report, OpenReport { last_seq: 3, ..OpenReport::default() });
    let replay = log.load(1).unwrap();
    assert_eq!((replay.seq, replay.catalog), (3, state));
    assert_eq!(replay.tail, all.concat()[1..]);
}

/// J1: a damaged tail is reported, moved aside and cut; the next start is clean and goes on.
#[test]
fn a_damaged_tail_is_cut_with_the_whole_change() {
    let cases: [(&str, &[u64], Damage, u64); 5] = [
        ("flipped", &[12], FLIP, 11),
        ("flipped first of a change", &[11, 12], FLIP, 11),
        ("shortened", &[12], |r| Some(r[..r.len() - 3].to_vec()), 11),
        ("shorter than a header", &[12], |r| Some(r[..5].to_vec()), 11),
        ("empty", &[10, 11, 12], |_| Some(Vec::new()), 10),
    ];
    for (what, seqs, damage, first_cut) in cases {
        let dir = damaged(seqs, damage);
        let fault = inspect::verify(dir.path(), &config()).unwrap().fault;
        let (mut log, report) = SledLog::open(dir.path(), &config()).unwrap();
        let cut = report.cut.unwrap();
        assert_eq!(cut.seq, first_cut, "{what}");
        assert_eq!(cut.records as u64, 12 - first_cut + 1, "{what}");
        assert!(cut.offset > 0, "{what}");
        assert_eq!(fault.map(|f| (f.seq, f.offset)), Some((cut.seq, cut.offset)), "{what}");
        let replay = log.load(0).unwrap();
        assert_eq!(replay.seq, first_cut - 1, "{what}");
        assert_eq!(replay.catalog.models().count(), 0, "{what}: half a change was applied");
        assert_eq!(log.engine().unwrap().cut.len() as u64, 12 - first_cut + 1, "{what}: kept");
        // The numbers go on where the good ones end.
        let mut next = twelve_events().concat()[usize::try_from(first_cut - 1).unwrap()].clone();
        next.seq = first_cut;
        write(&mut log, &[vec![next]]);
        drop(log);
        let (_, report) = SledLog::open(dir.path(), &config()).unwrap();
        assert_eq!((report.last_seq, report.cut), (first_cut, None), "{what}");
    }
}

/// Only the acknowledgement tells that there was more.
#[test]
fn acknowledged_records_gone_without_a_trace_are_refused_until_repaired() {
    let dir = damaged(&[12], |_| None);
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert_eq!(error, StoreError::Lost { from: 12, to: 12 });
    let verification = inspect::verify(dir.path(), &config()).unwrap();
    assert!(verification.unusable.is_some_and(|why| why.contains("acknowledged")));
    let report = inspect::repair(dir.path(), &config()).unwrap();
    assert_eq!((report.last_seq, report.lost_up_to), (10, Some(12)), "not half a change");
    assert_eq!(open(dir.path()).load(0).unwrap().seq, 10);
}

/// Damage with good events after it is never cut without being told to.
#[test]
fn damage_in_the_middle_is_refused_until_repaired() {
    let cases: [(&str, Damage, &str); 3] = [
        ("flipped", FLIP, "checksum"),
        ("truncated", |r| Some(r[..20].to_vec()), "payload"),
        ("absent", |_| None, "missing"),
    ];
    for (what, damage, says) in cases {
        let dir = damaged(&[5], damage);
        for _ in 0..2 {
            let error = SledLog::open(dir.path(), &config()).err().unwrap();
            let StoreError::Corrupt { seq, last_valid, ref reason, .. } = error else {
                panic!("{what}: {error}");
            };
            assert_eq!((seq, last_valid), (5, 12), "{what}");
            assert!(reason.contains(says), "{what}: {reason}");
            assert!(error.to_string().contains("clipper journal verify"), "{error}");
        }
        let verification = inspect::verify(dir.path(), &config()).unwrap();
        let found = verification.fault.as_ref().map(|f: &Fault| (f.seq, f.last_valid));
        assert_eq!(found, Some((5, Some(12))), "{what}");
        assert!(!verification.is_clean());

        let report = inspect::repair(dir.path(), &config()).unwrap();
        assert_eq!((report.last_seq, report.cut.map(|c| c.seq)), (4, Some(5)), "{what}");
        assert!(inspect::verify(dir.path(), &config()).unwrap().is_clean(), "{what}");
        assert_eq!(open(dir.path()).load(0).unwrap().seq, 4, "{what}");
    }
}

#[test]
fn a_journal_of_a_later_release_is_refused_not_cut() {
    let newer = |mut record: Vec<u8>| {
        record[0] = record::VERSION + 1;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&record[..7]);
        hasher.update(&record[11..]);
        record[7..11].copy_from_slice(&hasher.finalize().to_le_bytes());
        Some(record)
    };
    let dir = damaged(&[12], newer);
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    let (found, known) = (record::VERSION + 1, record::VERSION);
    assert_eq!(error, StoreError::NewerFormat { seq: 12, found, known });
    let dir = damaged(&[12], |_| Some(record::encode(0, &"an event unknown here").unwrap()));
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert!(matches!(error, StoreError::NotUnderstood { seq: 12, .. }), "{error}");
}

#[test]
fn a_directory_in_use_is_refused_with_a_clear_text() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path());
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert!(error.to_string().contains("already in use by another process"), "{error}");
    assert!(matches!(inspect::verify(dir.path(), &config()), Err(StoreError::InUse { .. })));
}

#[test]
fn inspecting_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let error = inspect::verify(dir.path(), &config()).err().unwrap();
    assert!(matches!(error, StoreError::NotThere { .. }));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn compaction_keeps_what_list_and_an_older_snapshot_need() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { keep_events: 3, ..config() };
    let (mut log, _) = SledLog::open(dir.path(), &config).unwrap();
    let mut state = Catalog::default();
    for change in twelve_events() {
        write(&mut log, std::slice::from_ref(&change));
        fold(&mut state, &change);
        let seq = change[0].seq;
        if seq.is_multiple_of(4) {
            log.snapshot(seq, &state).unwrap();
        }
    }
    // Snapshots at 4 and 8 are kept; 5 = 8 - 3 is above the older snapshot.
    drop(log);
    let kept = inspect::list(dir.path(), &config, 0, 100).unwrap();
    assert_eq!(kept.iter().map(|e| e.seq).collect::<Vec<_>>(), (5..=12).collect::<Vec<_>>());
    let state_at = |seq| inspect::state(dir.path(), &config, Some(Point::Seq(seq)));
    assert_eq!(state_at(6).unwrap().catalog.apps().count(), 6);
    let gone = state_at(3).unwrap_err();
    assert_eq!(gone, StoreError::NotKept { seq: 3, oldest: 5, newest: 12 });

    // The newest snapshot is damaged: the one before serves.
    let (log, _) = SledLog::open(dir.path(), &config).unwrap();
    let engine = log.engine().unwrap();
    engine.snapshots.insert(8_u64.to_be_bytes(), b"garbage").unwrap();
    engine.db.flush().unwrap();
    drop(log);
    let (mut log, report) = SledLog::open(dir.path(), &config).unwrap();
    assert_eq!((report.snapshot_seq, report.bad_snapshots), (4, vec![8]));
    assert_eq!(log.load(0).unwrap().catalog, state);
}

#[test]
fn a_cut_below_a_snapshot_goes_on_from_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let all = twelve_events();
    write(&mut log, &all);
    let state = log.load(0).unwrap().catalog;
    log.snapshot(12, &state).unwrap();
    let engine = log.engine().unwrap();
    for seq in 10..=12_u64 {
        engine.journal.insert(seq.to_be_bytes(), b"torn").unwrap();
    }
    engine.db.flush().unwrap();
    drop(log);
    let (mut log, report) = SledLog::open(dir.path(), &config()).unwrap();
    assert_eq!((report.last_seq, report.snapshot_seq), (12, 12));
    assert!(report.cut.unwrap().reason.contains("snapshot of event 12"));
    let mut next = all[0][0].clone();
    next.seq = 13;
    write(&mut log, &[vec![next]]);
    drop(log);
    assert_eq!(open(dir.path()).load(0).unwrap().seq, 13);
}

#[test]
fn a_repair_below_a_snapshot_keeps_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let all = twelve_events();
    write(&mut log, &all[..8]);
    let state = log.load(0).unwrap().catalog;
    log.snapshot(8, &state).unwrap();
    write(&mut log, &all[8..]);
    let whole = log.load(0).unwrap().catalog;
    let engine = log.engine().unwrap();
    engine.journal.insert(3_u64.to_be_bytes(), b"torn").unwrap();
    engine.db.flush().unwrap();
    drop(log);
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { seq: 3, last_valid: 12, .. }), "{error}");

    let report = inspect::repair(dir.path(), &config()).unwrap();
    assert_eq!((report.last_seq, report.cut.map(|c| (c.seq, c.records))), (12, Some((1, 8))));
    assert_eq!(open(dir.path()).load(0).unwrap().catalog, whole);
}

#[test]
fn policy_state_is_bounded_kept_and_forgotten_by_application() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { policy_state_max_entries: 3, ..config() };
    let (mut log, _) = SledLog::open(dir.path(), &config).unwrap();
    let store = log.policy_state();
    let (a, ab) = (app_name("a"), app_name("ab"));
    assert_eq!(store.get(&a, 0), None);
    assert_eq!(store.put_if_absent(&a, 0, "first"), Ok(Put::Stored));
    assert_eq!(store.put_if_absent(&a, 0, "second"), Ok(Put::Present));
    assert_eq!(store.put_if_absent(&a, -1, "x"), Ok(Put::Stored));
    assert_eq!(store.put_if_absent(&ab, 0, "other"), Ok(Put::Stored));
    assert_eq!(store.put_if_absent(&ab, 1, "y"), Ok(Put::Full));
    log.idle().unwrap();
    drop((log, store));

    let (log, _) = SledLog::open(dir.path(), &config).unwrap();
    let store = log.policy_state();
    assert_eq!(store.get(&a, 0).as_deref(), Some("first"));
    store.forget(&a).unwrap();
    assert_eq!((store.get(&a, 0), store.get(&a, -1)), (None, None));
    assert_eq!(store.get(&ab, 0).as_deref(), Some("other"));
    assert_eq!(store.put_if_absent(&ab, 1, "y"), Ok(Put::Stored));
}

/// No page grows beyond what sled writes inline; a cut in the middle of a snapshot leaves none.
#[test]
fn large_records_lie_in_pieces_and_half_a_snapshot_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut spec = crate::store::samples::app("large", InputType::Doubles);
    spec.default_output = "x".repeat(300_000);
    let commands: Vec<Command> = (0..600).map(|n| add_app(&format!("a{n}"))).collect();
    let (all, state) = changes(&[&[Command::AddApp(spec)], commands.as_slice()].concat());
    write(&mut log, &all);
    for seq in 599..=601 {
        log.snapshot(seq, &state).unwrap();
    }
    let engine = log.engine().unwrap();
    let blobs = std::fs::read_dir(dir.path().join("journal/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
    assert_eq!(engine.contents(usize::MAX).unwrap().snapshots.len(), 3);
    engine.snapshots.remove(601_u64.to_be_bytes()).unwrap();
    engine.sync().unwrap();
    drop(log);
    let (mut log, report) = SledLog::open(dir.path(), &config()).unwrap();
    assert_eq!((report.snapshot_seq, report.bad_snapshots), (600, Vec::new()));
    assert_eq!(log.load(0).unwrap().catalog, state);
}

/// Whatever the kind of failure, and whoever was told of it first.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_before_the_store_is_read_again() {
    use std::io::{Error, ErrorKind};
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let all = changes(&[add_app("a"), add_app("b"), add_app("c")]).0;
        write(&mut log, &all[..1]);
        // As policy state does when its sync fails.
        log.engine().unwrap().files.note_failure(&Error::from(kind));
        log.append(&all[1..2]).unwrap();
        let error = log.flush().unwrap_err();
        assert!(!error.certainly_not_written() && error.to_string().contains("has not kept"));
        for _ in 0..2 {
            let refused = log.append(&all[1..2]).unwrap_err();
            assert!(refused.certainly_not_written() && refused.asks_for_reading(), "{refused}");
        }
        assert_eq!(log.engine.as_ref().unwrap().head.read(), Acknowledged::UpTo(1));
        let seq = log.load(0).unwrap().seq;
        assert!(seq == 1 || seq == 2, "{seq}");
        write(&mut log, &all[usize::try_from(seq).unwrap()..]);
        drop(log);
        assert_eq!(open(dir.path()).load(0).unwrap().seq, 3);
    }
}

/// Storing it again writes nothing, as it is there; it is not on the disk for that.
#[test]
fn policy_state_whose_sync_failed_is_not_taken_for_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let store = log.policy_state();
    store.replace("k", "v").unwrap();
    store.flush().unwrap();
    assert!(!log.table.dirty.load(Ordering::Relaxed), "nothing is left to the journal");
    store.replace("k", "w").unwrap();
    log.engine().unwrap().files.note_failure(&std::io::ErrorKind::StorageFull.into());
    for _ in 0..2 {
        assert_eq!(store.replace("k", "w"), Ok(Put::Present));
        store.flush().unwrap_err();
    }
    log.idle().unwrap_err();
    log.load(0).unwrap();
    store.replace("k", "w").unwrap();
    store.flush().unwrap();
}

#[test]
fn what_sled_had_only_begun_to_write_is_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    write(&mut open(dir.path()), &twelve_events());
    let unfinished = dir.path().join("journal/snap.FFFFFFFFFFFFFFFF.generating");
    for bytes in ["", "not a whole one"] {
        std::fs::write(&unfinished, bytes).unwrap();
        assert_eq!(open(dir.path()).load(0).unwrap().seq, 12);
        assert!(!unfinished.exists());
    }
    let in_use = open(dir.path());
    std::fs::write(&unfinished, "").unwrap();
    assert!(matches!(SledLog::open(dir.path(), &config()), Err(StoreError::InUse { .. })));
    assert!(unfinished.exists(), "it may be of the other one");
    drop(in_use);
}

/// A failed write is followed by opening the engine again, while policy state is in other hands.
#[test]
fn a_failed_log_is_usable_again_after_a_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let store = log.policy_state();
    write(&mut log, &changes(&[add_app("a")]).0);
    let failed = log.write(|_| Err(::sled::Error::Unsupported("planned".to_owned())));
    assert!(!failed.unwrap_err().certainly_not_written());
    let refused = log.append(&changes(&[add_app("b")]).0);
    assert!(refused.unwrap_err().certainly_not_written());
    assert_eq!(log.load(0).unwrap().seq, 1);
    assert_eq!(store.put_if_absent(&app_name("a"), 1, "x"), Ok(Put::Stored));
    log.flush().unwrap();
}

/// The engine has them in memory then, and not on the disk; a disk without room can be read.
#[test]
fn line_a_events_that_could_not_be_settled_stay_in_the_write_ahead_log() {
    use std::io::{Error, ErrorKind};
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    write(&mut log, &twelve_events()[..6]);
    for _ in 0..2 {
        log.engine().unwrap().files.note_failure(&Error::from(ErrorKind::StorageFull));
        log.settle().unwrap_err();
        assert!(log.engine().is_err(), "it is opened anew before anything else");
        assert_eq!(log.load(0).unwrap().seq, 6);
    }
    write(&mut log, &twelve_events()[6..]);
    drop(log);
    assert_eq!(open(dir.path()).load(0).unwrap().tail, twelve_events().concat());
}

/// What a power cut leaves of the engine may end long before what was acknowledged.
#[test]
fn line_a_changes_cost_the_engine_nothing_and_are_there_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = |name: &str| dir.path().join("journal").join(name);
    let mut log = open(dir.path());
    write(&mut log, &twelve_events()[..2]);
    log.close().unwrap();
    let engine = std::fs::read(journal("db")).unwrap();
    for change in &twelve_events()[2..] {
        write(&mut log, std::slice::from_ref(change));
    }
    assert!(std::fs::read(journal("db")).unwrap() == engine, "one file is written and synced");
    let kept: Vec<_> = ["wal", "acknowledged"]
        .map(|name| (journal(name), std::fs::read(journal(name)).unwrap()))
        .into();
    drop(log);
    let back = || {
        std::fs::write(journal("db"), &engine).unwrap();
        for (path, bytes) in &kept {
            std::fs::write(path, bytes).unwrap();
        }
    };
    back();
    let contents = SledLog::inspect(dir.path(), &config()).unwrap();
    assert_eq!(contents.scan.events, twelve_events().concat());
    let mut again = open(dir.path());
    assert_eq!(again.load(0).unwrap().tail, twelve_events().concat());
    drop(again);
    // Half a group was never acknowledged; a whole one that is damaged was, and that is noticed.
    back();
    std::fs::remove_file(journal("wal")).unwrap();
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert_eq!(error, StoreError::Lost { from: 3, to: 12 });
    back();
    let mut wal = kept[0].1.clone();
    wal[3 * 4096 + 30] ^= 1;
    std::fs::write(journal("wal"), wal).unwrap();
    let error = SledLog::open(dir.path(), &config()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { seq: 5, last_valid: 12, .. }), "{error}");
    let report = inspect::repair(dir.path(), &config()).unwrap();
    assert_eq!((report.last_seq, report.lost_up_to), (4, None));
    // The numbers are used again, and nothing of the old ones comes back.
    let mut log = open(dir.path());
    write(&mut log, &twelve_events()[4..5]);
    drop(log);
    assert_eq!(open(dir.path()).load(0).unwrap().seq, 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// J2: replay from the start, from any snapshot, and the state folded live are equal.
    #[test]
    fn replay_from_the_start_and_from_any_snapshot_is_equal(
        commands in prop::collection::vec(any_command(), 1..40),
        snapshots in prop::collection::btree_set(0..40_usize, 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (all, state) = changes(&commands);
        let mut log = open(dir.path());
        let mut live = Catalog::default();
        for (at, change) in all.iter().enumerate() {
            write(&mut log, std::slice::from_ref(change));
            fold(&mut live, change);
            if snapshots.contains(&at) {
                log.snapshot(change[change.len() - 1].seq, &live).unwrap();
            }
        }
        drop(log);
        let contents = SledLog::inspect(dir.path(), &config()).unwrap();
        let from_start = replay(&[], &contents.scan, 0, u64::MAX).unwrap();
        prop_assert_eq!(&from_start.catalog, &state);
        for end in 0..=contents.snapshots.len() {
            let from = replay(&contents.snapshots[..end], &contents.scan, 0, u64::MAX).unwrap();
            prop_assert_eq!((from.seq, &from.catalog), (from_start.seq, &from_start.catalog));
        }
        prop_assert!(inspect::verify(dir.path(), &config()).unwrap().is_clean());
    }
}
