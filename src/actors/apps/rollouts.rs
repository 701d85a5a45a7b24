//! The one that decides about the rollouts of all applications of this server.
//!
//! ```text
//! catalog --Followed--> RolloutKeeper --look_interval_ms--> RolloutMachine (pure)
//!                          ^   |                                 |
//!        sums of App actors    | lease, sums of others           | step, end
//!        (RolloutOutcomes)     v                                 v
//!                          RedisWatcher <--------------- MetadataWriter
//! ```
//!
//! With Redis one frontend holds the lease of a rollout and decides on what all have seen; while
//! Redis is away nobody does, and every rollout stays where it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use tracing::{debug, info, warn};

use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::rollout_outcomes::RolloutOutcomes;
use crate::actors::redis::watcher::RedisMetadata;
use crate::store::event::Origin;
use crate::store::projection::Effect;
use crate::store::served::Served;
use crate::store::{CatalogView, ChangeError, SharedWriter};
use crate::supervision::kept::{Kept, Lifeline};
use clipper_clock::{self as clock, Instant};
use clipper_config::RolloutsConfig;
use clipper_domain::rollout::{Rollout, RolloutEnd};
use clipper_domain::{AppName, AppSpec, Command};
use clipper_selection::rollout::machine::{RolloutAction, RolloutInput, RolloutMachine};
use clipper_selection::rollout::sums::RolloutSums;

/// What the keeper works with.
#[derive(Clone)]
pub struct RolloutParts {
    pub plane: Arc<DataPlane>,
    pub catalog: Kept<CatalogWriter>,
    pub view: CatalogView,
    pub writer: SharedWriter,
    pub redis: Option<RedisMetadata>,
    pub config: RolloutsConfig,
}

/// A rollout that runs.
struct RunningRollout {
    machine: RolloutMachine,
    outcomes: Arc<RolloutOutcomes>,
    /// It is being looked at.
    is_busy: bool,
}

pub struct RolloutKeeper {
    parts: RolloutParts,
    running: BTreeMap<AppName, RunningRollout>,
    /// Looks at them from time to time, while there are any.
    looks: Option<SpawnHandle>,
    since: Instant,
    _lifeline: Lifeline,
}

/// What everybody has seen of a rollout, and whether this server decides about it.
struct RolloutLook {
    decides: bool,
    sums: RolloutSums,
}

impl RolloutKeeper {
    /// One that follows the catalog when it is started.
    #[must_use]
    pub fn new(parts: RolloutParts, lifeline: Lifeline) -> Self {
        let running = BTreeMap::new();
        Self { parts, running, looks: None, since: clock::now(), _lifeline: lifeline }
    }

    fn serve(&mut self, spec: &AppSpec) {
        let metrics = self.parts.plane.metrics.app(&spec.name);
        let Some(rollout) = spec.running_rollout() else {
            metrics.rollout.set_step(0);
            let had = self.running.remove(&spec.name);
            let ended = spec.rollout.as_deref().filter(|rollout| {
                had.as_ref().is_some_and(|had| had.machine.rollout().id == rollout.id)
            });
            if let Some(Rollout { end: Some(end), plan, .. }) = ended {
                let (app, from, to) = (&spec.name, &plan.from, &plan.to);
                if let RolloutEnd::RolledBack { evidence } = end {
                    metrics.rollout.rolled_back();
                    warn!(%app, %from, %to, %evidence, "a rollout was rolled back");
                } else {
                    info!(%app, %from, %to, outcome = end.name(), "a rollout has ended");
                }
            }
            return;
        };
        metrics.rollout.set_step(rollout.step + 1);
        let outcomes = self.parts.plane.learned.of(&spec.name).rollout(rollout);
        match self.running.get_mut(&spec.name) {
            Some(running) if running.machine.rollout().id == rollout.id => {
                let now = clock::now() - self.since;
                running.machine.on(RolloutInput::Metadata(rollout), now);
            }
            _ => {
                let machine = RolloutMachine::new(rollout.clone());
                let running = RunningRollout { machine, outcomes, is_busy: false };
                self.running.insert(spec.name.clone(), running);
            }
        }
    }

    fn look_while_there_are_any(&mut self, ctx: &mut Context<Self>) {
        match self.looks {
            None if !self.running.is_empty() => {
                let every = Duration::from_millis(self.parts.config.look_interval_ms);
                self.looks = Some(ctx.run_interval(every, Self::look));
            }
            Some(looks) if self.running.is_empty() => {
                ctx.cancel_future(looks);
                self.looks = None;
            }
            _ => {}
        }
    }

