//! The writer's promises, on a log with planned failures: acknowledged means durable, not
//! acknowledged means absent or whole; and what subscribers see.

use std::cell::RefCell;
use std::rc::Rc;

use parking_lot::Mutex;

use super::*;
use crate::store::event::Origin;
use crate::store::memory::{FailPoint, MemoryDisk, Unflushed};
use crate::store::samples::{add_app, add_model, app_name};
use crate::store::sled::SledLog;
use crate::store::{EventLog, inspect};

fn limits() -> JournalConfig {
    JournalConfig { publish_timeout_ms: 50, ..JournalConfig::default() }
}

fn writer(disk: &MemoryDisk, limits: JournalConfig) -> (Addr<CatalogWriter>, CatalogView) {
    let journal = Journal::start(Box::new(disk.log()), Duration::from_mins(1)).unwrap();
    let view = journal.view();
    (CatalogWriter::new(journal, limits, Lifeline::default()).start(), view)
}

async fn run(writer: &Addr<CatalogWriter>, command: Command) -> Result<Acknowledged, ChangeError> {
    writer.send(Execute { command, author: Origin::Admin.into() }).await.unwrap()
}

/// What a subscriber is told, as a message.
#[derive(Message)]
#[rtype(result = "()")]
struct Heard(Published);

/// Passes changes on to a subscriber, one after the other.
fn pass_on<A>(mut changes: Changes, subscriber: Addr<A>)
where
    A: Actor<Context = Context<A>> + Handler<Heard>,
{
    actix::spawn(async move {
        while let Some(published) = changes.next().await {
            let seq = published.envelope.seq;
            if subscriber.send(Heard(published)).await.is_err() {
                return;
            }
            changes.applied(seq);
        }
    });
}

/// Applies what it is told to a copy of its own.
struct Mirror {
    catalog: Rc<RefCell<Catalog>>,
    seqs: Arc<Mutex<Vec<u64>>>,
    /// Handling waits until this is set.
    open: watch::Receiver<bool>,
}

impl Actor for Mirror {
    type Context = Context<Self>;
}

impl Handler<Heard> for Mirror {
    type Result = AtomicResponse<Self, ()>;
    fn handle(&mut self, Heard(msg): Heard, _: &mut Context<Self>) -> Self::Result {
        let mut open = self.open.clone();
        let wait = async move { open.wait_for(|open| *open).await.is_ok() };
        AtomicResponse::new(Box::pin(wait.into_actor(self).map(move |_, mirror, _| {
            mirror.seqs.lock().push(msg.envelope.seq);
            let effects = mirror.catalog.borrow_mut().apply(&msg.envelope.event);
            assert_eq!(effects, *msg.effects);
        })))
    }
}

struct MirrorHandle {
    addr: Addr<Mirror>,
    catalog: Rc<RefCell<Catalog>>,
    seqs: Arc<Mutex<Vec<u64>>>,
    gate: watch::Sender<bool>,
}

async fn mirror(writer: &Addr<CatalogWriter>, open: bool) -> MirrorHandle {
    let (gate, open) = watch::channel(open);
    let catalog = Rc::new(RefCell::new(Catalog::default()));
    let seqs = Arc::new(Mutex::new(Vec::new()));
    let addr = Mirror { catalog: catalog.clone(), seqs: seqs.clone(), open }.start();
    let Subscribed { catalog: state, changes, .. } = writer.send(Subscribe).await.unwrap();
    *catalog.borrow_mut() = (*state).clone();
    pass_on(changes, addr.clone());
    MirrorHandle { addr, catalog, seqs, gate }
}

async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap();
}

