//! The metrics as Prometheus text, format 0.0.4.
//!
//! First the metrics of [`super::table`]; then, on the metrics port, every number of the Clipper
//! JSON as a gauge under the flat name that the original's exporter gave it.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};

use super::clipper_json::{Leaf, Report};
use super::family::{Family, family, gauge_sample};
use super::handles::{AppMetrics, ModelMetrics, ReplicaMetrics};
use super::histogram::float;
use super::http::HttpMetrics;
use super::policy::{CONFIDENCE_UNIT, ChoiceMetrics, FeedbackEnd};
use super::policy_states::{PolicyStateMetrics, Unsaved};
use super::quotas;
use super::registry::Metrics;
use super::rpc_end::RpcEnd;
use super::table::{self, Row};
use super::tls::TlsMetrics;
use super::traces::{SpanEnd, TraceMetrics};
use super::watcher::RedisMetrics;
use clipper_clock as clock;
use clipper_domain::{AppName, ModelId, Outcome};

/// The media type of [`prometheus_text_body`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const MICROS_PER_SECOND: f64 = 1e6;

/// Whether a scrape also lists the original exporter's flat names. They break a rule of naming (a
/// gauge must not end in `_count`), and on two ports each would appear twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlatNames {
    /// For the metrics port, where the original's dashboards look for them.
    Listed,
    /// For the query frontend.
    LeftOut,
}

