//! A whole graph of actors with containers on real connections, and deaths in it: a child that
//! panics, one that fails at each start, one that hangs.

mod graph;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;

use self::graph::Graph;
use super::apps::app::App;
use super::apps::router::{AppOfModel, Route, Router};
use super::catalog::writer::{CatalogWriter, Execute};
use super::models::batcher::Batcher;
use super::models::model::Model;
use super::models::registry::Models;
use super::pool::container_pool::ContainerPool;
use super::pool::messages::StopChildren;
use super::redis::watcher::RedisWatcher;
use super::replica::container::Container;
use crate::children::ChildPlan;
use crate::children::launch::Launch;
use crate::store::event::Origin;
use crate::store::samples;
use clipper_clock as clock;
use clipper_domain::{Command, InputType, ModelId};
use clipper_scheduling::ticket::DefaultReason;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_mins(10);

/// Dies while it is handled.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Panic;

macro_rules! panics {
    ($($actor:ty),+) => {
        $(impl Handler<Panic> for $actor {
            type Result = ();
            fn handle(&mut self, _: Panic, _: &mut Self::Context) {
                panic!("on purpose");
            }
        })+
    };
}
panics!(App, Batcher, CatalogWriter, Container, ContainerPool, Model, Models, RedisWatcher, Router);

/// Waits for the death; its sender never gets an answer.
async fn kill<A>(addr: Addr<A>)
where
    A: Actor<Context = Context<A>> + Handler<Panic>,
{
    assert!(addr.send(Panic).await.is_err());
    until("it is gone", async || !addr.connected()).await;
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "not in time: {what}");
}

#[actix::test]
async fn what_a_panicked_batcher_had_queued_is_answered_by_its_successor() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::from_millis(100)).await;
    let handle = graph.handle();
    let queries = join_all((0..5).map(|input| graph.predict(input)));
    let death = async {
        until("queries wait", async || handle.load().waiting > 0).await;
        kill(graph.batcher().await.unwrap()).await;
    };
    let (answers, ()) = futures_util::future::join(queries, death).await;
    for answer in answers {
        assert_eq!(answer.unwrap().unwrap(), "7");
    }
    assert_eq!(graph.restarts("batcher"), 1);
    assert_eq!((graph.replicas(), handle.load().waiting), (1, 0));
}

#[actix::test]
async fn a_panicked_containers_queries_go_to_another_replica() {
    let graph = Graph::serving(PATIENCE).await;
    let _hanging = graph.container("hung", FOR_EVER).await;
    let id = samples::model_id("m", "1");
    let death = async {
        until("the query is under way", async || {
            graph.plane.cache.flights() == 1 && graph.handle().load().waiting == 0
        })
        .await;
        let hanging = graph.pool.send(ContainersOf(id.clone())).await.unwrap();
        let _ok = graph.container("7", Duration::ZERO).await;
        kill(hanging[0].clone()).await;
        until("the pool forgets it", async || graph.list.all().len() == 1).await;
        assert_eq!(graph.answer(2).await, "7");
    };
    let (answer, ()) = futures_util::future::join(graph.answer(1), death).await;
    assert_eq!(answer, "7");
}

#[actix::test]
async fn a_hanging_replica_costs_one_batch_and_the_other_replica_serves() {
    let graph = Graph::serving(Duration::from_millis(500)).await;
    let _hanging = graph.container("hung", FOR_EVER).await;
    let asked = clock::now();
    assert!(matches!(graph.predict(0).await.unwrap(), Err(DefaultReason::Late)));
    // Less `serving.answer_margin_us`.
    assert!(clock::now() - asked >= Duration::from_millis(490));
    let _ok = graph.container("7", Duration::ZERO).await;
    for input in 1..20 {
        assert_eq!(graph.answer(input).await, "7");
    }
}

#[actix::test]
async fn a_panicked_app_comes_back_with_its_link() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    kill(graph.app()).await;
    // The handler makes a 503 of it.
    assert!(graph.predict(0).await.is_err());
    until("it serves again", async || graph.predict(1).await.is_ok_and(|a| a.is_ok())).await;
    assert_eq!(graph.restarts("app"), 1);
}

#[actix::test]
async fn a_panicked_model_comes_back_with_its_replicas() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    kill(graph.model().await).await;
    until("it is back", async || {
        graph.restarts("model") == 1 && graph.predict(0).await.unwrap().is_ok()
    })
    .await;
    assert_eq!(graph.answer(1).await, "7");
}

#[actix::test]
async fn models_serve_on_when_their_registry_panics_and_the_next_one_knows_them() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    let (handle, model) = (graph.handle(), graph.model().await);
    kill(graph.models.addr()).await;
    assert_eq!(graph.answer(1).await, "7");
    graph.run(samples::add_model("m2", "1")).await;
    let other = samples::model_id("m2", "1");
    let is_there = async || graph.plane.directory.get(&other.name, &other.version).is_some();
    until("another one follows the catalog", is_there).await;
    assert_eq!(graph.restarts("models"), 1);
    assert!(Arc::ptr_eq(&handle, &graph.handle()) && graph.model().await == model);
    graph.run(Command::DeleteVersionedModel(samples::model_id("m", "1"))).await;
    until("its model ends", async || !model.connected()).await;
}