#[actix::test]
async fn an_acknowledged_change_is_durable_visible_and_applied_by_subscribers() {
    let disk = MemoryDisk::new();
    let (writer, view) = writer(&disk, limits());
    run(&writer, add_app("before")).await.unwrap();
    let mirror = mirror(&writer, true).await;
    assert!(mirror.catalog.borrow().app("before").is_some());

    let acknowledged = run(&writer, add_model("m", "1")).await.unwrap();

    assert_eq!(acknowledged.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(disk.durable().unwrap()[1..], acknowledged.events);
    assert_eq!(*mirror.seqs.lock(), [2, 3]);
    assert_eq!(*mirror.catalog.borrow(), *view.read());
    assert_eq!(
        run(&writer, add_app("before")).await,
        Err(ChangeError::Refused(CommandError::AppExists(app_name("before"))))
    );
}

#[actix::test]
async fn commands_that_arrive_during_a_flush_share_the_next_one() {
    let disk = MemoryDisk::new();
    let (writer, view) = writer(&disk, limits());
    run(&writer, add_app("warm")).await.unwrap();
    let flushes = disk.flushes();
    disk.hold();
    let first =
        actix::spawn(writer.send(Execute { command: add_app("a"), author: Origin::Admin.into() }));
    until(|| disk.flushes() == flushes + 1).await;
    let execute = |n: usize| {
        // Every second one asks for what the one before it made.
        let command = add_app(&format!("b{}", n / 2));
        actix::spawn(writer.send(Execute { command, author: Origin::Admin.into() }))
    };
    let rest: Vec<_> = (0..64).map(execute).collect();
    tokio::task::yield_now().await;
    assert!(view.read().app("a").is_none(), "not durable, so not visible");
    disk.release();

    first.await.unwrap().unwrap().unwrap();
    for (n, answer) in rest.into_iter().enumerate() {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.is_ok(), n % 2 == 0, "{n}: {answer:?}");
    }
    assert!(disk.flushes() - flushes <= 3, "{} flushes for 65 commands", disk.flushes() - flushes);
    assert_eq!(disk.durable().unwrap().len(), 34);
}

#[actix::test]
async fn a_failed_write_is_absent_or_whole_and_never_acknowledged() {
    use FailPoint::{AfterAppend, AfterFlush, BeforeAppend, BeforeFlush, PanicInAppend};
    use Unflushed::{Kept, Lost};
    let cases = [
        (BeforeAppend, Lost, 0),
        (AfterAppend, Lost, 0),
        (AfterAppend, Kept, 2),
        (BeforeFlush, Lost, 0),
        (BeforeFlush, Kept, 2),
        (AfterFlush, Lost, 2),
        (PanicInAppend, Lost, 0),
    ];
    for (point, unflushed, events) in cases {
        let case = format!("{point:?} {unflushed:?}");
        let disk = MemoryDisk::new();
        let (writer, view) = writer(&disk, limits());
        run(&writer, add_app("kept")).await.unwrap();
        let mirror = mirror(&writer, true).await;
        disk.fail_next(point, unflushed);

        let answer = run(&writer, add_model("m", "1")).await;

        assert!(matches!(answer, Err(ChangeError::Unavailable { .. })), "{case}: {answer:?}");
        // The next command sees a state without doubt, and goes on without a gap.
        let again = run(&writer, add_model("m", "1")).await;
        assert_eq!(again.is_ok(), events == 0, "{case}: {again:?}");
        run(&writer, add_app("after")).await.unwrap();
        let durable = disk.durable().unwrap();
        let seqs: Vec<u64> = durable.iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4], "{case}");
        assert_eq!(*mirror.seqs.lock(), [2, 3, 4], "{case}: published once each, in order");
        assert_eq!(*mirror.catalog.borrow(), *view.read(), "{case}");
    }
}

#[actix::test]
async fn a_refusal_that_rests_on_a_write_that_fails_is_not_a_refusal() {
    let disk = MemoryDisk::new();
    let (writer, _view) = writer(&disk, limits());
    run(&writer, add_app("warm")).await.unwrap();
    disk.fail_next(FailPoint::BeforeFlush, Unflushed::Lost);
    let flushes = disk.flushes();
    disk.hold();
    let send = || writer.send(Execute { command: add_app("a"), author: Origin::Admin.into() });
    let first = actix::spawn(send());
    until(|| disk.flushes() == flushes + 1).await;
    let second = actix::spawn(send());
    tokio::task::yield_now().await;
    disk.release();

    for answer in [first, second] {
        let answer = answer.await.unwrap().unwrap();
        assert!(matches!(answer, Err(ChangeError::Unavailable { .. })), "{answer:?}");
    }
    run(&writer, add_app("a")).await.unwrap();
}

#[actix::test]
async fn a_store_that_cannot_be_read_is_read_again_with_the_next_command() {
    let disk = MemoryDisk::new();
    let (writer, view) = writer(&disk, limits());
    run(&writer, add_app("a")).await.unwrap();
    disk.fail_next(FailPoint::AfterFlush, Unflushed::Kept);
    disk.fail_next(FailPoint::Load, Unflushed::Kept);
    run(&writer, add_app("b")).await.unwrap_err();
    assert!(view.read().app("b").is_none(), "in doubt");

    let answer = run(&writer, add_app("c")).await;
    assert!(matches!(answer, Err(ChangeError::Unavailable { .. })), "{answer:?}");

    run(&writer, add_app("c")).await.unwrap();
    assert!(view.read().app("b").is_some(), "durable after all");
    assert_eq!(view.seq(), 3);
}

