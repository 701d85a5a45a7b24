//! Feedback waits for a disk where no prediction does, and leaves with its application.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::actors::catalog::writer::Execute;
use crate::config::{Config, JournalConfig};
use crate::metrics::Metrics;
use crate::store::Journal;
use crate::store::event::Origin;
use crate::store::memory::MemoryDisk;
use crate::store::samples::{add_app, app_name};
use crate::supervision::budget::RestartBudget;
use clipper_domain::Command;

const PATIENCE: Duration = Duration::from_secs(30);

/// A log in memory that can be held up.
#[derive(Default)]
struct Log {
    kept: Mutex<BTreeSet<(AppName, i64)>>,
    held: Mutex<bool>,
    released: Condvar,
}

impl Log {
    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.released.notify_all();
    }

    fn users(&self, app: &str) -> usize {
        self.kept.lock().iter().filter(|(name, _)| name.as_str() == app).count()
    }
}

impl FeedbackLog for Log {
    fn record(&self, app: &AppName, uid: i64, _: &str) {
        let mut held = self.held.lock();
        self.released.wait_while(&mut held, |held| *held);
        self.kept.lock().insert((app.clone(), uid));
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
        let keeper = Kept::start("feedback_keeper", metrics, budget, move |lifeline| {
            let log: Arc<dyn FeedbackLog> = Arc::clone(&kept) as Arc<dyn FeedbackLog>;
            let learned = Arc::new(LearnedStates::new(10, 10));
            FeedbackKeeper::new(log, (learned, Duration::from_secs(1)), followed.clone(), lifeline)
        });
        Self { log, catalog, queue: FeedbackQueue::new(keeper, queue_max) }
    }

    /// Everybody has applied it when this returns.
    async fn run(&self, command: Command) {
        let execute = Execute { command, origin: Origin::Admin };
        self.catalog.send(execute).await.unwrap().unwrap();
    }

    /// `None`: there is no room.
    fn learn(&self, app: &str, uid: i64) -> Option<oneshot::Receiver<()>> {
        self.queue.learn(&app_name(app), uid, "")
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
    let owner = Owner::start(Arc::default(), 2);
    owner.run(add_app("a")).await;
    owner.until_it_follows("a").await;
    owner.log.hold(true);
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
    owner.log.hold(false);
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
    let owner = Owner::start(Arc::clone(&log), 100);
    owner.run(add_app("a")).await;
    owner.until_it_follows("a").await;
    assert_eq!(log.users("gone"), 0);
}
