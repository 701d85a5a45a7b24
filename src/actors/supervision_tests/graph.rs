//! Every actor of the server with a container's end on a real connection, on one thread and in
//! memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::{BatcherOf, FOR_EVER, ModelOf, until};
use crate::actors::apps::app::App;
use crate::actors::apps::feedback::{FeedbackKeeper, FeedbackQueue};
use crate::actors::apps::keeping::{FeedbackLog, Keeping};
use crate::actors::apps::messages::{Predict, RequestBody};
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::router::{Route, Router, Routes};
use crate::actors::catalog::writer::{CatalogWriter, Execute};
use crate::actors::models::batcher::Batcher;
use crate::actors::models::model::Model;
use crate::actors::models::registry::{Boot, Models};
use crate::actors::plane::arbiters::DataArbiters;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::ContainerList;
use crate::actors::pool::messages::Register;
use crate::children::keys::ChildKeys;
use crate::children::launch::Launcher;
use crate::children::seen::SeenChildren;
use crate::children::{Bounds, ChildPlan, Children};
use crate::metrics::{FlatNames, Metrics, prometheus_text_body};
use crate::rpc::access::{Gate, Open};
use crate::rpc::listener;
use crate::rpc::registration::NotTaken;
use crate::store::Journal;
use crate::store::event::Origin;
use crate::store::memory::MemoryDisk;
use crate::store::samples;
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::Kept;
use clipper_clock as clock;
use clipper_config::Config;
use clipper_container::allowed::Allowed;
use clipper_container::noop::NoopModel;
use clipper_container::session::{self, ContainerOptions};
use clipper_domain::{AppName, Command, InputType, LatencySlo, ModelId};
use clipper_scheduling::quota::Claim;
use clipper_scheduling::share::Class;
use clipper_scheduling::ticket::DefaultReason;

struct NoFeedback;

impl FeedbackLog for NoFeedback {
    fn record(&self, _: &AppName, _: i64, _: &str) {}
}

fn feedback(
    config: &Config,
    metrics: &Arc<Metrics>,
    catalog: &Kept<CatalogWriter>,
) -> FeedbackQueue {
    let (catalog, budget) = (catalog.clone(), RestartBudget::for_actor(&config.containers));
    let keeper = Kept::start("feedback_keeper", Arc::clone(metrics), budget, move |lifeline| {
        let keeping = Keeping::of(Arc::new(NoFeedback));
        FeedbackKeeper::new(keeping, Duration::from_secs(1), catalog.clone(), lifeline)
    });
    FeedbackQueue::new(keeper, config.serving.feedback_queue_max)
}

pub(super) struct Graph {
    pub(super) plane: Arc<DataPlane>,
    pub(super) disk: MemoryDisk,
    pub(super) catalog: Kept<CatalogWriter>,
    pub(super) pool: Kept<ContainerPool>,
    pub(super) models: Kept<Models>,
    pub(super) list: ContainerList,
    pub(super) routes: Routes,
    pub(super) router: Kept<Router>,
    rpc: SocketAddr,
}

impl Graph {
    pub(super) async fn start() -> Self {
        Self::start_with(HashMap::new()).await
    }

    pub(super) async fn start_with(processes: HashMap<ModelId, ChildPlan>) -> Self {
        let mut config = Config::default();
        config.containers.restart_backoff_initial_ms = 10;
        config.containers.restart_backoff_max_ms = 20;
        config.containers.restart_budget = 3;
        config.containers.stop_grace_ms = 200;
        let metrics = Metrics::new();
        let plane = DataPlane::new(&config, Arc::clone(&metrics));
        let arbiters = DataArbiters([Arbiter::new().handle()].into());
        let list = ContainerList::default();
        let budget = RestartBudget::for_actor(&config.containers);
        let of_pool =
            (Arc::clone(&plane), arbiters.clone(), list.clone(), config.containers.clone());
        let pool = Kept::start("container_pool", Arc::clone(&metrics), budget.clone(), {
            let metrics = Arc::clone(&metrics);
            move |lifeline| {
                let (plane, arbiters, list, containers) = of_pool.clone();
                let launcher = Launcher {
                    this_exe: PathBuf::new(),
                    rpc_addr: "tcp://127.0.0.1:1".to_owned(),
                    grace: Duration::ZERO,
                    python_package: Ok(PathBuf::new()),
                    keys: ChildKeys::default(),
                    allowed: Allowed::default(),
                    bounds: Bounds::default(),
                    seen: SeenChildren::default(),
                };
                let children =
                    Children::new(containers, Arc::clone(&metrics), processes.clone(), launcher);
                ContainerPool::new(plane, arbiters, list, children, lifeline)
            }
        });
        let disk = MemoryDisk::new();
        let journal = Journal::start(Box::new(disk.log()), FOR_EVER).unwrap();
        let limits = config.journal.clone();
        let catalog =
            Kept::start("catalog_writer", Arc::clone(&metrics), budget, move |lifeline| {
                CatalogWriter::new(journal.clone(), limits.clone(), lifeline)
            });
        let (pool_of, catalog_of) = (pool.clone(), catalog.clone());
        let models =
            Models::keep(Arc::clone(&plane), arbiters, pool_of, catalog_of, HashMap::new());
        models.send(Boot).await.unwrap().unwrap();
        let routes = Routes::default();
        let feedback = feedback(&config, &metrics, &catalog);
        let apps =
            Router::keep(Arc::clone(&plane), catalog.clone(), feedback, routes.clone(), || ());

        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rpc = socket.local_addr().unwrap();
        let to = pool.clone();
        let register = move |registration| {
            let answer = to.send(Register(registration));
            async move { answer.await.unwrap_or_else(|error| Err(NotTaken::lost(error))) }
        };
        let parts = listener::Parts {
            config: config.rpc.clone(),
            metrics,
            unasked: plane.unasked.clone(),
            known: list.clone(),
            help: String::new(),
            gate: Gate::new(Arc::new(Open), &config.rpc, None),
        };
        actix::spawn(listener::serve(socket, parts, register));
        Self { plane, disk, catalog, pool, models, list, routes, router: apps, rpc }
    }

