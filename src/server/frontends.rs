//! The HTTP frontends and the gRPC one: what each serves, and within which limits.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix::prelude::*;
use actix_web::{guard, web};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::access::Guard;
use super::error::StartError;
use super::metadata::ManagedMetadata;
use super::replicas::OwnReplicas;
use super::sockets::Sockets;
use super::states::States;
use crate::access::table::Port;
use crate::actors::apps::feedback::FeedbackQueue;
use crate::actors::apps::router::{Router, Routes};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::ContainerList;
use crate::children::seen::SeenChildren;
use crate::dashboard::{Dashboard, Sources};
use crate::deploy::Deployer;
use crate::grpc;
use crate::http::body::BodyLimits;
use crate::http::describe;
use crate::http::endpoint;
use crate::http::gate::Gate;
use crate::http::handed::{self, HandOver, Handed};
use crate::http::health::{self, Readiness};
use crate::http::limits::QueryLimits;
use crate::http::management::ManagementState;
use crate::http::management::deploy::{self, DeployState};
use crate::http::management::explain;
use crate::http::management::past::Past;
use crate::http::management::ports::PolicyStates as _;
use crate::http::metrics::{self as metrics_pages, Pages};
use crate::http::parsing::Parsing;
use crate::http::serve::acceptor::Accepted;
use crate::http::serve::handshake::Handshakes;
use crate::http::serve::{Frontend, Options};
use crate::http::v2::state::V2;
use crate::http::{management, query};
use crate::metrics::http::FrontendMetrics;
use crate::priority::{BACKGROUND, Lane, Looking};
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;
use crate::store::{CatalogView, SharedWriter};
use crate::supervision::kept::Kept;
use crate::supervision::watchdog::Watchdog;
use crate::tls::Tls;
use clipper_config::{Config, Deploy};
use clipper_container::allowed::Allowed;
use clipper_domain::Asker;

/// What the HTTP workers need.
pub(super) struct Frontends {
    /// Threads that answer queries.
    pub(super) workers: usize,
    pub(super) plane: Arc<DataPlane>,
    pub(super) catalog: Kept<CatalogWriter>,
    pub(super) writer: SharedWriter,
    pub(super) view: CatalogView,
    pub(super) list: ContainerList,
    pub(super) states: Arc<States>,
    pub(super) feedback: FeedbackQueue,
    pub(super) readiness: Arc<Readiness>,
    pub(super) watchdog: Watchdog,
    pub(super) tls: Option<Tls>,
    pub(super) pool: Kept<ContainerPool>,
    /// The processes of this server.
    pub(super) children: SeenChildren,
    /// The journal's past, and what applications have learned, as it is kept.
    pub(super) past: (History, PolicyStateStore),
    /// Gets one permit from each worker that knows its applications.
    pub(super) loaded: Arc<Semaphore>,
    pub(super) guard: Guard,
}

/// Threads that look into the journal's past.
const HISTORY_THREADS: usize = 2;
/// Threads that work out what pages are told of the present.
const PRESENT_THREADS: usize = 2;

/// What a port is for.
#[derive(Debug, Clone, Copy)]
enum PortUse {
    Query,
    Management,
    Metrics,
    Grpc,
}

/// How bodies are read, of all frontends together.
#[derive(Clone)]
struct Reading {
    bodies: BodyLimits,
    parsing: Parsing,
}

/// What serves.
pub(super) struct Serving {
    /// Who answers queries. The threads of the first serve all of them.
    pub(super) queries: Vec<Frontend>,
    pub(super) others: Vec<Frontend>,
    /// Follows the keys as long as it is held.
    pub(super) _guard: Guard,
}

/// The gRPC connections of threads that have not begun.
type GrpcConnections = Arc<Mutex<Vec<mpsc::Receiver<Accepted>>>>;

