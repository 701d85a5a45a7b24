//! What can be told of the past, whatever was compacted, settled or opened again meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::SledLog;
use crate::store::difference::app_fields;
use crate::store::error::StoreError;
use crate::store::event::Envelope;
use crate::store::history::log::{LogLimits, Query};
use crate::store::history::{History, Point};
use crate::store::journal::{Change, EventLog as _};
use crate::store::projection::Catalog;
use crate::store::samples::{any_command, changes};
use crate::store::view::CatalogView;
use clipper_config::JournalConfig;

/// A journal and what ought to be in it.
struct World {
    folder: tempfile::TempDir,
    config: JournalConfig,
    log: SledLog,
    view: CatalogView,
    /// The state after each event, from 0 on.
    states: Vec<Catalog>,
    events: Vec<Envelope>,
}

impl World {
    fn new(config: JournalConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = SledLog::open(folder.path(), &config).unwrap();
        log.load(u64::MAX).unwrap();
        let view = CatalogView::new(0, Catalog::default());
        Self { folder, config, log, view, states: vec![Catalog::default()], events: Vec::new() }
    }

    fn history(&self) -> History {
        History::new(self.log.archive(), self.view.clone())
    }

    fn write(&mut self, change: &Change) {
        self.log.append(std::slice::from_ref(change)).unwrap();
        self.log.flush().unwrap();
        self.view.apply(change);
        for envelope in change {
            let mut state = self.states.last().unwrap().clone();
            state.fold(&envelope.event);
            self.states.push(state);
            self.events.push(envelope.clone());
        }
    }

    fn last(&self) -> u64 {
        self.events.len() as u64
    }

    fn snapshot(&mut self) {
        let seq = self.last();
        self.log.snapshot(seq, &self.states[self.events.len()]).unwrap();
    }

    fn reopen(self) -> Self {
        let Self { folder, config, log, view, states, events } = self;
        drop(log);
        let (mut log, _) = SledLog::open(folder.path(), &config).unwrap();
        log.load(u64::MAX).unwrap();
        Self { folder, config, log, view, states, events }
    }

    /// Every state and every event that is kept, and none that is not.
    fn check(&self) {
        let history = self.history();
        let forgotten = history.forgotten();
        for seq in 0..=self.last() + 1 {
            let found = history.state_at(Point::Seq(seq));
            // Before the first event there was nothing, whatever is kept.
            if seq == 0 || (forgotten..=self.last()).contains(&seq) {
                let at = usize::try_from(seq).unwrap();
                assert_eq!(*found.unwrap().catalog, self.states[at], "event {seq}");
            } else {
                assert!(matches!(found, Err(StoreError::NotKept { .. })), "event {seq}: {found:?}");
            }
        }
        let kept: Vec<u64> = (forgotten + 1..=self.last()).collect();
        let events = history.events(&kept, usize::MAX).unwrap();
        assert_eq!(events, self.events[usize::try_from(forgotten).unwrap()..]);
        if forgotten > 0 {
            assert!(history.events(&[forgotten], 1).is_err());
        }
        for app in ["a", "b", "c", "d"] {
            self.check_blame(&history, app, forgotten);
            self.check_log(&history, app, forgotten);
        }
    }

    fn check_blame(&self, history: &History, app: &str, forgotten: u64) {
        let blame = history.blame(app, usize::MAX).unwrap();
        let now = app_fields(self.states.last().unwrap(), app);
        assert_eq!(blame.is_some(), now.is_some(), "{app}");
        let Some(blame) = blame else { return };
        let mut made: BTreeMap<String, u64> = BTreeMap::new();
        for (envelope, states) in self.events.iter().zip(self.states.windows(2)) {
            let [before, after] = [0, 1].map(|at| app_fields(&states[at], app).unwrap_or_default());
            if after.is_empty() {
                made.clear();
            }
            for (field, value) in &after {
                if before.get(field) != Some(value) {
                    made.insert(field.clone(), envelope.seq);
                }
            }
        }
        for field in blame.fields {
            let by = field.by.map(|entry| entry.seq);
            let expected = made.get(&field.field).copied().filter(|seq| *seq > forgotten);
            assert_eq!(by, expected, "{app} {}", field.field);
        }
    }

    fn check_log(&self, history: &History, app: &str, forgotten: u64) {
        let of_app = |envelope: &&Envelope| {
            envelope.event.app().is_some_and(|name| name.as_str() == app)
                && envelope.seq > forgotten
        };
        let expected: Vec<u64> = self.events.iter().filter(of_app).map(|e| e.seq).collect();
        let limits = LogLimits { entries: 3, bytes: 1 << 20, examined: 5 };
        // From the end, from the beginning, and looking at every event.
        for (from_end, who) in [(true, None), (false, None), (true, Some("admin"))] {
            let (mut seqs, mut next) = (Vec::new(), None);
            loop {
                let mut query = Query { app: Some(app.to_owned()), ..Query::default() };
                query.who = who.map(str::to_owned);
                if from_end {
                    query.before = next;
                } else {
                    query.after = Some(next.unwrap_or(0));
                }
                let page = history.log(&query, limits).unwrap();
                assert!(page.entries.len() <= limits.entries);
                let page_seqs = page.entries.iter().map(|entry| entry.seq);
                if from_end {
                    seqs.splice(..0, page_seqs);
                } else {
                    seqs.extend(page_seqs);
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(seqs, expected, "{app} from the end: {from_end}, {who:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_state_and_event_that_is_kept_is_told(
        commands in prop::collection::vec(any_command(), 1..60),
        keep_events in 0..30_u64,
        snapshot_every in 2..9_usize,
        reopen_at in 0..40_usize,
        settle_every in 1..9_usize,
    ) {
        let config = JournalConfig { keep_events, checkpoints_max: 4, ..JournalConfig::default() };
        let mut world = World::new(config);
        for (at, change) in changes(&commands).0.iter().enumerate() {
            // Whoever looks into it holds up no change.
            world.log.archive().index(&mut |_| world.write(change));
            if at % snapshot_every == 0 {
                world.snapshot();
            }
            if at % settle_every == 0 {
                world.log.idle().unwrap();
            }
            if at == reopen_at {
                world = world.reopen();
                world.check();
            }
        }
        world.check();
        world.reopen().check();
    }
}

#[test]
fn many_read_while_it_is_written_settled_and_compacted() {
    let config = JournalConfig { keep_events: 200, checkpoints_max: 4, ..JournalConfig::default() };
    let mut world = World::new(config);
    let commands: Vec<_> =
        (0..1_500).map(|n| crate::store::samples::add_app(&format!("a{n}"))).collect();
    let all = changes(&commands).0;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3_u64)
        .map(|reader| {
            let (history, stop) = (world.history(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut told = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let last = history.last();
                    let seq = last.saturating_sub(reader * 60);
                    match history.state_at(Point::Seq(seq)) {
                        Ok(state) => {
                            assert_eq!(state.catalog.apps().count() as u64, seq);
                            told += 1;
                        }
                        // The writer was quicker.
                        Err(StoreError::NotKept { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                told
            })
        })
        .collect();
    for (at, change) in all.iter().enumerate() {
        world.write(change);
        if at % 50 == 49 {
            world.snapshot();
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let told: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(told > 0);
    let history = world.history();
    assert!((1_250..=1_300).contains(&history.forgotten()), "{}", history.forgotten());
}
