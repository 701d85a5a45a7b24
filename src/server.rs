//! The composition root: the only file that knows every part. Starts bottom-up, stops top-down.

mod access;
mod container_keys;
mod error;
mod frontends;
mod gate;
mod metadata;
mod process;
mod reload;
mod replicas;
mod shutdown;
mod sockets;
mod states;
mod watched;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use self::access::Guard;
use self::container_keys::ContainerKeys;
pub use self::error::StartError;
use self::frontends::Frontends;
use self::metadata::{Counted, meet_when_known};
use self::process::StopRequest;
pub use self::reload::Reread;
use self::reload::{Reloader, child_plans};
use self::shutdown::Running;
use self::sockets::Sockets;
use self::states::States;
use crate::actors::apps::feedback::{FeedbackKeeper, FeedbackQueue};
use crate::actors::apps::keeping::Keeping;
use crate::actors::apps::rollouts::{RolloutKeeper, RolloutParts};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::models::registry::{Boot, Models};
use crate::actors::plane::arbiters::DataArbiters;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::learned::LearnedCurves;
use crate::actors::plane::learned_states::LearnedStates;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::file_sd::FileSd;
use crate::actors::pool::list::ContainerList;
use crate::actors::redis::session::RedisParts;
use crate::actors::redis::watcher::RedisMetadata;
use crate::bootstrap::Bootstrap;
use crate::children::keys::ChildKeys;
use crate::children::launch::{Launcher, NoPythonPackage};
use crate::children::seen::SeenChildren;
use crate::children::{Bounds, ChildPlan, Children};
use crate::http::health::{Condition, Readiness};
use crate::logging::{self, access as access_log, outsiders};
use crate::metrics::{self, Metrics};
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;
use crate::store::redis::marker::Peer;
use crate::store::sled::SledLog;
use crate::store::{Journal, SharedWriter};
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::Kept;
use crate::supervision::watchdog::Watchdog;
use crate::tls::Tls;
use clipper_config::{Config, Deploy, Loaded};
use clipper_container::allowed::Allowed;

/// Serves until SIGTERM or SIGINT; `again` reads the configuration anew.
///
/// # Errors
/// Why the server could not start or had to stop.
pub fn run(loaded: Loaded, again: Option<Reread>) -> Result<(), StartError> {
    process::raise_open_files_limit(&loaded.config)?;
    let mut stop = StopRequest::listen(again.is_some())?;
    System::new().block_on(async move {
        let mut running = tokio::select! {
            running = start(loaded) => running?,
            () = stop.begins() => {
                info!("stopped before everything had started");
                return Ok(());
            }
        };
        // Not before a request to stop finds what has to be stopped, in order.
        running.readiness.meet(Condition::ListenersBound);
        if let (Some(again), Some(reloader)) = (again, running.reloader.take()) {
            actix::spawn(reloader.follow(stop.reloads(), again));
        }
        stop.begins().await;
        running.stop().await;
        Ok(())
    })
}

/// What everything else is built on: ports, journal, metadata, and containers, which are taken in.
struct Base {
    readiness: Arc<Readiness>,
    tls: Option<Tls>,
    sockets: Sockets,
    journal: Journal,
    states: PolicyStateStore,
    past: (History, PolicyStateStore),
    plane: Arc<DataPlane>,
    watchdog: Watchdog,
    arbiters: DataArbiters,
    list: ContainerList,
    targets: FileSd,
    metadata: MetadataParts,
    pool: Kept<ContainerPool>,
    launcher: Launcher,
}

/// Who keeps the metadata, and who may change it.
struct MetadataParts {
    catalog: Kept<CatalogWriter>,
    redis: Option<RedisMetadata>,
    writer: SharedWriter,
    guard: Guard,
}