/// What the threads of the query frontend serve beside its own connections.
#[derive(Clone)]
struct Elsewhere {
    grpc: GrpcConnections,
    /// Predictions that the management frontend is asked for; the first thread takes them.
    handed: Arc<Mutex<Option<mpsc::Receiver<Handed>>>>,
    pages: Pages,
}

impl Frontends {
    /// All frontends, as soon as every worker knows its applications.
    pub(super) async fn serve(
        self,
        config: &Config,
        sockets: Sockets,
    ) -> Result<Serving, StartError> {
        let workers = u32::try_from(self.workers).unwrap_or(u32::MAX);
        let loaded = Arc::clone(&self.loaded);
        let addresses = sockets.addresses()?;
        let serving = self.start(config, sockets)?;
        // Never closed.
        let _ = loaded.acquire_many(workers).await;
        // Not before, for whoever waits for it asks for an application next.
        addresses.say(&config.tls);
        Ok(serving)
    }

    fn start(self, config: &Config, sockets: Sockets) -> Result<Serving, StartError> {
        let Sockets { query, management, metrics, grpc, rpc: _ } = sockets;
        if let Some(tls) = self.tls.clone() {
            actix::spawn(tls.keep_fresh());
        }
        let acceptor = Arbiter::new().handle();
        let pages = Pages::new(Arc::clone(&self.plane.metrics)).map_err(StartError::Threads)?;
        let bodies = BodyLimits::from(&config.http);
        let reading = Reading { bodies: bodies.clone(), parsing: parsing(config)? };
        let (grpc, connections) = self.grpc(config, grpc, &acceptor);
        let (hand_over, handed) = handed::hand_over(config.dashboard.predictions_max);
        let elsewhere = Elsewhere {
            grpc: connections,
            handed: Arc::new(Mutex::new(Some(handed))),
            pages: pages.clone(),
        };
        let query = self.query(config, query, (&acceptor, reading), elsewhere);
        let others = vec![
            self.management(config, management, &acceptor, (bodies, hand_over, pages.clone()))?,
            self.metrics(config, metrics, &acceptor, pages),
        ];
        let serving = Serving {
            queries: [query].into_iter().chain(grpc).collect(),
            others,
            _guard: self.guard,
        };
        Ok(serving)
    }

    /// How a port speaks TLS, if it does.
    fn handshakes(
        &self,
        config: &Config,
        port: PortUse,
        counts: &Arc<FrontendMetrics>,
    ) -> Option<Handshakes> {
        let (tls, config) = (self.tls.as_ref()?, &config.tls);
        let (is_on, spoken) = match port {
            PortUse::Query => (config.query, &tls.http),
            PortUse::Management => (config.management, &tls.http),
            PortUse::Metrics => (config.metrics, &tls.http),
            PortUse::Grpc => (config.grpc, &tls.grpc),
        };
        is_on.then(|| Handshakes::new(spoken.clone(), config, Arc::clone(counts)))
    }

    /// The gRPC frontend, if there is one, and what the threads of the query frontend then serve.
    fn grpc(
        &self,
        config: &Config,
        socket: Option<TcpListener>,
        acceptor: &ArbiterHandle,
    ) -> (Option<Frontend>, GrpcConnections) {
        let Some(socket) = socket else { return (None, GrpcConnections::default()) };
        let counts = Arc::clone(&self.plane.metrics.http.grpc);
        let options = Options {
            workers: self.workers,
            connections_max: config.grpc.connections_max,
            limit: "grpc.connections_max",
            ..Options::new(&config.http, counts)
        };
        let (frontend, connections) = Frontend::accept(&options, socket, acceptor);
        (Some(frontend), Arc::new(Mutex::new(connections)))
    }

