//! The child processes that serve models: started, watched, started again, ended.
//!
//! ```text
//! Children --one each--> Seat <--> Keeper --runs--> Process --output--> Capture --> log
//! ```
//!
//! A [`Seat`] is a place for one replica's process; its keeper sees that there is one.
//! A process is replaced when it ends, when its connection was given up, and when it has had no
//! connection for `containers.connect_timeout_ms`: alive is not serving.
//!
//! A child's stdin is a pipe that it watches: when the server ends, by whatever cause, the pipe
//! closes and the child exits. Whatever descends from a child ends with it.
//!
//! Architecture invariant: nothing in here knows the actors, or what is said over a connection.

mod bounds;
mod capture;
mod environment;
mod keeper;
pub mod keys;
pub mod launch;
mod lines;
mod owner;
mod probation;
mod process;
mod rolling;
mod seat;
pub mod seen;
mod turns;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use clipper_domain::{InputType, ModelId, Replicas};
use tokio::task::JoinHandle;
use tracing::error;

use self::keeper::Keeper;
use self::launch::{Launch, LaunchError, Launcher};
use self::process::Alive;
use self::seat::{Seat, SeatState};
use self::turns::Turns;
use crate::metrics::Metrics;
use clipper_config::ContainersConfig;

pub use self::bounds::{Bounds, NoUser};
pub use self::probation::Probation;
pub use self::seat::SeatRef;

/// What to start for one model version, and how many of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildPlan {
    pub launch: Launch,
    pub replicas: u32,
}

/// All child processes of the server. Dropping it ends them.
pub struct Children {
    config: Arc<ContainersConfig>,
    metrics: Arc<Metrics>,
    plans: HashMap<ModelId, ChildPlan>,
    launcher: Launcher,
    alive: Alive,
    turns: Turns,
    running: HashMap<ModelId, RunningVersion>,
    /// Processes of versions that are not registered.
    trials: HashMap<ModelId, TriedOut>,
}

/// The processes of a version, all of one kind.
struct RunningVersion {
    launch: Launch,
    seats: Vec<Arc<Seat>>,
    /// Replaces them one after the other.
    rolling: Option<JoinHandle<()>>,
}

impl RunningVersion {
    fn stop(&self) {
        self.seats.iter().for_each(|seat| seat.stop());
    }
}

/// Why a version is not tried out.
#[derive(Debug, thiserror::Error)]
pub enum TryOutError {
    #[error("model {0} is being deployed already")]
    UnderWay(ModelId),
    /// As it is described.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// The processes of a version that is tried out, and how to start more of them.
struct TriedOut {
    watcher: Arc<dyn Probation>,
    plan: ChildPlan,
    seats: Vec<Arc<Seat>>,
}

impl Children {
    /// Plans; nothing runs before its model is registered.
    #[must_use]
    pub fn new(
        config: ContainersConfig,
        metrics: Arc<Metrics>,
        plans: HashMap<ModelId, ChildPlan>,
        launcher: Launcher,
    ) -> Self {
        clipper_container::processes::adopt_orphans();
        let (running, trials) = (HashMap::new(), HashMap::new());
        let (turns, alive) = (Turns::new(&config), Alive::default());
        let config = Arc::new(config);
        Self { config, metrics, plans, launcher, alive, turns, running, trials }
    }

    /// Starts the processes of a model version, if it has a plan and they do not run yet.
    pub fn start(&mut self, id: &ModelId) {
        let Some(plan) = self.plans.get(id) else { return };
        if self.running.contains_key(id) {
            return;
        }
        self.settle(id, plan.clone(), Vec::new());
    }

    fn spawn(
        &self,
        id: &ModelId,
        number: u32,
        launch: Launch,
        trial: Option<Arc<dyn Probation>>,
    ) -> Arc<Seat> {
        let seat = Seat::new();
        let seen = self.launcher.seen.show(id, number, seat.watch());
        let keeper = Keeper {
            model: id.clone(),
            number,
            launch,
            config: Arc::clone(&self.config),
            metrics: Arc::clone(&self.metrics),
            alive: self.alive.clone(),
            turns: self.turns.clone(),
            keys: self.launcher.keys.clone(),
            seat: Arc::clone(&seat),
            seen,
            trial,
        };
        actix::spawn(keeper.keep());
        seat
    }