impl Base {
    /// `files`: where names in the configuration are relative to, and the file it was read from.
    async fn start(
        config: &Config,
        files: (&Path, Option<&Path>),
        warnings: Vec<String>,
    ) -> Result<Self, StartError> {
        let readiness = Readiness::new();
        let metrics = start_metrics(config, warnings)?;
        let tls = Tls::load(&config.tls, &metrics)?;
        let sockets = Sockets::bind(config)?;
        let (journal, states, past) = open_journal(config)?;
        readiness.meet(Condition::JournalReplayed);

        let plane = DataPlane::new(config, Arc::clone(&metrics));
        let (watchdog, arbiters) = data_threads(config);
        let list = ContainerList::default();
        let targets = FileSd::start(&config.metrics, list.scraped())?;
        let catalog = keep_catalog(config, &metrics, &journal);
        let kept = (&states, &plane.learned);
        let redis = follow_redis(config, &catalog, &journal, kept, &list, &metrics).await;
        let guard = Guard::start(config, &sockets, (&catalog, &journal), &metrics)?;
        meet_when_known(&readiness, redis.as_ref(), &journal);
        let writer = metadata_writer(&catalog, redis.as_ref(), &metrics);
        let container_keys = ContainerKeys::new(&guard.access, &config.rpc);
        let processes = processes(config, files, sockets.rpc_addr()?, &container_keys)?;
        let (pool, launcher) = keep_pool(config, &plane, &arbiters, &list, processes);
        let rpc = watched_thread("rpc", &watchdog);
        actix::spawn(watchdog.clone().run(metrics));
        let gate = gate::gate(&config.rpc, container_keys)?;
        sockets.serve_rpc(&rpc, &plane, &list, &pool, gate)?;
        readiness.meet(Condition::RpcBound);
        let metadata = MetadataParts { catalog, redis, writer, guard };
        Ok(Self {
            readiness,
            tls,
            sockets,
            journal,
            states,
            past,
            plane,
            watchdog,
            arbiters,
            list,
            targets,
            metadata,
            pool,
            launcher,
        })
    }
}

async fn start(loaded: Loaded) -> Result<Running, StartError> {
    let Loaded { config, read_from, base_dir, warnings } = loaded;
    let base = Base::start(&config, (base_dir.as_path(), read_from.as_deref()), warnings).await?;
    let Base { plane, journal, readiness, pool, launcher, .. } = base;
    let MetadataParts { catalog, redis, writer, guard } = base.metadata;
    let (models, learned) = start_models(&config, &plane, base.arbiters, &pool, &catalog).await?;
    let bootstrap = Bootstrap::run_or_later(&config, &writer, journal.view()).await?;

    let traces = plane.traces.clone();
    let states = States::restored(base.states, &plane.learned, redis.as_ref());
    let feedback = keep_feedback(&config, &plane.metrics, &catalog, &states);
    let rollouts = keep_rollouts(&config, &plane, (&catalog, &journal), &writer, redis.as_ref());
    let serving = Frontends {
        workers: config.http.workers(),
        plane,
        catalog,
        writer,
        view: journal.view(),
        list: base.list,
        states,
        past: base.past,
        feedback: feedback.clone(),
        readiness: Arc::clone(&readiness),
        watchdog: base.watchdog,
        tls: base.tls,
        pool: pool.clone(),
        children: launcher.seen.clone(),
        loaded: Arc::new(Semaphore::new(0)),
        guard,
    }
    .serve(&config, base.sockets)
    .await?;
    let (drain_delay, patience) = time_to_stop(&config);
    let reloader = Reloader { bootstrap, pool: pool.clone(), launcher, config, file: read_from };
    Ok(Running {
        readiness,
        drain_delay,
        patience,
        serving,
        models,
        learned,
        feedback,
        rollouts,
        redis,
        targets: base.targets,
        traces,
        journal,
        reloader: Some(reloader),
        pool,
    })
}

/// How long the server is not ready and serves, and how long requests under way have then.
fn time_to_stop(config: &Config) -> (Duration, Duration) {
    let (delay, patience) = (config.http.drain_delay_ms, config.http.shutdown_timeout_ms);
    (Duration::from_millis(delay), Duration::from_millis(patience))
}

fn keep_rollouts(
    config: &Config,
    plane: &Arc<DataPlane>,
    (catalog, journal): (&Kept<CatalogWriter>, &Journal),
    writer: &SharedWriter,
    redis: Option<&RedisMetadata>,
) -> Kept<RolloutKeeper> {
    let parts = RolloutParts {
        plane: Arc::clone(plane),
        catalog: catalog.clone(),
        view: journal.view(),
        writer: Arc::clone(writer),
        redis: redis.cloned(),
        config: config.rollouts.clone(),
    };
    let budget = RestartBudget::for_actor(&config.containers);
    Kept::start("rollout_keeper", Arc::clone(&plane.metrics), budget, move |lifeline| {
        RolloutKeeper::new(parts.clone(), lifeline)
    })
}