    fn query(
        &self,
        config: &Config,
        socket: TcpListener,
        (acceptor, reading): (&ArbiterHandle, Reading),
        elsewhere: Elsewhere,
    ) -> Frontend {
        let http = &config.http;
        let limits = self.query_limits(config, reading);
        let (plane, catalog) = (Arc::clone(&self.plane), self.catalog.clone());
        let (feedback, view) = (self.feedback.clone(), self.view.clone());
        let readiness = Arc::clone(&self.readiness);
        let (watchdog, loaded) = (self.watchdog.clone(), Arc::clone(&self.loaded));
        let counts = Arc::clone(&self.plane.metrics.http.query);
        let grpc_counts = Arc::clone(&self.plane.metrics.http.grpc);
        let (settings, access) = (grpc::Settings::new(config), Arc::clone(&self.guard.access));
        let grpc_tls = self.handshakes(config, PortUse::Grpc, &grpc_counts);
        // Who leaves while a query waits does not want its answer.
        let options = Options {
            workers: self.workers,
            abandons: true,
            tls: self.handshakes(config, PortUse::Query, &counts),
            ..Options::new(http, counts)
        };
        let gate = Gate::of_queries(&self.guard.access, http);
        Frontend::start(&options, socket, acceptor, &gate, move |app| {
            watchdog.watch("http", Arbiter::current());
            let routes = Routes::default();
            let loaded = Arc::clone(&loaded);
            let on_loaded = move || loaded.add_permits(1);
            let apps = Router::keep(
                Arc::clone(&plane),
                catalog.clone(),
                feedback.clone(),
                routes.clone(),
                on_loaded,
            );
            let v2 = V2 {
                plane: Arc::clone(&plane),
                view: view.clone(),
                readiness: Arc::clone(&readiness),
                routes,
                router: apps,
                limits: limits.clone(),
            };
            if let Some(handed) = elsewhere.handed.lock().take() {
                actix::spawn(handed::serve(v2.clone(), handed));
            }
            if let Some(connections) = elsewhere.grpc.lock().pop() {
                let (v2, metrics) = (v2.clone(), Arc::clone(&grpc_counts));
                let (access, tls) = (Arc::clone(&access), grpc_tls.clone());
                let parts = grpc::Parts { v2, settings, tls, metrics, access };
                actix::spawn(grpc::serve(parts, connections));
            }
            // One step for predictions to pass, not one for each page.
            let pages = web::scope("")
                .guard(guard::fn_guard(endpoint::is_for_pages))
                .configure(metrics_pages::configure_query(elsewhere.pages.clone()))
                .configure(health::configure(Arc::clone(&readiness)))
                .configure(describe::configure(Port::Query));
            app.service(pages).configure(query::configure(v2));
        })
    }

    fn query_limits(&self, config: &Config, reading: Reading) -> QueryLimits {
        let Reading { bodies, parsing } = reading;
        let (all_bodies, all_answers) =
            (Arc::clone(&bodies.all), Arc::clone(&self.plane.answers.all));
        self.plane.metrics.http.watch_bytes(move || all_bodies.used(), move || all_answers.used());
        let plane = Arc::clone(&self.plane);
        let inputs_max = config.serving.request_inputs_max;
        let answers = plane.answers.clone();
        QueryLimits { bodies, answers, inputs_max, parsing, plane }
    }

