//! Pictures of a moment: what the pages show.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::attention::{AppFacts, Level, ModelFacts, Notice, of_app, of_model};
use super::moment::{Moment, Sources};
use super::rows::{
    AppHistory, AppPicture, AppRow, ChildRow, CurvePoint, Gone, HistoryPoint, LinkedModel,
    ModelPicture, ModelRow, Overview, ReplicaRow, ServerRow,
};
use super::topic::Topic;
use crate::children::seen::{ChildState, SeenChild};
use crate::metrics::look::{AppLook, ReplicaLook};
use crate::store::projection::Catalog;
use clipper_domain::admin::{AppDescription, ModelDescription};
use clipper_domain::rollout::RolloutEnd;
use clipper_domain::rollout::progress::RolloutDescription;
use clipper_domain::{AppSpec, ModelId, ModelName, ModelSpec, Outcome, ReplicaId};
use clipper_scheduling::latency::LatencyCurve;

/// What all pictures of one moment are made of.
pub(super) struct Painter<'m> {
    sources: &'m Sources,
    moment: &'m Moment,
    catalog: Arc<Catalog>,
    last_event: u64,
    children: Vec<SeenChild>,
    at_ms: u64,
    started_ms: u64,
}

fn json(picture: &impl Serialize) -> String {
    serde_json::to_string(picture).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The worst first, then the busiest.
fn order(notices: &[Notice], per_second: f64) -> (u8, Reverse<u64>) {
    let worst = match notices.first().map(|notice| notice.level) {
        Some(Level::Bad) => 0,
        Some(Level::Warn) => 1,
        None => 2,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let busy = (per_second * 1e3) as u64;
    (worst, Reverse(busy))
}

impl<'m> Painter<'m> {
    pub(super) fn new(
        sources: &'m Sources,
        moment: &'m Moment,
        (at_ms, started_ms): (u64, u64),
    ) -> Self {
        let (last_event, catalog) = sources.view.copy();
        let children = sources.children.all();
        Self { sources, moment, catalog, last_event, children, at_ms, started_ms }
    }

    /// What the viewers of a topic are told.
    pub(super) fn paint(&self, topic: &Topic, rows_max: usize) -> String {
        let gone = || json(&Gone { at_ms: self.at_ms, gone: true });
        match topic {
            Topic::Overview => json(&self.overview(rows_max)),
            Topic::App(name) => {
                self.catalog.app(name).map_or_else(gone, |app| json(&self.app(app)))
            }
            Topic::Model(name, version) => {
                let model = self.catalog.model(name, version);
                model.map_or_else(gone, |model| json(&self.model(model)))
            }
        }
    }

    fn overview(&self, rows_max: usize) -> Overview {
        let mut apps: Vec<AppRow> = self.catalog.apps().map(|app| self.app_row(app)).collect();
        let mut models: Vec<ModelRow> =
            self.catalog.models().map(|model| self.model_row(model)).collect();
        let needing = apps.iter().filter(|app| !app.notices.is_empty()).count()
            + models.iter().filter(|model| !model.notices.is_empty()).count();
        let per_second = apps.iter().map(|app| app.per_second).sum();
        let (applications, versions) = (apps.len(), models.len());
        // Stable, and they come by their names.
        apps.sort_by_key(|app| order(&app.notices, app.per_second));
        models.sort_by_key(|model| {
            let (worst, busy) = order(&model.notices, model.per_second);
            (worst, !model.current, busy)
        });
        apps.truncate(rows_max);
        models.truncate(rows_max);
        Overview {
            at_ms: self.at_ms,
            server: self.server(per_second),
            applications,
            models: versions,
            needing,
            app_rows: apps,
            model_rows: models,
        }
    }

    fn server(&self, per_second: f64) -> ServerRow {
        let metrics = &self.sources.plane.metrics;
        ServerRow {
            version: env!("CARGO_PKG_VERSION"),
            started_ms: self.started_ms,
            per_second,
            container_connections: metrics.container_connections(),
            redis_connected: metrics.follows_redis(),
            last_event: self.last_event,
        }
    }

    /// Versions that queries go to and that nobody serves.
    fn unserved(&self, models: &[&ModelName]) -> Vec<String> {
        let unserved = |name: &&ModelName| {
            let Some(version) = self.catalog.current_version(name.as_str()) else {
                return Some(name.as_str().to_owned());
            };
            let id = ModelId::new((*name).clone(), version.clone());
            (self.standing(&id).0 == 0).then(|| id.to_string())
        };
        models.iter().filter_map(unserved).collect()
    }

    /// Replicas that get queries, and queries that wait for one.
    fn standing(&self, id: &ModelId) -> (u64, u64) {
        let metrics = self.sources.plane.metrics.find_model(id);
        metrics.map_or((0, 0), |metrics| metrics.standing())
    }

    /// The processes of a version; they come by model.
    fn children_of(&self, id: &ModelId) -> &[SeenChild] {
        let (_, rest) =
            self.children.split_at(self.children.partition_point(|child| child.model < *id));
        rest.split_at(rest.partition_point(|child| child.model == *id)).0
    }

    fn app_row(&self, app: &AppSpec) -> AppRow {
        let name = app.name.as_str();
        let looks = self.moment.apps.get(&app.name);
        let since = looks.map_or_else(AppLook::default, |looks| looks.now.since(&looks.window));
        let (answered, predicted) = (since.answered(), since.ended(Outcome::Prediction));
        let defaults: BTreeMap<&'static str, u64> = Outcome::ALL
            .into_iter()
            .filter(|outcome| *outcome != Outcome::Prediction && since.ended(*outcome) > 0)
            .map(|outcome| (outcome.label(), since.ended(outcome)))
            .collect();
        let objective_ms = f64::from(app.latency_slo.as_micros()) / 1e3;
        let p99_ms = since.percentile_us(99).map(ms);
        let linked: Vec<&ModelName> = self.catalog.linked_models(name).collect();
        let rolled_back = app.rollout.as_deref().and_then(|rollout| match &rollout.end {
            Some(RolloutEnd::RolledBack { evidence }) => Some(evidence.to_string()),
            _ => None,
        });
        let notices = of_app(&AppFacts {
            name,
            objective_ms,
            answered,
            rejected: since.rejected,
            defaults: answered - predicted,
            reason: defaults.iter().max_by_key(|(_, count)| **count).map(|(reason, _)| *reason),
            p99_ms,
            linked: linked.len(),
            unserved: &self.unserved(&linked),
            rolled_back: rolled_back.as_deref(),
        });
        let running = app.rollout.as_deref().filter(|rollout| rollout.end.is_none());
        AppRow {
            name: name.to_owned(),
            objective_ms,
            policy: (!app.has_default_policy()).then(|| app.policy.clone()),
            models: linked.iter().map(|model| model.as_str().to_owned()).collect(),
            per_second: looks.map_or(0.0, |looks| self.moment.app_rate(looks)),
            window_s: self.moment.times.window_s(),
            answered,
            attainment: share(predicted, answered),
            p50_ms: since.percentile_us(50).map(ms),
            p99_ms,
            defaults,
            rejected: since.rejected,
            rollout: running.map(|rollout| {
                RolloutDescription::of(name, rollout, (self.sources.rollouts)(name, rollout.id))
            }),
            notices,
        }
    }

    fn model_row(&self, model: &ModelSpec) -> ModelRow {
        let id = &model.id;
        let (replicas, queue) = self.standing(id);
        let looks = self.moment.models.get(id);
        let since = looks.map(|looks| looks.now.since(&looks.window)).unwrap_or_default();
        let current = self.catalog.current_version(id.name.as_str()) == Some(&id.version);
        let children = self.children_of(id);
        let broken = children.iter().max_by_key(|child| child.failures);
        let last_end = broken.and_then(|child| child.last_end.as_ref());
        let notices = of_model(&ModelFacts {
            current,
            asked_by: self.catalog.apps_of(&id.name).count(),
            replicas,
            kept: children.len(),
            not_serving: children.iter().filter(|it| it.state == ChildState::Waiting).count(),
            failures: broken.map_or(0, |child| child.failures),
            last_end: last_end.map(|end| end.why.as_str()),
        });
        ModelRow {
            model: id.name.as_str().to_owned(),
            version: id.version.as_str().to_owned(),
            current,
            replicas,
            kept: children.len(),
            queue,
            per_second: looks.map_or(0.0, |looks| self.moment.model_rate(looks)),
            batch_mean: share(since.queries, since.batches),
            cache_hit_share: share(since.hits, since.hits + since.misses),
            errors: since.errors,
            retried: since.retried,
            hedged: since.hedged,
            notices,
        }
    }

    fn app(&self, app: &AppSpec) -> AppPicture {
        let name = app.name.as_str();
        let live =
            |rollout: &clipper_domain::rollout::Rollout| (self.sources.rollouts)(name, rollout.id);
        let current = |model: &ModelName| self.catalog.current_version(model.as_str()).cloned();
        let versions = self
            .catalog
            .linked_models(name)
            .filter_map(|model| Some(ModelId::new(model.clone(), current(model)?)));
        let mut ids: Vec<ModelId> = versions.collect();
        let rollout = app.rollout.as_deref().filter(|rollout| rollout.end.is_none());
        for id in rollout.into_iter().flat_map(|rollout| [&rollout.plan.from, &rollout.plan.to]) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        let models = ids.iter().filter_map(|id| self.catalog.model_by_id(id));
        let linked: Vec<LinkedModel> = models.map(|model| self.linked(app, model)).collect();
        let directory = &self.sources.plane.directory;
        let signature = ids.iter().find_map(|id| directory.get(&id.name, &id.version)?.signature());
        AppPicture {
            at_ms: self.at_ms,
            last_event: self.last_event,
            row: self.app_row(app),
            description: AppDescription::of(app, self.catalog.linked_models(name), live),
            linked,
            signature,
            has_history: self.moment.history.has(name),
        }
    }

    fn linked(&self, app: &AppSpec, model: &ModelSpec) -> LinkedModel {
        let choices = self.sources.plane.metrics.app(&app.name).choices();
        let choice = choices.into_iter().find(|choice| choice.model == model.id.name);
        let metrics = self.sources.plane.metrics.find_model(&model.id);
        let times = metrics.as_ref().map(|metrics| metrics.times()).unwrap_or_default();
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        for (size, _) in metrics.iter().flat_map(|metrics| metrics.recent_batches()) {
            *sizes.entry(size).or_default() += 1;
        }
        LinkedModel {
            row: self.model_row(model),
            weight: choice.as_ref().and_then(|choice| choice.weight),
            asked: choice.as_ref().map(|choice| choice.asked),
            left_out: choice.as_ref().map(|choice| choice.left_out),
            loss: choice.filter(|it| it.judged > 0).map(|it| it.loss / it.judged as f64),
            wait_p99_ms: times.wait_p99_ms,
            batch_p50_ms: times.batch_p50_ms,
            batch_p99_ms: times.batch_p99_ms,
            batch_sizes: sizes.into_iter().collect(),
        }
    }

    fn model(&self, model: &ModelSpec) -> ModelPicture {
        let id = &model.id;
        let metrics = self.sources.plane.metrics.find_model(id);
        let times = metrics.as_ref().map(|metrics| metrics.times()).unwrap_or_default();
        let batches = metrics.iter().flat_map(|metrics| metrics.recent_batches());
        let name = id.name.as_str();
        let current = self.catalog.current_version(name);
        ModelPicture {
            at_ms: self.at_ms,
            last_event: self.last_event,
            row: self.model_row(model),
            description: ModelDescription::of(model, current),
            applications: self.catalog.apps_of(&id.name).map(ToString::to_string).collect(),
            versions: self.catalog.versions_of(name).map(|it| self.model_row(it)).collect(),
            replica_rows: self.replicas(id),
            children: self.children_of(id).iter().map(child_row).collect(),
            wait_p99_ms: times.wait_p99_ms,
            batch_p50_ms: times.batch_p50_ms,
            batch_p99_ms: times.batch_p99_ms,
            curve: self.curve(id),
            batches: batches.map(|(size, micros)| (size, ms(micros))).collect(),
        }
    }

    fn replicas(&self, id: &ModelId) -> Vec<ReplicaRow> {
        let metrics = self.sources.plane.metrics.find_model(id);
        let looks: BTreeMap<ReplicaId, ReplicaLook> = metrics
            .iter()
            .flat_map(|metrics| metrics.replica_looks())
            .map(|look| (look.replica, look))
            .collect();
        let own: Vec<ReplicaId> = self.sources.list.own_of(id);
        let connected = self.sources.list.all().into_iter().filter(|info| info.model == *id);
        let row = |replica: ReplicaId| {
            let look = looks.get(&replica);
            ReplicaRow {
                replica: replica.0,
                here: own.contains(&replica),
                batches: look.map(|look| look.batches),
                queries: look.map(|look| look.queries),
                busy_ms: look.map(|look| ms(look.busy_us)),
            }
        };
        connected.map(|info| row(info.replica)).collect()
    }

    /// What it has learned of its latency.
    fn curve(&self, id: &ModelId) -> Vec<CurvePoint> {
        let handle = self.sources.plane.directory.get(&id.name, &id.version);
        let Some(curve) = handle.map(|handle| handle.curve()).filter(LatencyCurve::is_known) else {
            return Vec::new();
        };
        let sizes = [1, curve.explored.max(2)];
        let point = |queries| CurvePoint {
            queries,
            mean_ms: millis(curve.mean(queries)),
            p99_ms: millis(curve.p99(queries)),
        };
        sizes.into_iter().map(point).collect()
    }
}

fn child_row(child: &SeenChild) -> ChildRow {
    ChildRow {
        number: child.number,
        state: child.state.name(),
        starts: child.starts,
        pid: child.pid,
        failures: child.failures,
        last_end_ms: child.last_end.as_ref().map(|end| end.at_ms),
        last_end: child.last_end.as_ref().map(|end| end.why.clone()),
        lines: child.lines.iter().map(|line| (line.at_ms, line.text.clone())).collect(),
    }
}

/// The history of an application, as JSON.
pub(super) fn history(moment: &Moment, app: &str, step_ms: u64) -> String {
    let percentile = |micros: u32| (micros > 0).then(|| ms(micros.into()));
    let points = moment.history.of(app).map(|(step, point)| HistoryPoint {
        end_ms: step.saturating_mul(step_ms),
        outcomes: point.outcomes.to_vec(),
        rejected: point.rejected,
        p50_ms: percentile(point.p50_us),
        p99_ms: percentile(point.p99_us),
    });
    let outcomes = Outcome::ALL.map(Outcome::label).to_vec();
    json(&AppHistory { step_ms, outcomes, points: points.collect() })
}