    /// Looks at every rollout that is not being looked at.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let redis = &self.parts.redis;
        for (app, running) in self.running.iter_mut().filter(|(_, running)| !running.is_busy) {
            running.is_busy = true;
            let (own, id) = (running.outcomes.sums(), running.outcomes.id);
            let looked = seen(redis.clone(), app.clone(), id, own);
            let app = app.clone();
            ctx.spawn(actix::fut::wrap_future(looked).map(move |look, keeper: &mut Self, ctx| {
                keeper.decide(&app, id, look, ctx);
            }));
        }
    }

    fn decide(
        &mut self,
        app: &AppName,
        id: u64,
        look: Option<RolloutLook>,
        ctx: &mut Context<Self>,
    ) {
        let now = clock::now() - self.since;
        let Some(running) = self.running.get_mut(app).filter(|running| running.outcomes.id == id)
        else {
            return;
        };
        let decides = look.as_ref().is_some_and(|look| look.decides);
        let obstacle = obstacle(&self.parts.view, app, running.machine.rollout());
        let action = match &look {
            Some(RolloutLook { decides: true, sums }) => {
                running.machine.on(RolloutInput::Look { sums, obstacle }, now)
            }
            _ => running.machine.on(RolloutInput::StandBy, now),
        };
        let sums = look.map_or_else(|| running.outcomes.sums(), |look| look.sums);
        let progress = running.machine.progress(&sums, decides, now);
        let alarm = progress.guards.iter().map(|guard| guard.alarm).fold(0.0, f64::max);
        self.parts.plane.metrics.app(app).rollout.set_alarm(alarm);
        running.outcomes.show(progress);
        let Some(action) = action else {
            running.is_busy = false;
            return;
        };
        if let RolloutAction::End(RolloutEnd::RolledBack { .. }) = action {
            // At once, also where the metadata take their time.
            running.outcomes.suspend();
        }
        let command = command(app, id, action);
        let carried_out = self.carry_out(command);
        let app = app.clone();
        ctx.spawn(carried_out.into_actor(self).map(move |(), keeper, _| {
            if let Some(running) =
                keeper.running.get_mut(&app).filter(|running| running.outcomes.id == id)
            {
                running.is_busy = false;
            }
        }));
    }

    fn carry_out(&self, command: Command) -> LocalBoxFuture<'static, ()> {
        let what = command.to_string();
        let done = self.parts.writer.execute(command, Origin::Rollout.into());
        Box::pin(async move {
            match done.await {
                Ok(()) => info!(what, "a rollout goes on"),
                // Another frontend, or an operator, was first.
                Err(ChangeError::Refused(why)) => debug!(what, %why, "not carried out"),
                Err(error @ ChangeError::Unavailable { .. }) => {
                    warn!(what, %error, "not carried out; it is tried again");
                }
            }
        })
    }
}

/// What has been seen; none while the shared tables are away.
async fn seen(
    redis: Option<RedisMetadata>,
    app: AppName,
    id: u64,
    own: RolloutSums,
) -> Option<RolloutLook> {
    let Some(redis) = redis else { return Some(RolloutLook { decides: true, sums: own }) };
    let text = serde_json::to_string(&own).ok()?;
    let shared = redis.share_rollout(app, id, text).await?;
    let mut sums = own;
    for other in shared.others {
        match serde_json::from_str(&other) {
            Ok(other) => sums.add(&other),
            Err(error) => debug!(%error, "sums of another frontend are passed over"),
        }
    }
    Some(RolloutLook { decides: shared.decides, sums })
}

fn obstacle(view: &CatalogView, app: &AppName, rollout: &Rollout) -> Option<String> {
    let catalog = view.read();
    let model = rollout.model();
    let has_new = catalog.model_by_id(&rollout.plan.to).is_some();
    let is_linked = catalog.is_linked(app, model);
    rollout.obstacle(catalog.current_version(model.as_str()), has_new, is_linked)
}

fn command(app: &AppName, id: u64, action: RolloutAction) -> Command {
    let app = app.clone();
    match action {
        RolloutAction::Step(step) => Command::StepRollout { app, id, step },
        RolloutAction::End(end) => Command::EndRollout { app, id: Some(id), end },
    }
}

impl Actor for RolloutKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Nothing waits for it to have begun.
        drop(follower::follow(self.parts.catalog.clone(), ctx.address().recipient()));
    }
}

impl Handler<Followed> for RolloutKeeper {
    type Result = ();

    fn handle(&mut self, followed: Followed, ctx: &mut Self::Context) {
        if followed.is_state() {
            self.running.clear();
        }
        for effect in followed.effects(Served::default).iter() {
            match effect {
                Effect::ServeApp(spec) => self.serve(spec),
                Effect::StopApp(name) => drop(self.running.remove(name)),
                _ => {}
            }
        }
        self.look_while_there_are_any(ctx);
    }
}
