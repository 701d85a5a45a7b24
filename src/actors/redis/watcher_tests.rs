//! The watcher on paused time: a Redis that is away, one that says nothing, and its own death.

use tokio::net::TcpListener;

use super::*;
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::paused::{on_paused_time, pass, plane, settle, until};
use crate::actors::pool::list::ContainerList;
use crate::actors::supervision_tests::Panic;
use crate::store::event::Origin;
use crate::store::memory::MemoryDisk;
use crate::store::policy_state::{PolicyStateStore, Put, SoftTable};
use crate::store::redis::marker::Peer;
use crate::store::{Journal, StoreError, samples};
use clipper_clock::{self as clock, Instant};
use clipper_config::{Config, RedisConfig};

struct NoStates;

impl SoftTable for NoStates {
    fn page(&self, _: Option<&str>, _: usize) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }

    fn get(&self, _: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn put(&self, _: &str, _: &str, _: usize) -> Result<Put, StoreError> {
        Ok(Put::Full)
    }

    fn entries(&self) -> usize {
        0
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove_prefix(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn each(&self, _: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_if_absent(&self, _: &str, _: &str, _: usize) -> Result<Put, StoreError> {
        Ok(Put::Full)
    }
}

/// A watcher of the Redis at `port`, and the way to it before its first attempt has ended.
struct Small {
    redis: RedisMetadata,
    metrics: Arc<crate::metrics::Metrics>,
    _data_dir: tempfile::TempDir,
}

impl Small {
    fn start(port: u16) -> Self {
        let plane = plane(|_| {});
        let (data_dir, metrics) = (tempfile::tempdir().unwrap(), Arc::clone(&plane.metrics));
        let journal = MemoryDisk::new().log();
        let journal = Journal::start(Box::new(journal), Duration::from_mins(10)).unwrap();
        let budget = RestartBudget::for_actor(&plane.containers);
        let view = journal.view();
        let catalog =
            Kept::start("catalog_writer", Arc::clone(&metrics), budget.clone(), move |lifeline| {
                CatalogWriter::new(journal.clone(), Config::default().journal, lifeline)
            });
        let parts = RedisParts {
            url: format!("redis://127.0.0.1:{port}"),
            config: RedisConfig::default(),
            catalog,
            view,
            containers: ContainerList::default(),
            metrics: Arc::clone(&metrics),
            states: PolicyStateStore::new(Arc::new(NoStates), 1, 1),
            learned: Arc::clone(&plane.learned),
            data_dir: data_dir.path().to_owned(),
            events_at_once: 16,
            me: Peer { place: String::new(), keeps_planned: true },
        };
        metrics.redis();
        let (told, availability) = watch::channel(Availability::Starting);
        let of_watcher = Arc::clone(&metrics);
        let watcher = Kept::start("redis_watcher", of_watcher, budget, move |lifeline| {
            RedisWatcher::new(parts.clone(), told.clone(), lifeline)
        });
        let redis = RedisMetadata {
            watcher,
            availability,
            queue_max: 16,
            change_timeout: Duration::from_millis(1_500),
            command_timeout: Duration::from_secs(1),
            rollout_lease: Duration::from_secs(1),
            process: Arc::from("p"),
        };
        Self { redis, metrics, _data_dir: data_dir }
    }

    fn change(&self) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.redis.execute(samples::add_app("a"), Origin::Admin.into())
    }

    fn is_away(&self) -> bool {
        matches!(*self.redis.availability.borrow(), Availability::Away(_))
    }

    fn attempts(&self) -> u64 {
        self.metrics.redis().failures.load(Relaxed)
    }
}

fn since(from: Instant) -> Duration {
    clock::now() - from
}

#[test]
fn while_redis_is_away_changes_are_refused_and_attempts_come_at_their_pauses() {
    on_paused_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let small = Small::start(port);
        until("the first attempt has failed", || small.is_away()).await;
        let refused = small.change().await.unwrap_err().to_string();
        assert!(refused.contains("nothing was written: Redis is away"), "{refused}");
        let before = small.attempts();
        tokio::time::sleep(Duration::from_mins(1)).await;
        // At most 500 ms, half to one and a half of it at random.
        let attempts = small.attempts() - before;
        assert!((80..=245).contains(&attempts), "{attempts} attempts in a minute");
    });
}

#[test]
fn a_redis_that_takes_connections_and_says_nothing_is_away_at_its_limit() {
    on_paused_time(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = clock::now();
        let small = Small::start(silent.local_addr().unwrap().port());
        // It waits for the first attempt, and hears how that ended.
        let refused = small.change().await.unwrap_err().to_string();
        assert!(refused.contains("nothing was written: Redis is away"), "{refused}");
        assert_eq!(since(from), Duration::from_millis(RedisConfig::default().connect_timeout_ms));
        assert!(small.is_away());
    });
}

#[test]
fn what_a_dead_watcher_was_asked_may_be_written_and_its_successor_tries_again() {
    on_paused_time(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let small = Small::start(silent.local_addr().unwrap().port());
        let change = actix::spawn(small.change());
        settle().await;
        let dead = small.redis.watcher.addr();
        assert!(dead.send(Panic).await.is_err());
        let refused = change.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("it may still be written"), "{refused}");
        let refused = small.change().await.unwrap_err().to_string();
        assert!(refused.contains("is being restarted"), "{refused}");
        pass(99).await;
        assert!(small.redis.watcher.addr() == dead, "its pause is 100 ms");
        pass(1).await;
        assert!(small.redis.watcher.addr().connected());
        assert_eq!(small.metrics.actor_restarts("redis_watcher"), 1);
        pass(RedisConfig::default().connect_timeout_ms).await;
        until("its attempt has failed", || small.is_away()).await;
    });
}
