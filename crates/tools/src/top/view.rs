//! Two looks at a server to rows of numbers. Pure.
//!
//! A number is `None` (null in JSON) where nothing is known: rates after one look only, percentiles
//! of a time without a query, whatever a server that cannot be asked would have to say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::fetch::{Definitions, Fetched};
use super::scrape::{Samples, label};
use clipper_domain::rollout::RolloutEnd;
use clipper_domain::rollout::progress::RolloutDescription;

const DURATION: &str = "clipper_prediction_duration_seconds";
/// The outcome that is not a default output.
const PREDICTION: &str = "prediction";
const MS_PER_SECOND: f64 = 1e3;

/// What a server did between two looks at it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct View {
    /// Time between the looks, s.
    pub interval_s: Option<f64>,
    pub server: ServerRow,
    pub applications: Vec<ApplicationRow>,
    /// By name and version.
    pub models: Vec<ModelRow>,
    /// By model, version and number.
    pub replicas: Vec<ReplicaRow>,
    /// Why the management frontend could not be asked; the rows then lack what only it knows.
    pub management_error: Option<String>,
}

/// The process as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ServerRow {
    pub version: Option<String>,
    /// Since its start, s.
    pub uptime_s: Option<f64>,
    /// Answered queries of all applications a second.
    pub queries_per_second: Option<f64>,
    pub resident_bytes: Option<f64>,
    /// Open connections of containers.
    pub container_connections: Option<f64>,
    /// Whether it follows its Redis; `None` without one.
    pub redis_connected: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ApplicationRow {
    pub name: String,
    /// The models that answer it.
    pub linked_models: Vec<String>,
    /// Its latency objective, ms.
    pub objective_ms: Option<f64>,
    /// Answered queries a second.
    pub queries_per_second: Option<f64>,
    /// Median time from a query's arrival to its answer, ms.
    pub p50_ms: Option<f64>,
    /// 99th percentile of it, ms.
    pub p99_ms: Option<f64>,
    /// Share of answers that were no prediction.
    pub default_share: Option<f64>,
    /// Those a second, by the reason; reasons that did not occur are left out.
    pub defaults_per_second: BTreeMap<String, f64>,
    /// Refused requests a second.
    pub rejected_per_second: Option<f64>,
    /// What chooses among its models; `None`: it has the default policy.
    pub policy: Option<String>,
    /// Its models under that policy, by name.
    pub choices: Vec<ChoiceRow>,
    /// The rollout that runs, or was rolled back.
    pub rollout: Option<Box<RolloutDescription>>,
}

/// A model under an application's policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChoiceRow {
    pub model: String,
    /// The share of queries that it is asked, or of the vote it has.
    pub weight: Option<f64>,
    /// Queries that it was asked a second.
    pub asked_per_second: Option<f64>,
    /// Share of those that were answered without it.
    pub left_out_share: Option<f64>,
    /// Mean loss of its outputs that feedback has judged, 0 to 1.
    pub loss: Option<f64>,
    /// Share of its outputs that were the answer, where several models gave one.
    pub agreement: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelRow {
    pub model: String,
    pub version: String,
    /// Whether it is the version that answers.
    pub current: Option<bool>,
    pub replicas: Option<f64>,
    pub queue: Option<f64>,
    /// 99th percentile of that wait, ms.
    pub wait_p99_ms: Option<f64>,
    /// Queries answered by replicas a second.
    pub queries_per_second: Option<f64>,
    /// Queries in a batch.
    pub batch_mean: Option<f64>,
    /// Median time of a batch, ms.
    pub batch_p50_ms: Option<f64>,
    /// 99th percentile of it, ms.
    pub batch_p99_ms: Option<f64>,
    /// Share of look-ups that the cache answered.
    pub cache_hit_share: Option<f64>,
    /// Errors of the model a second.
    pub errors_per_second: Option<f64>,
    /// Queries sent again after their replica had failed, a second.
    pub retried_per_second: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplicaRow {
    pub model: String,
    pub version: String,
    pub replica: u32,
    /// Answered queries a second.
    pub queries_per_second: Option<f64>,
    /// Queries in a batch.
    pub batch_mean: Option<f64>,
    /// Share of the time spent on batches.
    pub busy_share: Option<f64>,
}

impl View {
    /// What happened between two looks; with one look, what stands.
    #[must_use]
    pub fn between(before: Option<&Fetched>, now: &Fetched) -> Self {
        let start = |fetched: &Fetched| fetched.samples.value("process_start_time_seconds", &[]);
        // Another process counts from zero.
        let before = before.filter(|before| start(before) == start(now) && before.at < now.at);
        let seconds = before.map(|before| (now.at - before.at).as_secs_f64());
        let span = SampleSpan { before: before.map(|b| &b.samples), now: &now.samples, seconds };
        let nothing = Definitions::default();
        let definitions = now.definitions.as_ref().unwrap_or(&nothing);
        let applications = span.applications(definitions);
        let rates = applications.iter().map(|app| app.queries_per_second);
        let queries_per_second = seconds.map(|_| rates.flatten().sum());
        Self {
            interval_s: seconds,
            server: span.server(now.unix_ms, queries_per_second),
            applications,
            models: span.models(definitions),
            replicas: span.replicas(definitions),
            management_error: now.definitions.as_ref().err().map(ToString::to_string),
        }
    }
}

struct SampleSpan<'s> {
    before: Option<&'s Samples>,
    now: &'s Samples,
    seconds: Option<f64>,
}

