//! The management frontend over metadata held in memory, on a real socket.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer};
use clipper::access::Access;
use clipper::http::body::{BodyLimits, Terms};
use clipper::http::health::Readiness;
use clipper::http::management::ports::{
    CatalogRead, ChangeError, ContainerInfo, Containers, Metadata, PolicyStates, RestartReplicas,
};
use clipper::http::management::{ManagementState, configure};
use clipper::http::parsing::Parsing;
use clipper::store::CatalogView;
use clipper::store::event::{Envelope, Origin};
use clipper::store::projection::Catalog;
use clipper_config::Deploy;
use clipper_domain::{Asker, Command, InputType, ModelId, ModelName, ModelVersion, ReplicaId};
use clipper_scheduling::budget::Budget;
use futures_util::future::BoxFuture;

use super::replay::World;

pub struct Memory {
    catalog: CatalogView,
    containers: Mutex<Vec<ContainerInfo>>,
    store_is_away: AtomicBool,
}

impl Memory {
    fn carry_out(&self, command: &Command) -> Result<(), ChangeError> {
        if self.store_is_away.load(Ordering::SeqCst) {
            return Err(ChangeError::Unavailable { reason: "Redis is away".to_owned() });
        }
        let events = self.catalog.read().decide(command)?;
        let envelopes = events.into_iter().zip(self.catalog.seq() + 1..).map(|(event, seq)| {
            Envelope { seq, recorded_at_ms: 0, author: Origin::Admin.into(), event }
        });
        self.catalog.apply(&envelopes.collect::<Vec<_>>());
        Ok(())
    }
}

impl Metadata for Memory {
    fn execute(&self, command: Command, _: Asker) -> BoxFuture<'static, Result<(), ChangeError>> {
        let outcome = self.carry_out(&command);
        Box::pin(async move { outcome })
    }

    fn catalog(&self) -> CatalogRead<'_> {
        self.catalog.read()
    }

    fn copy(&self) -> (u64, Arc<Catalog>) {
        self.catalog.copy()
    }
}

impl Containers for Memory {
    fn list(&self) -> Vec<ContainerInfo> {
        self.containers.lock().unwrap().clone()
    }

    fn restart(&self, _: RestartReplicas) -> BoxFuture<'static, Result<usize, ChangeError>> {
        Box::pin(async { Ok(0) })
    }
}

impl PolicyStates for Memory {
    fn get(&self, _app: &str, uid: i64) -> Option<String> {
        (uid == 77).then(|| "learnt".to_owned())
    }
}

pub struct InMemoryServer {
    addr: SocketAddr,
    memory: Arc<Memory>,
    readiness: Arc<Readiness>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl InMemoryServer {
    pub fn start(body_max_bytes: usize) -> Self {
        let memory = Arc::new(Memory {
            catalog: CatalogView::new(0, Catalog::default()),
            containers: Mutex::default(),
            store_is_away: AtomicBool::new(false),
        });
        let readiness = Readiness::new();
        let state = ManagementState {
            metadata: memory.clone(),
            containers: memory.clone(),
            replicas_max: Some(256),
            states: memory.clone(),
            metrics: Arc::new(|_| {
                let page = HttpResponse::Ok().json(serde_json::json!({"counters": []}));
                Box::pin(std::future::ready(page))
            }),
            readiness: readiness.clone(),
            parsing: Parsing::new(2, Duration::from_millis(1)).unwrap(),
            access: Access::open(),
            past: None,
            dashboard: None,
            hand_over: None,
            by: None,
            asker: Asker::default(),
            deploy: Deploy::Off,
            allowed: Arc::default(),
            no_programs: None,
        };
        let limits = BodyLimits {
            max_bytes: body_max_bytes,
            idle: Duration::from_secs(1),
            request: Duration::from_mins(1),
            all: Budget::new(1 << 30),
            terms: Terms::HTTP,
        };
        let configure = configure(state, limits);
        let (started, running) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || App::new().configure(configure.clone()))
                    .workers(1)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .bind(("127.0.0.1", 0))
                    .unwrap();
                let addr = server.addrs()[0];
                let server = server.run();
                started.send((addr, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (addr, handle) = running.recv().unwrap();
        Self { addr, memory, readiness, handle, thread: Some(thread) }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    pub fn set_store_away(&self, away: bool) {
        self.memory.store_is_away.store(away, Ordering::SeqCst);
    }
}

impl World for InMemoryServer {
    fn connect(&mut self, model: &str, version: &str, input_type: &str, _output: &str) {
        let (name, version) = (ModelName::parse(model), ModelVersion::parse(version));
        let model = ModelId::new(name.unwrap(), version.unwrap());
        let mut containers = self.memory.containers.lock().unwrap();
        let connected = containers.iter().filter(|c| c.model == model).count();
        let replica = ReplicaId(u32::try_from(connected).unwrap());
        let input_type = InputType::parse(input_type).unwrap();
        containers.push(ContainerInfo { model, replica, input_type });
    }

    fn freeze(&mut self, _model: &str) {}

    fn thaw(&mut self, _model: &str) {}
}

impl Drop for InMemoryServer {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}