#[actix::test]
async fn a_full_queue_answers_at_once() {
    let disk = MemoryDisk::new();
    let (writer, _view) = writer(&disk, JournalConfig { queue_max: 2, ..limits() });
    run(&writer, add_app("warm")).await.unwrap();
    disk.hold();
    let send = |name| writer.send(Execute { command: add_app(name), author: Origin::Admin.into() });
    let waiting = [actix::spawn(send("a")), actix::spawn(send("b"))];
    tokio::task::yield_now().await;
    let Err(ChangeError::Unavailable { reason }) = send("c").await.unwrap() else {
        panic!("accepted beyond the limit");
    };
    assert!(reason.contains("journal.queue_max"), "{reason}");
    disk.release();
    for answer in waiting {
        answer.await.unwrap().unwrap().unwrap();
    }
}

#[actix::test]
async fn a_disk_that_hangs_does_not_hold_the_caller() {
    let disk = MemoryDisk::new();
    let (writer, _view) = writer(&disk, JournalConfig { commit_timeout_ms: 20, ..limits() });
    disk.hold();
    let answer = run(&writer, add_app("a")).await;
    disk.release();
    let Err(ChangeError::Unavailable { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("may still be written"), "{reason}");
}

#[actix::test]
async fn a_frozen_subscriber_delays_one_answer_and_misses_nothing() {
    let disk = MemoryDisk::new();
    let (writer, view) = writer(&disk, limits());
    let frozen = mirror(&writer, false).await;
    let healthy = mirror(&writer, true).await;
    let begin = clock::now();
    for n in 0..20 {
        run(&writer, add_app(&format!("a{n}"))).await.unwrap();
    }
    let limit = Duration::from_millis(limits().publish_timeout_ms);
    assert!(begin.elapsed() >= limit, "the first answer waits for it");
    assert_eq!(healthy.seqs.lock().len(), 20);
    assert!(frozen.seqs.lock().is_empty());

    frozen.gate.send_replace(true);
    until(|| frozen.seqs.lock().len() == 20).await;
    assert_eq!(*frozen.catalog.borrow(), *view.read());
}

#[actix::test]
async fn a_subscriber_that_never_applies_is_cut_off() {
    let disk = MemoryDisk::new();
    let (writer, _view) = writer(&disk, JournalConfig { subscriber_queue_max: 4, ..limits() });
    let frozen = mirror(&writer, false).await;
    for n in 0..64 {
        run(&writer, add_app(&format!("a{n}"))).await.unwrap();
    }
    frozen.gate.send_replace(true);
    run(&writer, add_app("last")).await.unwrap();
    until(|| frozen.seqs.lock().len() >= 4).await;
    assert!(frozen.seqs.lock().len() < 64);
    let dense = frozen.seqs.lock().windows(2).all(|w| w[1] == w[0] + 1);
    assert!(dense, "what it got is in order and without a gap");
    assert!(frozen.addr.connected());
}

#[actix::test]
async fn a_panicking_subscriber_is_forgotten() {
    struct Panics;
    impl Actor for Panics {
        type Context = Context<Self>;
    }
    impl Handler<Heard> for Panics {
        type Result = ();
        fn handle(&mut self, _: Heard, _: &mut Context<Self>) {
            panic!("planned");
        }
    }
    let disk = MemoryDisk::new();
    let (writer, _view) = writer(&disk, JournalConfig { publish_timeout_ms: 60_000, ..limits() });
    let panics = Panics.start();
    pass_on(writer.send(Subscribe).await.unwrap().changes, panics.clone());
    let healthy = mirror(&writer, true).await;
    let both = async {
        run(&writer, add_app("a")).await.unwrap();
        run(&writer, add_app("b")).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(*healthy.seqs.lock(), [1, 2]);
    assert!(!panics.connected());
}

#[actix::test]
async fn a_new_writer_on_the_same_journal_goes_on_where_the_old_one_stopped() {
    let disk = MemoryDisk::new();
    let journal = Journal::start(Box::new(disk.log()), Duration::from_mins(1)).unwrap();
    let old = CatalogWriter::new(journal.clone(), limits(), Lifeline::default()).start();
    run(&old, add_app("a")).await.unwrap();
    disk.hold();
    let lost =
        actix::spawn(old.send(Execute { command: add_app("b"), author: Origin::Admin.into() }));
    until(|| disk.flushes() == 2).await;
    // The old one dies while its commit is under way.
    drop(old);
    let new = CatalogWriter::new(journal.clone(), limits(), Lifeline::default()).start();
    disk.release();
    run(&new, add_app("c")).await.unwrap();
    assert!(journal.view().read().app("b").is_some(), "read back from the store");
    assert_eq!(disk.durable().unwrap().iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3]);
    lost.await.unwrap().ok();
}

/// A replaced writer that lives on for a while cannot overwrite what the new one wrote.
#[actix::test]
async fn two_writers_on_one_journal_never_use_a_number_twice() {
    let disk = MemoryDisk::new();
    let journal = Journal::start(Box::new(disk.log()), Duration::from_mins(1)).unwrap();
    let writers =
        [0, 1].map(|_| CatalogWriter::new(journal.clone(), limits(), Lifeline::default()).start());
    let mut acknowledged = Vec::new();
    for n in 0..40 {
        let [a, b] = &writers;
        let (a, b) = futures_util::future::join(
            run(a, add_app(&format!("a{n}"))),
            run(b, add_app(&format!("b{n}"))),
        )
        .await;
        acknowledged.extend([a, b].into_iter().flatten().flat_map(|a| a.events));
    }
    assert!(acknowledged.len() >= 10, "{}", acknowledged.len());
    acknowledged.sort_by_key(|e| e.seq);
    assert_eq!(disk.durable().unwrap(), acknowledged);
    assert_eq!(journal.view().read().apps().count(), acknowledged.len());
}

#[actix::test]
async fn snapshots_come_after_so_many_events_whatever_the_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let limits = JournalConfig { snapshot_every_events: 10, ..limits() };
    for start in 0..4 {
        let (log, _) = SledLog::open(dir.path(), &limits).unwrap();
        let journal = Journal::start(Box::new(log), Duration::from_mins(1)).unwrap();
        let writer =
            CatalogWriter::new(journal.clone(), limits.clone(), Lifeline::default()).start();
        for n in 0..6 {
            run(&writer, add_app(&format!("a{start}x{n}"))).await.unwrap();
        }
        journal.close().await;
        let answer = run(&writer, add_app("late")).await;
        assert!(matches!(answer, Err(ChangeError::Unavailable { .. })), "{answer:?}");
    }
    let verification = inspect::verify(dir.path(), &limits).unwrap();
    assert!(verification.is_clean(), "{verification}");
    assert_eq!(verification.snapshots, [10, 20]);
}