fn start_metrics(config: &Config, warnings: Vec<String>) -> Result<Arc<Metrics>, StartError> {
    for warning in warnings {
        warn!("environment: {warning}");
    }
    let metrics = Metrics::new();
    metrics.show_log_lines_lost(logging::lost_lines());
    let file = config.access_log.file.clone();
    access_log::start(&config.access_log).map_err(|error| StartError::AccessLog { file, error })?;
    metrics.show_access_lines_lost(access_log::lost_lines());
    actix::spawn(metrics::keep_ticking(Arc::downgrade(&metrics)));
    actix::spawn(outsiders::keep_telling(config.log.clone()));
    Ok(metrics)
}

fn watched_thread(name: &'static str, watchdog: &Watchdog) -> Arbiter {
    let thread = Arbiter::new();
    watchdog.watch(name, thread.handle());
    thread
}

/// The threads of the models, and who watches them.
fn data_threads(config: &Config) -> (Watchdog, DataArbiters) {
    let watchdog = Watchdog::default();
    let threads = (0..config.serving.data_threads).map(|_| watched_thread("data", &watchdog));
    let handles = threads.map(|thread| thread.handle()).collect();
    (watchdog, DataArbiters(handles))
}

async fn start_models(
    config: &Config,
    plane: &Arc<DataPlane>,
    arbiters: DataArbiters,
    pool: &Kept<ContainerPool>,
    catalog: &Kept<CatalogWriter>,
) -> Result<(Kept<Models>, LearnedCurves), StartError> {
    let learned = LearnedCurves::new(config, plane);
    let (plane, pool, catalog) = (Arc::clone(plane), pool.clone(), catalog.clone());
    let models = Models::keep(plane, arbiters, pool, catalog, learned.read());
    models.send(Boot).await.map_err(|_| StartError::ModelsEnded)??;
    actix::spawn(learned.clone().keep_saving());
    Ok((models, learned))
}

/// With a Redis, follows its tables; returns when the first attempt to do so has succeeded or
/// failed.
async fn follow_redis(
    config: &Config,
    catalog: &Kept<CatalogWriter>,
    journal: &Journal,
    (states, learned): (&PolicyStateStore, &Arc<LearnedStates>),
    containers: &ContainerList,
    metrics: &Arc<Metrics>,
) -> Option<RedisMetadata> {
    let parts = RedisParts {
        url: config.redis_url.clone()?,
        config: config.redis.clone(),
        catalog: catalog.clone(),
        view: journal.view(),
        states: states.clone(),
        learned: Arc::clone(learned),
        containers: containers.clone(),
        metrics: Arc::clone(metrics),
        data_dir: config.data_dir.clone(),
        events_at_once: (config.journal.subscriber_queue_max / 4).max(1),
        me: Peer { place: place(config), keeps_planned: config.management.deploy != Deploy::Off },
    };
    let lease = Duration::from_millis(config.rollouts.lease_ms);
    let budget = RestartBudget::for_actor(&config.containers);
    Some(RedisMetadata::start(parts, lease, budget).await)
}

/// This machine's name and where the management frontend is.
fn place(config: &Config) -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{} ({})", name.unwrap_or_default(), config.http.management_addr)
}

fn metadata_writer(
    catalog: &Kept<CatalogWriter>,
    redis: Option<&RedisMetadata>,
    metrics: &Arc<Metrics>,
) -> SharedWriter {
    let writer: SharedWriter = match redis {
        Some(watcher) => Arc::new(watcher.clone()),
        None => Arc::new(catalog.clone()),
    };
    Arc::new(Counted { writer, metrics: Arc::clone(metrics) })
}