type Pairs<'p> = &'p [(&'p str, &'p str)];

impl SampleSpan<'_> {
    /// How much a counter has grown; a series that was not there before began at 0.
    fn grown(&self, name: &str, labels: Pairs<'_>) -> Option<f64> {
        let before = self.before?.value(name, labels).unwrap_or(0.0);
        let now = self.now.value(name, labels)?;
        Some(if now < before { now } else { now - before })
    }

    fn rate(&self, name: &str, labels: Pairs<'_>) -> Option<f64> {
        Some(self.grown(name, labels)? / self.seconds?)
    }

    fn quantile_ms(&self, q: f64, name: &str, labels: Pairs<'_>) -> Option<f64> {
        let before = self.before?.buckets(name, labels);
        let seconds = self.now.buckets(name, labels)?.since(before).quantile(q)?;
        Some(seconds * MS_PER_SECOND)
    }

    /// What one counter has grown for each that another has.
    fn ratio(&self, of: &str, to: &str, labels: Pairs<'_>) -> Option<f64> {
        let to = self.grown(to, labels).filter(|to| *to > 0.0)?;
        Some(self.grown(of, labels)? / to)
    }

    fn server(&self, unix_ms: u64, queries_per_second: Option<f64>) -> ServerRow {
        let value = |name| self.now.value(name, &[]);
        let build = self.now.of("clipper_build_info").next();
        let start = value("process_start_time_seconds");
        ServerRow {
            version: build.and_then(|(labels, _)| label(labels, "version").map(str::to_owned)),
            uptime_s: start.map(|start| (unix_ms as f64 / MS_PER_SECOND - start).max(0.0)),
            queries_per_second,
            resident_bytes: value("process_resident_memory_bytes"),
            container_connections: value("clipper_rpc_connections"),
            redis_connected: value("clipper_redis_connected").map(|connected| connected > 0.5),
        }
    }

    fn applications(&self, definitions: &Definitions) -> Vec<ApplicationRow> {
        let counted = self.now.of("clipper_predictions_total");
        let counted = counted.filter_map(|(labels, _)| label(labels, "app"));
        let defined = definitions.applications.iter().map(|app| app.name.as_str());
        let names: BTreeSet<&str> = counted.chain(defined).collect();
        names.into_iter().map(|name| self.application(name, definitions)).collect()
    }

    fn application(&self, name: &str, definitions: &Definitions) -> ApplicationRow {
        let defined = definitions.applications.iter().find(|app| app.name == name);
        let labels = [("app", name)];
        let objective = self.now.value("clipper_application_objective_seconds", &labels);
        let defined_ms = defined.map(|app| f64::from(app.latency_slo_micros) / MS_PER_SECOND);
        let outcomes = self.outcomes(name);
        let total: f64 = outcomes.values().sum();
        let predictions = outcomes.get(PREDICTION).copied().unwrap_or(0.0);
        let rejected = self.rate("clipper_requests_rejected_total", &labels);
        ApplicationRow {
            name: name.to_owned(),
            linked_models: defined.map(|app| app.linked_models.clone()).unwrap_or_default(),
            objective_ms: objective.map(|seconds| seconds * MS_PER_SECOND).or(defined_ms),
            queries_per_second: self.seconds.map(|_| total),
            p50_ms: self.quantile_ms(0.5, DURATION, &labels),
            p99_ms: self.quantile_ms(0.99, DURATION, &labels),
            default_share: (total > 0.0).then(|| (total - predictions) / total),
            defaults_per_second: outcomes
                .into_iter()
                .filter(|(outcome, rate)| *outcome != PREDICTION && *rate > 0.0)
                .map(|(outcome, rate)| (outcome.to_owned(), rate))
                .collect(),
            rejected_per_second: rejected,
            policy: defined.and_then(|app| app.policy.clone()),
            choices: self.choices(name),
            rollout: defined.and_then(|app| app.rollout.clone()).filter(|rollout| {
                let end = rollout.end.as_ref();
                end.is_none_or(|end| matches!(end, RolloutEnd::RolledBack { .. }))
            }),
        }
    }

    fn choices(&self, app: &str) -> Vec<ChoiceRow> {
        const ASKED: &str = "clipper_policy_asked_total";
        const WEIGHT: &str = "clipper_policy_weight";
        let both = self.now.of(WEIGHT).chain(self.now.of(ASKED));
        let of_app = both.filter(|(labels, _)| label(labels, "app") == Some(app));
        let models: BTreeSet<&str> =
            of_app.filter_map(|(labels, _)| label(labels, "model")).collect();
        let row = |model: &str| {
            let labels = [("app", app), ("model", model)];
            let ratio = |of, to| self.ratio(of, to, &labels);
            ChoiceRow {
                model: model.to_owned(),
                weight: self.now.value(WEIGHT, &labels),
                asked_per_second: self.rate(ASKED, &labels),
                left_out_share: ratio("clipper_policy_left_out_total", ASKED),
                loss: ratio("clipper_policy_loss_total", "clipper_policy_judged_total"),
                agreement: ratio("clipper_policy_agreed_total", "clipper_policy_compared_total"),
            }
        };
        models.into_iter().map(row).collect()
    }

    /// Answers of an application a second, by outcome; none after one look.
    fn outcomes(&self, app: &str) -> BTreeMap<&str, f64> {
        let name = "clipper_predictions_total";
        let of_app = self.now.of(name).filter(|(labels, _)| label(labels, "app") == Some(app));
        let rate = |(labels, _)| {
            let outcome = label(labels, "outcome")?;
            Some((outcome, self.rate(name, &[("app", app), ("outcome", outcome)])?))
        };
        of_app.filter_map(rate).collect()
    }

    fn models(&self, definitions: &Definitions) -> Vec<ModelRow> {
        let id = |labels| Some((label(labels, "model")?, label(labels, "version")?));
        let counted = self.now.of("clipper_replicas").filter_map(|(labels, _)| id(labels));
        let defined = definitions.models.iter();
        let defined = defined.map(|m| (m.model_name.as_str(), m.model_version.as_str()));
        let ids: BTreeSet<(&str, &str)> = counted.chain(defined).collect();
        ids.into_iter().map(|(model, version)| self.model(model, version, definitions)).collect()
    }

    fn model(&self, model: &str, version: &str, definitions: &Definitions) -> ModelRow {
        const BATCH: &str = "clipper_model_batch_duration_seconds";
        const LOOKUPS: &str = "clipper_cache_lookups_total";
        let defined = definitions
            .models
            .iter()
            .find(|found| found.model_name == model && found.model_version == version);
        let labels = [("model", model), ("version", version)];
        let lookups = |result| self.grown(LOOKUPS, &[labels[0], labels[1], ("result", result)]);
        let cache_hit_share = lookups("hit").zip(lookups("miss")).and_then(|(hits, misses)| {
            let all = hits + misses;
            (all > 0.0).then(|| hits / all)
        });
        ModelRow {
            model: model.to_owned(),
            version: version.to_owned(),
            current: defined.map(|model| model.is_current_version),
            replicas: self.now.value("clipper_replicas", &labels),
            queue: self.now.value("clipper_queue_depth", &labels),
            wait_p99_ms: self.quantile_ms(0.99, "clipper_queue_wait_seconds", &labels),
            queries_per_second: self.rate("clipper_model_predictions_total", &labels),
            batch_mean: self.ratio(
                "clipper_model_batch_size_sum",
                "clipper_model_batch_size_count",
                &labels,
            ),
            batch_p50_ms: self.quantile_ms(0.5, BATCH, &labels),
            batch_p99_ms: self.quantile_ms(0.99, BATCH, &labels),
            cache_hit_share,
            errors_per_second: self.rate("clipper_model_errors_total", &labels),
            retried_per_second: self.rate("clipper_queue_retried_total", &labels),
        }
    }

    fn replicas(&self, definitions: &Definitions) -> Vec<ReplicaRow> {
        let counted = self.now.of("clipper_replica_batches_total").filter_map(|(labels, _)| {
            let replica = label(labels, "replica")?.parse().ok()?;
            Some((label(labels, "model")?, label(labels, "version")?, replica))
        });
        let connected = definitions.replicas.iter().map(|replica| {
            let number = replica.model_replica_id;
            (replica.model_name.as_str(), replica.model_version.as_str(), number)
        });
        let ids: BTreeSet<(&str, &str, u32)> = counted.chain(connected).collect();
        ids.into_iter().map(|id| self.replica(id)).collect()
    }

    fn replica(&self, (model, version, replica): (&str, &str, u32)) -> ReplicaRow {
        const PREDICTIONS: &str = "clipper_replica_predictions_total";
        let number = replica.to_string();
        let labels = [("model", model), ("version", version), ("replica", number.as_str())];
        ReplicaRow {
            model: model.to_owned(),
            version: version.to_owned(),
            replica,
            queries_per_second: self.rate(PREDICTIONS, &labels),
            batch_mean: self.ratio(PREDICTIONS, "clipper_replica_batches_total", &labels),
            busy_share: self.rate("clipper_replica_busy_seconds_total", &labels),
        }
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