#[actix::test]
async fn applications_serve_on_when_their_router_panics_and_the_next_one_knows_them() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    graph.run(samples::add_app("goes")).await;
    let app = graph.app();
    kill(graph.router.addr()).await;
    assert_eq!(graph.answer(1).await, "7");
    // Nobody waits for a worker that follows nobody at the moment.
    graph.run(Command::DeleteApp(samples::app_name("goes"))).await;
    graph.run(samples::add_app("comes")).await;
    until("another one follows the catalog", async || {
        matches!(graph.routes.of("comes"), Route::To(_))
            && matches!(graph.routes.of("goes"), Route::Unknown)
    })
    .await;
    assert_eq!(graph.restarts("router"), 1);
    assert!(graph.app() == app, "it was not started again");
    kill(app).await;
    until("it is still looked after", async || graph.predict(2).await.is_ok_and(|a| a.is_ok()))
        .await;
    let asked = AppOfModel(samples::model_name("m"), InputType::Doubles);
    assert!(graph.router.send(asked).await.unwrap().is_some());
}

#[actix::test]
async fn a_batcher_that_dies_at_each_start_is_given_up_until_the_model_is_registered_anew() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    // The budget is 3.
    for _ in 0..4 {
        until("a batcher lives", async || {
            graph.batcher().await.is_some_and(|batcher| batcher.connected())
        })
        .await;
        kill(graph.batcher().await.unwrap()).await;
    }
    until("it is given up", async || graph.handle().batcher().is_none()).await;
    let restarts = graph.restarts("batcher");
    for input in 0..20 {
        let answer = graph.predict(input).await.unwrap();
        assert!(matches!(answer, Err(DefaultReason::NoReplica)), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(graph.handle().batcher().is_none());
    assert_eq!(graph.restarts("batcher"), restarts, "nobody tries in vain");

    graph.run(Command::DeleteVersionedModel(samples::model_id("m", "1"))).await;
    graph.run(samples::add_model("m", "1")).await;
    until("it serves again", async || graph.predict(100).await.unwrap().is_ok()).await;
}

#[actix::test]
async fn a_panicked_pools_replicas_serve_on_and_register_with_the_next_one() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    until("it is listed", async || !graph.list.all().is_empty()).await;
    let before = graph.list.all()[0].replica;
    kill(graph.pool.addr()).await;
    assert_eq!(graph.answer(1).await, "7", "served without a pool, by the replica it had");
    // By a new number: the old one may still be in use.
    let again = async || graph.list.all().first().is_some_and(|shown| shown.replica > before);
    until("a replica registers", again).await;
    until("it is attached", async || graph.replicas() == 1).await;
    assert_eq!(graph.answer(2).await, "7");
    assert_eq!(graph.restarts("container_pool"), 1);
}

#[actix::test]
async fn what_becomes_durable_while_the_catalog_writer_dies_reaches_every_actor() {
    let graph = Graph::serving(PATIENCE).await;
    let _container = graph.container("7", Duration::ZERO).await;
    graph.run(samples::add_app("goes")).await;
    let flushes = graph.disk.flushes();
    graph.disk.hold();
    // Two changes in one write that is under way at the death: nobody is told of them.
    let writer = graph.catalog.addr();
    let execute =
        |command| actix::spawn(writer.send(Execute { command, author: Origin::Admin.into() }));
    let first = execute(Command::DeleteApp(samples::app_name("goes")));
    until("the write is under way", async || graph.disk.flushes() > flushes).await;
    kill(graph.catalog.addr()).await;
    graph.disk.release();
    assert!(!matches!(first.await.unwrap(), Ok(Ok(_))), "not acknowledged");

    until("the applications follow", async || matches!(graph.routes.of("goes"), Route::Unknown))
        .await;
    assert_eq!(graph.restarts("catalog_writer"), 1);
    graph.run(samples::add_app("comes")).await;
    assert!(matches!(graph.routes.of("comes"), Route::To(_)));
    graph.run(Command::DeleteVersionedModel(samples::model_id("m", "1"))).await;
    graph.run(samples::add_model("m", "1")).await;
    until("models follow", async || graph.predict(1).await.unwrap().is_ok()).await;
}

#[actix::test]
async fn a_child_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let script =
        format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", mark.display());
    let launch =
        Launch { program: "sh".into(), args: vec!["-c".into(), script.into()], env: Vec::new() };
    let plan = ChildPlan { launch, replicas: 1 };
    let graph = Graph::start_with([(samples::model_id("m", "1"), plan)].into()).await;
    graph.register(PATIENCE).await;
    let pid = || std::fs::read_to_string(&mark).ok()?.trim().parse::<u32>().ok();
    until("the child runs", async || pid().is_some()).await;
    let asked = clock::now();
    graph.pool.send(StopChildren).await.unwrap();
    assert!(clock::now() - asked >= Duration::from_millis(200), "it had its grace");
    assert!(!std::path::Path::new(&format!("/proc/{}", pid().unwrap())).exists());
}

/// The replicas of a version.
#[derive(Message)]
#[rtype(result = "Vec<Addr<Container>>")]
struct ContainersOf(ModelId);

impl Handler<ContainersOf> for ContainerPool {
    type Result = Vec<Addr<Container>>;
    fn handle(&mut self, of: ContainersOf, _: &mut Self::Context) -> Self::Result {
        self.containers(&of.0)
    }
}

/// The actor of a version.
#[derive(Message)]
#[rtype(result = "Option<Addr<Model>>")]
struct ModelOf(ModelId);

impl Handler<ModelOf> for Models {
    type Result = Option<Addr<Model>>;
    fn handle(&mut self, of: ModelOf, _: &mut Self::Context) -> Self::Result {
        self.actor(&of.0)
    }
}

/// The batcher of a model's actor.
#[derive(Message)]
#[rtype(result = "Option<Addr<Batcher>>")]
pub(super) struct BatcherOf;

impl Handler<BatcherOf> for Model {
    type Result = Option<Addr<Batcher>>;
    fn handle(&mut self, _: BatcherOf, _: &mut Self::Context) -> Self::Result {
        self.batcher()
    }
}