    /// Keeps so many processes of a deployed version: starts those that do not run yet, ends the
    /// last ones of too many. Those that were tried out are the first of them.
    ///
    /// `adopt` is told before those are replicas.
    pub fn keep(
        &mut self,
        id: &ModelId,
        input_type: InputType,
        replicas: &Replicas,
        adopt: impl FnOnce(),
    ) {
        let launch = match self.launcher.plan_deployed(id, input_type, &replicas.runtime) {
            Ok(launch) => launch,
            Err(error) => {
                error!(model = %id, "its replicas cannot be started: {error}");
                return self.shrink(id, replicas.count);
            }
        };
        let tried = match self.running.get(id) {
            Some(running)
                if running.launch == launch
                    && running.seats.len() as u64 >= u64::from(replicas.count) =>
            {
                Vec::new()
            }
            _ => self.trials.remove(id).map_or_else(Vec::new, |trial| {
                adopt();
                trial.seats.into_iter().filter(|seat| !seat.state().is_over()).collect()
            }),
        };
        self.settle(id, ChildPlan { launch, replicas: replicas.count }, tried);
    }

    fn shrink(&mut self, id: &ModelId, count: u32) {
        let Some(running) = self.running.get_mut(id) else { return };
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let too_many = running.seats.split_off(running.seats.len().min(wanted));
        for seat in too_many {
            seat.stop();
        }
    }

    /// Sees that so many processes of this kind run: those of another kind end, and so do the last
    /// ones of too many. `tried` run already.
    fn settle(&mut self, id: &ModelId, plan: ChildPlan, tried: Vec<Arc<Seat>>) {
        let ChildPlan { launch, replicas } = plan;
        let before = self.running.remove(id);
        let (mut seats, others, rolling) = match before {
            Some(running) if running.launch == launch => {
                (running.seats, Vec::new(), running.rolling)
            }
            Some(running) => (Vec::new(), running.seats, None),
            None => (Vec::new(), Vec::new(), None),
        };
        seats.extend(tried);
        let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
        let too_many = seats.split_off(seats.len().min(wanted));
        let started = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        for number in started..replicas {
            seats.push(self.spawn(id, number, launch.clone(), None));
        }
        too_many.iter().chain(&others).for_each(|seat| seat.stop());
        let rolling = rolling
            .filter(|rolling| !rolling.is_finished())
            .map(|rolling| rolling::spawn(&seats, &self.config, Some(rolling)));
        self.running.insert(id.clone(), RunningVersion { launch, seats, rolling });
    }

    /// Other processes are planned from now on; `is_registered` says of which versions they run.
    pub fn replan(
        &mut self,
        plans: HashMap<ModelId, ChildPlan>,
        is_registered: impl Fn(&ModelId) -> bool,
    ) {
        let before = std::mem::replace(&mut self.plans, plans);
        for id in before.keys().filter(|id| !self.plans.contains_key(id)) {
            self.running.remove(id).into_iter().for_each(|running| running.stop());
        }
        let changed = self.plans.iter().filter(|(id, plan)| before.get(id) != Some(plan));
        let changed: Vec<(ModelId, ChildPlan)> = changed
            .filter(|(id, _)| is_registered(id))
            .map(|(id, plan)| (id.clone(), plan.clone()))
            .collect();
        for (id, plan) in changed {
            self.settle(&id, plan, Vec::new());
        }
    }