/// What [`write_prometheus_text`] writes.
///
/// # Errors
/// Only if the encoder meets a metric without a name or value, which would be a fault here.
pub fn prometheus_text_body(metrics: &Metrics, flat_names: FlatNames) -> io::Result<String> {
    let mut text = Vec::new();
    write_prometheus_text(metrics, flat_names, &mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Applications or models whose samples are made before they are written.
const SUBJECTS_AT_ONCE: usize = 64;

/// Writes the body of a scrape, a piece at a time: one of 100,000 applications needs no room for
/// all its text.
///
/// # Errors
/// Those of `out`, and if the encoder meets a metric without a name or value.
pub fn write_prometheus_text(
    metrics: &Metrics,
    flat_names: FlatNames,
    mut out: impl io::Write,
) -> io::Result<()> {
    let report = Report::of(metrics);
    let flat = FlatLeaves::of(&report);
    let process_wide = process_wide(metrics, flat.dropped);
    let apps: Vec<(AppName, Arc<AppMetrics>)> =
        metrics.apps.read().iter().map(|(name, app)| (name.clone(), Arc::clone(app))).collect();
    let models: Vec<(ModelId, Arc<ModelMetrics>)> =
        metrics.models.read().iter().map(|(id, model)| (id.clone(), Arc::clone(model))).collect();
    let keys = metrics.keys.all();
    for row in table::TABLE {
        if let Some(family) = process_wide.iter().find(|family| family.name() == row.name) {
            encode(family, true, &mut out)?;
        } else if row.labels.starts_with(&["app"]) {
            write_samples(row, &apps, of_app, &mut out)?;
        } else if row.labels.starts_with(&["model"]) {
            write_samples(row, &models, of_model, &mut out)?;
        } else if row.labels.starts_with(&["key"]) {
            write_samples(row, &keys, quotas::of_key, &mut out)?;
        }
    }
    if flat_names == FlatNames::Listed {
        flat.write(&report, &mut out)?;
    }
    Ok(())
}

/// Writes the samples of one row for all subjects.
fn write_samples<S>(
    row: &'static Row,
    subjects: &[S],
    sample: fn(&mut Family, &S),
    out: &mut impl io::Write,
) -> io::Result<()> {
    let mut is_first = true;
    for some in subjects.chunks(SUBJECTS_AT_ONCE) {
        let mut family = Family::new(row);
        for subject in some {
            sample(&mut family, subject);
        }
        if !family.is_empty() {
            encode(&family.finish(), is_first, out)?;
            is_first = false;
        }
    }
    Ok(())
}

/// Writes a family, without its two lines of head where these samples continue it.
fn encode(family: &MetricFamily, has_head: bool, out: &mut impl io::Write) -> io::Result<()> {
    if family.get_metric().is_empty() {
        return Ok(());
    }
    let text = prometheus::TextEncoder::new()
        .encode_to_string(std::slice::from_ref(family))
        .map_err(io::Error::other)?;
    let samples = if has_head { Some(&*text) } else { text.splitn(3, '\n').nth(2) };
    out.write_all(samples.unwrap_or_default().as_bytes())
}

fn process_wide(metrics: &Metrics, dropped: u64) -> Vec<MetricFamily> {
    let mut connections = Family::new(&table::RPC_CONNECTIONS);
    connections.number(&[], float(metrics.rpc_connections.load(Relaxed)));
    let mut ended = Family::new(&table::RPC_ENDED);
    for (why, count) in RpcEnd::ALL.iter().zip(&metrics.rpc_ended) {
        ended.number(&[why.label()], float(count.load(Relaxed)));
    }
    let mut restarts = Family::new(&table::ACTOR_RESTARTS);
    for (actor, count) in metrics.actor_restarts.lock().iter() {
        restarts.number(&[actor], float(*count));
    }
    let mut stalls = Family::new(&table::THREAD_STALLS);
    for (thread, count) in metrics.thread_stalls.lock().iter() {
        stalls.number(&[thread], float(*count));
    }
    let counted = |lost: &OnceLock<Arc<AtomicU64>>| lost.get().map_or(0, |n| n.load(Relaxed));
    let mut lost = Family::new(&table::LOG_LINES_LOST);
    lost.number(&[], float(counted(&metrics.log_lines_lost)));
    let mut access_lost = Family::new(&table::ACCESS_LINES_LOST);
    access_lost.number(&[], float(counted(&metrics.access_lines_lost)));
    let mut commands = Family::new(&table::ADMIN_COMMANDS);
    commands.number(&["acknowledged"], float(metrics.admin_acknowledged.load(Relaxed)));
    commands.number(&["refused"], float(metrics.admin_refused.load(Relaxed)));
    let mut feedback = Family::new(&table::FEEDBACK_REFUSED);
    feedback.number(&[], float(metrics.feedback_refused.load(Relaxed)));
    let mut build = Family::new(&table::BUILD_INFO);
    build.number(&[env!("CARGO_PKG_VERSION")], 1.0);
    let mut explain_lost = Family::new(&table::EXPLAIN_LOST);
    explain_lost.number(&[], float(metrics.explain_lost.load(Relaxed)));
    let mut flat_dropped = Family::new(&table::FLAT_NAMES_DROPPED);
    flat_dropped.number(&[], float(dropped));
    let families = [
        connections,
        ended,
        restarts,
        stalls,
        lost,
        access_lost,
        explain_lost,
        commands,
        feedback,
        build,
        flat_dropped,
    ];
    let families = families.into_iter().chain(of_policy_states(&metrics.policy_states));
    let redis = metrics.redis.get().map(of_redis).into_iter().flatten();
    let tls = metrics.tls.get().map(|tls| of_tls(tls, &metrics.http)).into_iter().flatten();
    let traces = metrics.traces.get().map(|traces| of_traces(traces)).into_iter().flatten();
    let families = families.chain(traces).chain(of_http(&metrics.http)).chain(tls);
    let mut families: Vec<MetricFamily> = families.chain(redis).map(Family::finish).collect();
    families.extend(metrics.process.collect());
    families
}

fn of_policy_states(states: &PolicyStateMetrics) -> [Family; 4] {
    let mut users = Family::new(&table::POLICY_USERS);
    users.number(&[], float(states.users.load(Relaxed)));
    let mut evicted = Family::new(&table::POLICY_EVICTED);
    evicted.number(&[], float(states.evicted.load(Relaxed)));
    let mut saved = Family::new(&table::POLICY_SAVED);
    saved.number(&[], float(states.saved.load(Relaxed)));
    let mut unsaved = Family::new(&table::POLICY_UNSAVED);
    for why in Unsaved::ALL {
        unsaved.number(&[why.label()], float(states.unsaved_for(why)));
    }
    [users, evicted, saved, unsaved]
}

fn of_http(http: &HttpMetrics) -> [Family; 5] {
    let mut open = Family::new(&table::HTTP_CONNECTIONS);
    let mut ended = Family::new(&table::HTTP_ENDED);
    let mut errors = Family::new(&table::HTTP_ERRORS);
    for (frontend, counts) in http.frontends() {
        open.number(&[frontend], float(counts.open() as u64));
        for (why, count) in counts.counts() {
            ended.number(&[frontend, why.label()], float(count));
        }
        for (error, count) in counts.errors() {
            errors.number(&[frontend, error], float(count));
        }
    }
    let mut bodies = Family::new(&table::HTTP_BODY_BYTES);
    bodies.number(&[], float(http.body_bytes() as u64));
    let mut answers = Family::new(&table::HTTP_ANSWER_BYTES);
    answers.number(&[], float(http.answer_bytes() as u64));
    [open, ended, errors, bodies, answers]
}

/// Absent without TLS.
fn of_tls(tls: &TlsMetrics, http: &HttpMetrics) -> [Family; 3] {
    let mut handshakes = Family::new(&table::TLS_HANDSHAKES);
    for (frontend, counts) in http.frontends() {
        handshakes.number(&[frontend], float(counts.handshakes()));
    }
    let mut expiry = Family::new(&table::TLS_EXPIRY);
    expiry.number(&[], float(tls.expires.load(Relaxed)));
    let mut reloads = Family::new(&table::TLS_RELOADS);
    reloads.number(&["loaded"], float(tls.loaded.load(Relaxed)));
    reloads.number(&["failed"], float(tls.failed.load(Relaxed)));
    [handshakes, expiry, reloads]
}

/// Absent in embedded mode.
fn of_traces(traces: &TraceMetrics) -> [Family; 3] {
    let mut spans = Family::new(&table::TRACE_SPANS);
    for how in SpanEnd::ALL {
        spans.number(&[how.label()], float(traces.count(how)));
    }
    let mut queue = Family::new(&table::TRACE_QUEUE);
    queue.number(&[], float(traces.queued()));
    let mut passed_over = Family::new(&table::TRACE_PASSED_OVER);
    passed_over.number(&[], float(traces.count_passed_over()));
    [spans, queue, passed_over]
}

fn of_redis(redis: &RedisMetrics) -> [Family; 7] {
    let rows = [
        (&table::REDIS_CONNECTED, &redis.connected),
        (&table::REDIS_FAILURES, &redis.failures),
        (&table::REDIS_MALFORMED, &redis.malformed),
        (&table::REDIS_CONFLICTS, &redis.conflicts),
        (&table::REDIS_EVENTS, &redis.events),
        (&table::REDIS_EVICTS, &redis.evicts),
        (&table::REDIS_RESTORED, &redis.restored),
    ];
    rows.map(|(row, value)| {
        let mut family = Family::new(row);
        family.number(&[], float(value.load(Relaxed)));
        family
    })
}

fn of_app(family: &mut Family, (name, app): &(AppName, Arc<AppMetrics>)) {
    let name = name.as_str();
    let row = family.row();
    if row == &table::PREDICTIONS {
        for outcome in Outcome::ALL {
            family.number(&[name, outcome.label()], float(app.ended(outcome)));
        }
    } else if row == &table::PREDICTION_DURATION {
        let latency = app.latency.snapshot();
        family.histogram(&[name], &latency, table::DURATION_BOUNDS_US, MICROS_PER_SECOND);
    } else if row == &table::APPLICATION_OBJECTIVE {
        family.number(&[name], float(app.objective.load(Relaxed)) / MICROS_PER_SECOND);
    } else if row == &table::REQUESTS_REJECTED {
        family.number(&[name], float(app.rejected.load(Relaxed)));
    } else if row == &table::FEEDBACK {
        let ends = FeedbackEnd::ALL.map(|end| (end, app.policy.feedback_ended(end)));
        // Applications whose policy learns nothing have no such series.
        if ends.iter().any(|(_, count)| *count > 0) {
            for (end, count) in ends {
                family.number(&[name, end.label()], float(count));
            }
        }
    } else if row == &table::POLICY_WEIGHT {
        for (model, weight) in app.policy.weights() {
            family.number(&[name, model.as_str()], weight);
        }
    } else if row == &table::POLICY_CONFIDENCE {
        let confidence = app.policy.confidence.snapshot();
        // Only where a policy can tell.
        if confidence.count > 0 {
            family.histogram(&[name], &confidence, table::CONFIDENCE_BOUNDS, CONFIDENCE_UNIT);
        }
    } else if let Some((_, read)) = POLICY_NUMBERS.iter().find(|(number, _)| *number == row) {
        for (model, metrics) in app.policy.models() {
            family.number(&[name, model.as_str()], read(&metrics));
        }
    } else if let Some(at) = ROLLOUT_NUMBERS.iter().position(|number| *number == row)
        && let Some(numbers) = app.rollout.numbers()
    {
        family.number(&[name], numbers[at]);
    } else if let Some(quota) = &*app.quota.read() {
        quotas::add(family, name, quota, QUOTA_NUMBERS);
    }
}

/// In the order of [`quotas::add`].
const QUOTA_NUMBERS: [&Row; 3] = [&table::APP_QUERIES, &table::APP_UNDER_WAY, &table::APP_LIMITED];

/// In the order of `RolloutMetrics::numbers`.
const ROLLOUT_NUMBERS: [&Row; 4] = [
    &table::ROLLOUT_STEP,
    &table::ROLLOUT_ALARM,
    &table::ROLLOUT_EXPOSED,
    &table::ROLLOUT_ROLLED_BACK,
];

type ReadChoice = fn(&ChoiceMetrics) -> f64;

/// What is counted of each model that a policy chooses.
const POLICY_NUMBERS: &[(&Row, ReadChoice)] = &[
    (&table::POLICY_ASKED, |model| float(model.asked.load(Relaxed))),
    (&table::POLICY_LEFT_OUT, |model| float(model.left_out.load(Relaxed))),
    (&table::POLICY_JUDGED, |model| float(model.judged.load(Relaxed))),
    (&table::POLICY_COMPARED, |model| float(model.compared.load(Relaxed))),
    (&table::POLICY_AGREED, |model| float(model.agreed.load(Relaxed))),
    (&table::POLICY_LOSS, |model| float(model.loss.load(Relaxed)) / MILLIONTHS),
];

/// Losses are counted in these.
const MILLIONTHS: f64 = 1e6;

fn of_model(family: &mut Family, (id, model): &(ModelId, Arc<ModelMetrics>)) {
    let [name, version] = [id.name.as_str(), id.version.as_str()];
    let row = family.row();
    let durations = [
        (&table::MODEL_BATCH_DURATION, &model.batch_latency),
        (&table::QUEUE_WAIT, &model.queue_wait),
    ];
    if let Some((_, read)) = MODEL_NUMBERS.iter().find(|(number, _)| *number == row) {
        family.number(&[name, version], float(read(model)));
    } else if let Some((_, read)) = REPLICA_NUMBERS.iter().find(|(number, _)| *number == row) {
        for (replica, counts) in model.by_replica() {
            family.number(&[name, version, &replica.to_string()], read(&counts));
        }
    } else if let Some((_, values)) = durations.iter().find(|(duration, _)| *duration == row) {
        let (bounds, unit) = (table::DURATION_BOUNDS_US, MICROS_PER_SECOND);
        family.histogram(&[name, version], &values.snapshot(), bounds, unit);
    } else if row == &table::MODEL_BATCH_SIZE {
        let size = model.batch_size.snapshot();
        family.histogram(&[name, version], &size, table::BATCH_BOUNDS, 1.0);
    } else if row == &table::CACHE_LOOKUPS {
        for (result, count) in [("hit", &model.hits), ("miss", &model.misses)] {
            family.number(&[name, version, result], float(count.load(Relaxed)));
        }
    }
}

type ReadModel = fn(&ModelMetrics) -> u64;

/// The counters and gauges of a model version that have no label of their own.
const MODEL_NUMBERS: [(&Row, ReadModel); 10] = [
    (&table::MODEL_PREDICTIONS, ModelMetrics::predictions),
    (&table::MODEL_ERRORS, |model| model.model_errors.load(Relaxed)),
    (&table::REPLICAS, |model| model.replicas.load(Relaxed)),
    (&table::QUEUE_DEPTH, |model| model.queue_depth.load(Relaxed)),
    (&table::QUEUE_SKIPPED, |model| model.skipped.load(Relaxed)),
    (&table::QUEUE_RETRIED, |model| model.retried.load(Relaxed)),
    (&table::QUEUE_HEDGED, |model| model.hedged.load(Relaxed)),
    (&table::QUEUE_POISONOUS, |model| model.poisonous.load(Relaxed)),
    (&table::STRAY_ANSWERS, |model| model.stray_answers.load(Relaxed)),
    (&table::CONTAINER_STARTS, |model| model.child_starts.load(Relaxed)),
];

type ReadReplica = fn(&ReplicaMetrics) -> f64;

const REPLICA_NUMBERS: [(&Row, ReadReplica); 3] = [
    (&table::REPLICA_BATCHES, |counts| float(counts.batches.load(Relaxed))),
    (&table::REPLICA_PREDICTIONS, |counts| float(counts.predictions.load(Relaxed))),
    (&table::REPLICA_BUSY, |counts| float(counts.busy.load(Relaxed)) / MICROS_PER_SECOND),
];

/// Every number of a report under its flat name. Names can become the same: `app:a-b:...` and
/// `app:a_b:...`. Then the metrics of the first application or model are listed.
struct FlatLeaves {
    /// Prefixes of those that are not.
    hidden: HashSet<String>,
    /// Numbers of theirs.
    dropped: u64,
}

impl FlatLeaves {
    fn of(report: &Report) -> Self {
        let now = clock::now();
        let (mut seen, mut flat) = (HashSet::new(), Self { hidden: HashSet::new(), dropped: 0 });
        let mut hide = |prefix: &str, leaves: &dyn Fn() -> Vec<Leaf>| {
            if !seen.insert(plain(prefix)) {
                let numbers: usize = leaves().iter().map(|leaf| numbers(leaf).count()).sum();
                flat.dropped += numbers as u64;
                flat.hidden.insert(prefix.to_owned());
            }
        };
        for app in &report.apps {
            hide(&app.prefix, &|| app.leaves(now).into());
        }
        for model in &report.models {
            hide(&model.prefix, &|| model.leaves(now).into());
        }
        flat
    }

    fn write(&self, report: &Report, out: &mut impl io::Write) -> io::Result<()> {
        for leaf in report.leaves() {
            let prefix = leaf.name.rsplit_once(':').map_or("", |(prefix, _)| prefix);
            if self.hidden.contains(prefix) {
                continue;
            }
            for (field, value) in numbers(&leaf) {
                let help = format!("Field {field} of {} in the Clipper JSON.", leaf.name);
                let name = flat_name(&leaf.name, field);
                let family = family(name, help, MetricType::GAUGE, vec![gauge_sample(value)]);
                encode(&family, true, out)?;
            }
        }
        Ok(())
    }
}

/// The fields that are numbers.
fn numbers(leaf: &Leaf) -> impl Iterator<Item = (&'static str, f64)> + '_ {
    leaf.fields.iter().filter_map(|(field, text)| Some((*field, text.parse().ok()?)))
}

/// `app:a-b:num_predictions` and `count` become `app_a_b_num_predictions_count`.
fn flat_name(name: &str, field: &str) -> String {
    format!("{}_{field}", plain(name))
}

fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
