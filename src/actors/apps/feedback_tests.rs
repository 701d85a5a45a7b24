//! Feedback waits for a disk where no prediction does, and leaves with its application.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::actors::apps::keeping::FeedbackLog;
use crate::actors::catalog::writer::Execute;
use crate::metrics::Metrics;
use crate::metrics::Unsaved;
use crate::store::Journal;
use crate::store::event::Origin;
use crate::store::memory::MemoryDisk;
use crate::store::samples::{add_app, app_name};
use crate::supervision::budget::RestartBudget;
use clipper_config::{Config, JournalConfig};
use clipper_domain::{Command, ModelName};
use clipper_selection::shared::Part;
use clipper_selection::state::ArmSums;

const PATIENCE: Duration = Duration::from_secs(30);

const SAVED_WITHIN: Duration = Duration::from_millis(10);

/// Lets nobody pass while it is closed, unless that is for ever.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock() = true;
    }

    fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.opened.wait_while_for(&mut self.closed.lock(), |closed| *closed, PATIENCE);
    }
}

/// A log in memory that can be held up.
#[derive(Default)]
struct Log {
    kept: Mutex<BTreeSet<(AppName, i64)>>,
    records: Gate,
    loads: Gate,
    saves: Gate,
    saved: Mutex<BTreeMap<UserOf, Part>>,
    /// Users whose states it takes.
    room: Option<usize>,
}

impl Log {
    fn users(&self, app: &str) -> usize {
        self.kept.lock().iter().filter(|(name, _)| name.as_str() == app).count()
    }
}

impl FeedbackLog for Log {
    fn record(&self, app: &AppName, uid: i64, _: &str) {
        self.records.pass();
        self.kept.lock().insert((app.clone(), uid));
    }

    fn save(&self, app: &AppName, uid: i64, own: &Part) -> Result<(), Unsaved> {
        self.saves.pass();
        let (mut saved, user) = (self.saved.lock(), (app.clone(), uid));
        if self.room.is_some_and(|room| saved.len() >= room) && !saved.contains_key(&user) {
            return Err(Unsaved::Full);
        }
        saved.insert(user, own.clone());
        Ok(())
    }

    fn load(&self, app: &AppName, uid: i64) -> Option<Part> {
        self.loads.pass();
        self.saved.lock().get(&(app.clone(), uid)).cloned()
    }

    fn forget(&self, app: &AppName) {
        self.kept.lock().retain(|(name, _)| name != app);
    }

    fn apps(&self) -> BTreeSet<AppName> {
        self.kept.lock().iter().map(|(name, _)| name.clone()).collect()
    }
}

struct Owner {
    log: Arc<Log>,
    catalog: Kept<CatalogWriter>,
    keeping: Keeping,
    queue: FeedbackQueue,
}

impl Owner {
    fn start(log: Arc<Log>, queue_max: usize) -> Self {
        let (metrics, budget) =
            (Metrics::new(), RestartBudget::for_actor(&Config::default().containers));
        let journal = Journal::start(Box::new(MemoryDisk::new().log()), PATIENCE).unwrap();
        let catalog =
            Kept::start("catalog_writer", Arc::clone(&metrics), budget.clone(), move |lifeline| {
                CatalogWriter::new(journal.clone(), JournalConfig::default(), lifeline)
            });
        let (kept, followed) = (Arc::clone(&log), catalog.clone());
        let keeping = Keeping::of(Arc::clone(&log) as Arc<dyn FeedbackLog>);
        let of_keeper = keeping.clone();
        let keeper = Kept::start("feedback_keeper", metrics, budget, move |lifeline| {
            let log: Arc<dyn FeedbackLog> = Arc::clone(&kept) as Arc<dyn FeedbackLog>;
            let keeping = Keeping { log, ..of_keeper.clone() };
            FeedbackKeeper::new(keeping, SAVED_WITHIN, followed.clone(), lifeline)
        });
        Self { log, catalog, keeping, queue: FeedbackQueue::new(keeper, queue_max) }
    }

    /// One that serves application `a`.
    async fn with_app(log: Arc<Log>, queue_max: usize) -> Self {
        let owner = Self::start(log, queue_max);
        owner.run(add_app("a")).await;
        owner.until_it_follows("a").await;
        owner
    }

    /// Everybody has applied it when this returns.
    async fn run(&self, command: Command) {
        let execute = Execute { command, author: Origin::Admin.into() };
        self.catalog.send(execute).await.unwrap().unwrap();
    }

    /// `None`: there is no room.
    fn learn(&self, app: &str, uid: i64) -> Option<oneshot::Receiver<()>> {
        Some(self.queue.learn(self.queue.room(1)?, &app_name(app), vec![uid], ""))
    }

    /// Feedback of each of these users; what is given back ends when it is kept.
    fn observe(&self, app: &str, uids: &[i64]) -> oneshot::Receiver<()> {
        let arms = BTreeMap::from([(ModelName::parse("m").unwrap(), ArmSums::of(1.0, 1.0))]);
        let taught = Contribution { window: None, arms };
        let feedback: Vec<_> = uids.iter().map(|uid| (*uid, taught.clone())).collect();
        let room = self.queue.room(uids.len()).unwrap();
        self.queue.observe(room, &app_name(app), feedback)
    }