/// Prints figures: `cargo test --lib measure_commands -- --ignored --nocapture`.
#[actix::test]
#[ignore = "a measurement"]
async fn measure_commands() {
    for clients in [1, 64] {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = SledLog::open(dir.path(), &limits()).unwrap();
        let journal = Journal::start(Box::new(log), Duration::from_mins(1)).unwrap();
        let writer = CatalogWriter::new(journal.clone(), limits(), Lifeline::default()).start();
        let mirror = mirror(&writer, true).await;
        let begin = clock::now();
        let each = 6_400 / clients;
        let work = (0..clients).map(|client| {
            let writer = writer.clone();
            async move {
                for n in 0..each {
                    run(&writer, add_app(&format!("app{client}x{n}"))).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(work).await;
        let elapsed = begin.elapsed();
        assert_eq!(mirror.seqs.lock().len(), 6_400);
        journal.close().await;
        let verification = inspect::verify(dir.path(), &limits()).unwrap();
        let begin = clock::now();
        let replay = SledLog::open(dir.path(), &limits()).unwrap().0.load(0).unwrap();
        let opening = begin.elapsed();
        assert_eq!(replay.seq, 6_400);
        let disk: u64 = std::fs::read_dir(dir.path().join("journal"))
            .unwrap()
            .map(|f| f.unwrap().metadata().unwrap().len())
            .sum();
        println!(
            "{clients} clients: {:.0} commands/s; {} bytes of records, {disk} on disk; \
             opened in {opening:?}",
            6_400.0 / elapsed.as_secs_f64(),
            verification.bytes,
        );
    }
}