fn keep_pool(
    config: &Config,
    plane: &Arc<DataPlane>,
    arbiters: &DataArbiters,
    list: &ContainerList,
    (children, launcher): (HashMap<clipper_domain::ModelId, ChildPlan>, Launcher),
) -> (Kept<ContainerPool>, Launcher) {
    let again = launcher.clone();
    let budget = RestartBudget::for_actor(&config.containers);
    let (metrics, containers) = (Arc::clone(&plane.metrics), config.containers.clone());
    let (plane, arbiters, list) = (Arc::clone(plane), arbiters.clone(), list.clone());
    let pool = Kept::start("container_pool", Arc::clone(&metrics), budget, move |lifeline| {
        let (children, launcher) = (children.clone(), launcher.clone());
        let children = Children::new(containers.clone(), Arc::clone(&metrics), children, launcher);
        let (plane, arbiters, list) = (Arc::clone(&plane), arbiters.clone(), list.clone());
        ContainerPool::new(plane, arbiters, list, children, lifeline)
    });
    (pool, again)
}

fn keep_catalog(config: &Config, metrics: &Arc<Metrics>, journal: &Journal) -> Kept<CatalogWriter> {
    let budget = RestartBudget::for_actor(&config.containers);
    let (journal, limits) = (journal.clone(), config.journal.clone());
    Kept::start("catalog_writer", Arc::clone(metrics), budget, move |lifeline| {
        CatalogWriter::new(journal.clone(), limits.clone(), lifeline)
    })
}

fn keep_feedback(
    config: &Config,
    metrics: &Arc<Metrics>,
    catalog: &Kept<CatalogWriter>,
    states: &Arc<States>,
) -> FeedbackQueue {
    let budget = RestartBudget::for_actor(&config.containers);
    let saved_within = Duration::from_millis(config.journal.policy_state_flush_ms);
    let keeping = Keeping {
        log: Arc::<States>::clone(states),
        learned: Arc::clone(&states.learned),
        metrics: Arc::clone(metrics),
        is_shared: config.redis_url.is_some(),
    };
    let catalog = catalog.clone();
    let keeper = Kept::start("feedback_keeper", Arc::clone(metrics), budget, move |lifeline| {
        FeedbackKeeper::new(keeping.clone(), saved_within, catalog.clone(), lifeline)
    });
    FeedbackQueue::new(keeper, config.serving.feedback_queue_max)
}

type Opened = (Journal, PolicyStateStore, (History, PolicyStateStore));

fn open_journal(config: &Config) -> Result<Opened, StartError> {
    let (mut log, report) = SledLog::open(&config.data_dir, &config.journal)?;
    let states = log.logged_policy_state()?;
    let idle = Duration::from_millis(config.journal.policy_state_flush_ms);
    let archive = log.archive();
    let journal = Journal::start(Box::new(log), idle)?;
    // What reading the journal took, a megabyte at least, before small things are put there.
    clipper_allocator::give_back();
    info!(data_dir = %config.data_dir.display(), events = report.last_seq, "journal replayed");
    let past = (History::new(archive, journal.view()), states.clone());
    Ok((journal, states, past))
}

/// The processes that the file describes, and how further ones are started.
fn processes(
    config: &Config,
    (base_dir, read_from): (&Path, Option<&Path>),
    rpc: SocketAddr,
    keys: &ContainerKeys,
) -> Result<(HashMap<clipper_domain::ModelId, ChildPlan>, Launcher), StartError> {
    let bounds = Bounds::new(config, read_from)?;
    let launcher = launcher((rpc, bounds), config, keys.children())?;
    Ok((child_plans(config, base_dir, &launcher)?, launcher))
}

fn launcher(
    (rpc, bounds): (SocketAddr, Bounds),
    config: &Config,
    keys: ChildKeys,
) -> Result<Launcher, StartError> {
    let this_exe = std::env::current_exe().map_err(StartError::ThisProgram)?;
    let python_package = clipper_container::python::install(&config.data_dir).map_err(|error| {
        let (folder, why) = (config.data_dir.clone(), error.to_string());
        let missing = NoPythonPackage { folder, why };
        warn!("{missing}");
        missing
    });
    // A wrapper ends its program before it has to end itself.
    let grace = Duration::from_millis(config.containers.stop_grace_ms) * 3 / 4;
    let allowed = Allowed::new(&config.deploy.allow);
    let rpc_addr = format!("tcp://{rpc}");
    let seen = SeenChildren::new(config.dashboard.output_lines);
    Ok(Launcher { this_exe, rpc_addr, grace, python_package, keys, allowed, bounds, seen })
}