    async fn observed(&self, app: &str, uids: &[i64]) {
        tokio::time::timeout(PATIENCE, self.observe(app, uids)).await.unwrap().unwrap();
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, met).await.unwrap();
    }

    fn rounds(&self, app: &str, uid: i64) -> Option<u64> {
        let state = self.keeping.learned.of(&app_name(app)).of_user_alone(uid);
        state.map(|state| state.rounds())
    }

    async fn learnt(&self, app: &str, uid: i64) {
        let told = self.learn(app, uid).unwrap();
        tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
    }

    /// The keeper follows the catalog from its start on, which is a message or two later.
    async fn until_it_follows(&self, app: &str) {
        let follows = async {
            while self.log.users(app) == 0 {
                self.learnt(app, 0).await;
            }
        };
        tokio::time::timeout(PATIENCE, follows).await.unwrap();
    }
}

#[actix::test]
async fn what_waits_for_a_slow_disk_is_bounded_and_nobody_else_waits() {
    let owner = Owner::with_app(Arc::default(), 2).await;
    owner.log.records.close();
    let mut waiting = Vec::new();
    let full = async {
        let mut uid = 1;
        while let Some(told) = owner.learn("a", uid) {
            waiting.push(told);
            uid += 1;
            // This thread is free: a write is under way elsewhere.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.unwrap();
    assert_eq!(waiting.len(), 2);
    owner.log.records.open();
    let (all, users) = (futures_util::future::join_all(waiting), 1);
    let told = tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert!(told.iter().all(Result::is_ok));
    assert_eq!(owner.log.users("a"), users + told.len());
}

#[actix::test]
async fn a_deleted_application_leaves_no_policy_state() {
    let owner = Owner::start(Arc::default(), 100);
    for name in ["a", "b"] {
        owner.run(add_app(name)).await;
        owner.until_it_follows(name).await;
    }
    owner.run(Command::DeleteApp(app_name("a"))).await;
    assert_eq!((owner.log.users("a"), owner.log.users("b")), (0, 1));
    // Feedback that was on its way meanwhile.
    owner.learnt("a", 7).await;
    assert_eq!(owner.log.users("a"), 0);
    owner.run(add_app("a")).await;
    owner.learnt("a", 7).await;
    assert_eq!(owner.log.users("a"), 1);
}

#[actix::test]
async fn what_an_application_left_that_was_deleted_in_its_absence_is_forgotten_at_the_start() {
    let log = Arc::new(Log::default());
    log.record(&app_name("gone"), 1, "");
    let _owner = Owner::with_app(Arc::clone(&log), 100).await;
    assert_eq!(log.users("gone"), 0);
}

#[actix::test]
async fn users_beyond_the_bound_leave_once_saved_and_lose_nothing() {
    let owner = Owner::with_app(Arc::default(), 100).await;
    let uids: Vec<i64> = (1..=20).collect();
    for _ in 0..3 {
        owner.observed("a", &uids).await;
        // Three have room.
        owner.until(|| owner.keeping.learned.users() <= 4).await;
    }
    assert_eq!(owner.rounds("a", 0), Some(60));
    for uid in uids {
        // Who is asked about comes back; the first question brings nothing.
        owner.until(|| owner.rounds("a", uid) == Some(3)).await;
    }
}

#[actix::test]
async fn nobody_leaves_while_they_are_being_saved() {
    let owner = Owner::with_app(Arc::default(), 100).await;
    let uids: Vec<i64> = (1..=20).collect();
    owner.observed("a", &uids).await;
    owner.until(|| owner.keeping.learned.users() <= 4).await;
    owner.log.loads.close();
    owner.log.saves.close();
    let told = owner.observe("a", &uids);
    // Another save is due once they have been brought back.
    tokio::time::pause();
    tokio::time::advance(SAVED_WITHIN).await;
    tokio::time::resume();
    owner.log.loads.open();
    owner.until(|| owner.keeping.learned.users() == 21).await;
    // For what must not happen.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let users = owner.keeping.learned.users();
    owner.log.saves.open();
    told.await.unwrap();
    assert_eq!(users, 21);
    for uid in uids {
        owner.until(|| owner.rounds("a", uid) == Some(2)).await;
    }
}

#[actix::test]
async fn who_cannot_be_saved_stays_in_memory_and_others_have_none_of_their_own() {
    let log = Log { room: Some(3), ..Log::default() };
    let owner = Owner::with_app(Arc::new(log), 100).await;
    owner.observed("a", &[1, 2, 3, 4, 5, 6]).await;
    // Everybody's state and two users have room on the disk; four users stay.
    owner.until(|| owner.keeping.learned.users() == 5).await;
    owner.observed("a", &[7, 6]).await;
    assert_eq!(
        (owner.rounds("a", 0), owner.rounds("a", 7), owner.rounds("a", 6)),
        (Some(8), None, Some(2))
    );
}
