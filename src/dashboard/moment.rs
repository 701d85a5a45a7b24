//! What is remembered between two looks, and what came between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_domain::rollout::progress::LiveProgress;
use clipper_domain::{AppName, ModelId};

use super::history::{History, Point};
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::pool::list::ContainerList;
use crate::children::seen::SeenChildren;
use crate::metrics::look::{AppLook, ModelLook};
use crate::store::CatalogView;

/// How a rollout of an application stands, as far as this server has looked.
pub type Rollouts = Arc<dyn Fn(&str, u64) -> Option<LiveProgress> + Send + Sync>;

/// Where everything is read.
#[derive(Clone)]
pub struct Sources {
    pub plane: Arc<DataPlane>,
    pub view: CatalogView,
    pub list: ContainerList,
    pub children: SeenChildren,
    pub rollouts: Rollouts,
}

/// A look so young is as good as a new one.
const FRESH: Duration = Duration::from_millis(200);

/// The latest look, and those that it is compared with.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks<T> {
    pub(super) now: T,
    /// At the tick before.
    tick: T,
    /// At the step before the last one.
    pub(super) window: T,
    /// At the last step.
    step: T,
}

impl<T: Clone> Looks<T> {
    fn tick(&mut self, now: T) {
        self.tick = std::mem::replace(&mut self.now, now);
    }

    fn step(&mut self) {
        self.window = std::mem::replace(&mut self.step, self.now.clone());
    }
}

/// When those looks were.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    now: Instant,
    tick: Instant,
    window: Instant,
    step: Instant,
}

impl Times {
    fn seconds(self, since: Instant) -> f64 {
        self.now.saturating_duration_since(since).as_secs_f64()
    }

    /// The time that the window has seen, s.
    pub(super) fn window_s(self) -> f64 {
        self.seconds(self.window)
    }

    fn rate(self, count: u64) -> f64 {
        let seconds = self.seconds(self.tick);
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }
}

/// All looks, and the history that steps leave.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) apps: BTreeMap<AppName, Looks<AppLook>>,
    pub(super) models: BTreeMap<ModelId, Looks<ModelLook>>,
    pub(super) times: Times,
    pub(super) history: History,
}

impl Moment {
    pub(super) fn new(history: History) -> Self {
        let now = clock::now();
        let times = Times { now, tick: now, window: now, step: now };
        Self { apps: BTreeMap::new(), models: BTreeMap::new(), times, history }
    }

    /// Looks at all counters.
    pub(super) fn look(&mut self, plane: &DataPlane, now: Instant) {
        self.times.tick = std::mem::replace(&mut self.times.now, now);
        let apps = plane.metrics.all_apps();
        let there: BTreeSet<&AppName> = apps.iter().map(|(name, _)| name).collect();
        self.apps.retain(|name, _| there.contains(name));
        for (name, metrics) in apps {
            match self.apps.get_mut(&name) {
                // Most of thousands may be idle.
                Some(looks) if looks.now.answered() == metrics.predictions() => {
                    let mut look = looks.now.clone();
                    look.rejected = metrics.refused();
                    looks.tick(look);
                }
                Some(looks) => looks.tick(metrics.look()),
                None => {
                    let looks = Looks { now: metrics.look(), ..Looks::default() };
                    self.apps.insert(name, looks);
                }
            }
        }
        let models = plane.metrics.all_models();
        let there: BTreeSet<&ModelId> = models.iter().map(|(id, _)| id).collect();
        self.models.retain(|id, _| there.contains(id));
        for (id, metrics) in models {
            self.models.entry(id).or_default().tick(metrics.look());
        }
    }

    /// As [`Self::look`], where nobody has looked for a while: what came meanwhile is told.
    pub(super) fn look_first(&mut self, plane: &DataPlane, now: Instant) {
        if now.saturating_duration_since(self.times.now) > FRESH {
            self.look(plane, now);
        }
    }

    /// Ends a step of the history.
    pub(super) fn step(&mut self, step: u64) {
        let Self { apps, models, times, history } = self;
        for (name, looks) in apps.iter_mut() {
            let since = looks.now.since(&looks.step);
            history.push(name, step, Point::of(&since));
            looks.step();
        }
        history.retain(|name| apps.contains_key(name));
        models.values_mut().for_each(Looks::step);
        times.window = std::mem::replace(&mut times.step, times.now);
    }

    /// Answers of an application a second.
    pub(super) fn app_rate(&self, looks: &Looks<AppLook>) -> f64 {
        self.times.rate(looks.now.since(&looks.tick).answered())
    }

    pub(super) fn model_rate(&self, looks: &Looks<ModelLook>) -> f64 {
        self.times.rate(looks.now.since(&looks.tick).queries)
    }
}