    /// Starts one process of a version that is not registered.
    ///
    /// # Errors
    /// It is tried out already, or cannot be started as it is described.
    pub fn try_out(
        &mut self,
        id: ModelId,
        input_type: InputType,
        replicas: &Replicas,
        watcher: Arc<dyn Probation>,
    ) -> Result<(), TryOutError> {
        if self.trials.contains_key(&id) {
            return Err(TryOutError::UnderWay(id));
        }
        let launch = self.launcher.plan_deployed(&id, input_type, &replicas.runtime)?;
        let plan = ChildPlan { launch: launch.clone(), replicas: replicas.count };
        let seats = vec![self.spawn(&id, 0, launch, Some(Arc::clone(&watcher)))];
        self.trials.insert(id, TriedOut { watcher, plan, seats });
        Ok(())
    }

    /// Starts the other processes of a version that is tried out.
    pub fn grow_trial(&mut self, id: &ModelId) {
        let Some(mut trial) = self.trials.remove(id) else { return };
        for number in 1..trial.plan.replicas {
            let (launch, watcher) = (trial.plan.launch.clone(), Arc::clone(&trial.watcher));
            trial.seats.push(self.spawn(id, number, launch, Some(watcher)));
        }
        self.trials.insert(id.clone(), trial);
    }

    /// Stops the processes that are tried out, if any; done when they have ended.
    pub fn end_trial(&mut self, id: &ModelId) -> impl Future<Output = ()> + use<> {
        let trial = self.trials.remove(id);
        end_all(trial.map_or_else(Vec::new, |trial| trial.seats))
    }

    /// Stops the processes of a model version.
    pub fn stop(&mut self, id: &ModelId) {
        self.running.remove(id).into_iter().for_each(|running| running.stop());
    }

    /// Stops all; done when they have ended.
    pub fn stop_all(&mut self) -> impl Future<Output = ()> + use<> {
        end_all(self.drain())
    }

    fn drain(&mut self) -> Vec<Arc<Seat>> {
        let trials = self.trials.drain().flat_map(|(_, trial)| trial.seats);
        let running = self.running.drain().flat_map(|(_, running)| running.seats);
        running.chain(trials).collect()
    }

    /// Replaces the processes of the versions that `wanted` picks, one after the other where one
    /// of them serves. How many there are.
    pub fn restart(&mut self, wanted: impl Fn(&ModelId) -> bool) -> usize {
        let mut count = 0;
        for (_, running) in self.running.iter_mut().filter(|(id, _)| wanted(id)) {
            count += running.seats.len();
            rolling::outdate(&running.seats);
            if running.rolling.as_ref().is_none_or(JoinHandle::is_finished) {
                running.rolling = Some(rolling::spawn(&running.seats, &self.config, None));
            }
        }
        count
    }

    /// Looks for the child that has made this connection. `None`: none of ours.
    pub fn seat_of(
        &self,
        id: &ModelId,
        peer: SocketAddr,
    ) -> impl Future<Output = Option<SeatRef>> + use<> {
        let running = self.running.get(id).into_iter().flat_map(|running| &running.seats);
        let tried = self.trials.get(id).into_iter().flat_map(|trial| &trial.seats);
        let seats: Vec<Arc<Seat>> = running.chain(tried).cloned().collect();
        async move {
            let processes: Vec<_> = seats
                .into_iter()
                .filter_map(|seat| {
                    let state = seat.state();
                    // One that has its connection has no other; that saves most of the search.
                    let pid = state.pid.filter(|_| state.connections == 0)?;
                    Some((pid, state.process, seat))
                })
                .collect();
            if processes.is_empty() {
                return None;
            }
            let pids: Vec<_> = processes.iter().map(|(pid, ..)| *pid).collect();
            let search = move || owner::owner(peer, &pids);
            let found = tokio::task::spawn_blocking(search).await.ok()??;
            let (_, process, seat) = processes.into_iter().find(|(pid, ..)| *pid == found)?;
            Some(seat.connected(process))
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.drain().iter().for_each(|seat| seat.stop());
    }
}

async fn end_all(seats: Vec<Arc<Seat>>) {
    for seat in &seats {
        seat.stop();
    }
    for seat in &seats {
        // An error means that the seat is gone, which it is not while it is held here.
        let _ = seat.watch().wait_for(SeatState::is_over).await;
    }
}