    /// A graph that serves application and model `m`.
    pub(super) async fn serving(slo: Duration) -> Self {
        let graph = Self::start().await;
        graph.register(slo).await;
        graph
    }

    pub(super) async fn register(&self, slo: Duration) {
        let mut app = samples::app("m", InputType::Doubles);
        app.latency_slo = LatencySlo::from_micros(i64::try_from(slo.as_micros()).unwrap()).unwrap();
        self.run(samples::add_model("m", "1")).await;
        self.run(Command::AddApp(app)).await;
        let models = vec![samples::model_name("m")];
        self.run(Command::AddModelLinks { app: samples::app_name("m"), models }).await;
    }

    pub(super) async fn run(&self, command: Command) {
        let execute = Execute { command, author: Origin::Admin.into() };
        self.catalog.send(execute).await.unwrap().unwrap();
    }

    /// A container on a thread of its own that takes `sleep` for a batch and answers `output`.
    pub(super) async fn container(&self, output: &str, sleep: Duration) -> Arbiter {
        let before = self.replicas();
        let address = format!("tcp://{}", self.rpc).parse().unwrap();
        let mut options = ContainerOptions::new(samples::model_id("m", "1"), address);
        options.heartbeat_interval = Duration::from_millis(100);
        let model = NoopModel { input_type: InputType::Doubles, output: output.to_owned(), sleep };
        let thread = Arbiter::new();
        thread.spawn(async move {
            session::run_until(options, model, std::future::pending()).await;
        });
        until("the container is attached", async || self.replicas() == before + 1).await;
        thread
    }

    pub(super) fn handle(&self) -> Arc<ModelHandle> {
        let id = samples::model_id("m", "1");
        self.plane.directory.get(&id.name, &id.version).unwrap()
    }

    pub(super) async fn model(&self) -> Addr<Model> {
        self.models.send(ModelOf(samples::model_id("m", "1"))).await.unwrap().unwrap()
    }

    pub(super) async fn batcher(&self) -> Option<Addr<Batcher>> {
        self.model().await.send(BatcherOf).await.unwrap()
    }

    pub(super) fn replicas(&self) -> usize {
        self.handle().replicas()
    }

    pub(super) fn app(&self) -> Addr<App> {
        match self.routes.of("m") {
            Route::To(app) => app,
            other => panic!("{other:?}"),
        }
    }

    /// The text of the model's answer, or why there is the default output; outside, why none.
    pub(super) async fn predict(
        &self,
        input: u32,
    ) -> Result<Result<String, DefaultReason>, MailboxError> {
        let body = RequestBody::Text(format!("{{\"input\":[{input}.0]}}").into());
        let (arrived, class, claim) = (clock::now(), Class::Normal, Claim::default());
        let prediction = self
            .app()
            .send(Predict {
                body,
                arrived,
                within: None,
                key: None,
                class,
                claim,
                explain: false,
                request_id: None,
                trace: None,
            })
            .await?
            .unwrap();
        Ok(match &prediction.answers().await.unwrap().answers[0] {
            QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } => {
                Ok(String::from_utf8(output.json().to_vec()).unwrap())
            }
            QueryAnswer::Default { reason, .. } => Err(reason.clone()),
            QueryAnswer::Error(why) => panic!("{why}"),
        })
    }

    pub(super) async fn answer(&self, input: u32) -> String {
        self.predict(input).await.unwrap().unwrap()
    }

    pub(super) fn restarts(&self, actor: &str) -> u32 {
        let text = prometheus_text_body(&self.plane.metrics, FlatNames::LeftOut).unwrap();
        let sample = format!("clipper_actor_restarts_total{{actor=\"{actor}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |n| n.parse().unwrap())
    }
}