    fn management(
        &self,
        config: &Config,
        socket: TcpListener,
        acceptor: &ArbiterHandle,
        (limits, hand_over, pages): (BodyLimits, HandOver, Pages),
    ) -> Result<Frontend, StartError> {
        // Of its own: a thread is as nice as the one that begins it, and queries have others.
        let parsing = parsing(config)?;
        let present =
            Lane::background(PRESENT_THREADS, "dashboard").map_err(StartError::Threads)?;
        let present = Arc::new(present);
        let deployer = Arc::new(Deployer {
            plane: Arc::clone(&self.plane),
            pool: self.pool.clone(),
            list: self.list.clone(),
            writer: Arc::clone(&self.writer),
            view: self.view.clone(),
            config: config.management.clone(),
            allowed: Allowed::new(&config.deploy.allow),
            running: AtomicUsize::new(0),
        });
        let allowed = &config.management;
        let deploy = DeployState {
            deployer,
            readiness: Arc::clone(&self.readiness),
            parsing: parsing.clone(),
        };
        let deploy = deploy::configure(deploy, limits.clone());
        let state = ManagementState {
            metadata: Arc::new(ManagedMetadata {
                writer: Arc::clone(&self.writer),
                view: self.view.clone(),
                history: self.past.0.clone(),
            }),
            containers: Arc::new(OwnReplicas { list: self.list.clone(), pool: self.pool.clone() }),
            replicas_max: (allowed.deploy != Deploy::Off).then_some(allowed.deploy_replicas_max),
            states: self.states.clone(),
            metrics: metrics_pages::by_preference(pages),
            readiness: Arc::clone(&self.readiness),
            parsing,
            access: Arc::clone(&self.guard.access),
            past: Some(self.past(config)?),
            dashboard: self.dashboard(config, &present),
            hand_over: Some(hand_over),
            by: None,
            asker: Asker::default(),
            deploy: allowed.deploy,
            allowed: Arc::new(Allowed::new(&config.deploy.allow)),
            no_programs: None,
        };
        let rest = management::configure(state, limits);
        let explain = explain::configure(&self.plane, &present);
        let counts = Arc::clone(&self.plane.metrics.http.management);
        let tls = self.handshakes(config, PortUse::Management, &counts);
        // Also where somebody fetches backups and streams as fast as they come.
        let niceness = BACKGROUND;
        let options = Options { niceness, tls, ..Options::new(&config.http, counts) };
        let gate = Gate::of_management(&self.guard.access, &config.management);
        Ok(Frontend::start(&options, socket, acceptor, &gate, move |app| {
            app.configure(describe::configure(Port::Management));
            deploy(app);
            explain(app);
            rest(app);
        }))
    }

    /// What the pages are told by.
    fn dashboard(&self, config: &Config, threads: &Arc<Lane>) -> Option<Dashboard> {
        let states = Arc::clone(&self.states);
        let sources = Sources {
            plane: Arc::clone(&self.plane),
            view: self.view.clone(),
            list: self.list.clone(),
            children: self.children.clone(),
            rollouts: Arc::new(move |app, id| states.rollout(app, id)),
        };
        let settings = &config.dashboard;
        let dashboard = settings
            .enabled
            .then(|| Dashboard::new(sources, settings.clone(), Arc::clone(threads)))?;
        actix::spawn(dashboard.clone().run());
        Some(dashboard)
    }

    /// The journal's past, looked into by threads of its own.
    fn past(&self, config: &Config) -> Result<Past, StartError> {
        let plane = Arc::clone(&self.plane);
        let asked = move || plane.queries_asked();
        let threads = Looking::new(HISTORY_THREADS, "journal-look", asked);
        let threads = threads.map_err(StartError::Threads)?;
        Ok(Past::new(self.past.clone(), self.feedback.clone(), threads, config.journal.clone()))
    }

    fn metrics(
        &self,
        config: &Config,
        socket: TcpListener,
        acceptor: &ArbiterHandle,
        pages: Pages,
    ) -> Frontend {
        let readiness = Arc::clone(&self.readiness);
        let counts = Arc::clone(&self.plane.metrics.http.metrics);
        let tls = self.handshakes(config, PortUse::Metrics, &counts);
        let options = Options { tls, ..Options::new(&config.http, counts) };
        let gate = Gate::new(&self.guard.access, Port::Metrics);
        Frontend::start(&options, socket, acceptor, &gate, move |app| {
            app.configure(metrics_pages::configure_metrics(pages.clone()))
                .configure(health::configure(Arc::clone(&readiness)));
        })
    }
}

/// Threads for long bodies.
fn parsing(config: &Config) -> Result<Parsing, StartError> {
    let slice = Duration::from_micros(config.http.parse_slice_us);
    Parsing::new(config.http.parse_threads, slice).map_err(StartError::Threads)
}
