//! What a scrape sees: Clipper JSON, Prometheus text, and the page that explains them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer};
use clipper::http::metrics::{Pages, configure_metrics, configure_query};
use clipper::metrics::table::{CLIPPER_TABLE, TABLE};
use clipper::metrics::{
    FeedbackEnd, FlatNames, Metrics, ModelWeights, Outcome, RpcEnd, prometheus_text_body,
};
use clipper_clock as clock;
use clipper_domain::{AppName, KeyName, Limits, ModelId, ModelName, ModelVersion, ReplicaId};
use clipper_scheduling::quota::{Quota, Whose};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn app(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

fn model(name: &str, version: &str) -> ModelId {
    ModelId::new(ModelName::parse(name).unwrap(), ModelVersion::parse(version).unwrap())
}

#[derive(Debug)]
struct OneModel(ModelName);

impl ModelWeights for OneModel {
    fn weights(&self) -> Vec<(ModelName, f64)> {
        vec![(self.0.clone(), 1.0)]
    }
}

/// A server that has done a little of everything.
fn busy() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let digits = metrics.app(&app("simple-example"));
    for outcome in Outcome::ALL {
        digits.answered(outcome, 1, Duration::from_millis(20));
    }
    digits.rejected();
    let net_model = ModelName::parse("net").unwrap();
    let chosen = digits.policy.model(&net_model).unwrap();
    chosen.asked(true);
    chosen.asked(false);
    chosen.compared(true);
    digits.policy.answered(0.75);
    digits.policy.set_weights(Some(Arc::new(OneModel(net_model.clone()))));
    digits.policy.judged(&net_model, 0.25);
    digits.policy.feedback(FeedbackEnd::Learned);
    digits.rollout.set_step(1);
    digits.rollout.exposed(1);
    digits.rollout.rolled_back();
    let net = metrics.model(&model("net", "1"));
    net.cache_lookups(1, 0);
    net.cache_lookups(0, 3);
    net.queued(1, Duration::from_micros(700));
    net.batch_answered(ReplicaId(0), 3, Duration::from_millis(4));
    net.skipped(1);
    net.retried(2);
    net.set_queue_depth(5);
    net.set_replicas(1);
    net.stray_answer();
    net.model_errors(2);
    metrics.child_started(&model("net", "1"));
    metrics.rpc_ended(RpcEnd::Silent);
    metrics.set_rpc_connections(1);
    metrics.actor_restarted("container");
    metrics.thread_stalled("data");
    metrics.admin_command(true);
    metrics
}

fn text(metrics: &Metrics) -> String {
    prometheus_text_body(metrics, FlatNames::Listed).unwrap()
}

/// One family of an exposition.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Name with labels, as written, to value.
    samples: BTreeMap<String, f64>,
}

/// Reads Prometheus text strictly: every line must be valid, every family declared once and whole.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line must end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("HELP has a text");
            assert!(is_name(name), "{line}");
            let unescaped = help.replace("\\\\", "").replace("\\n", "");
            assert!(!unescaped.contains('\\'), "a lone backslash: {line}");
            assert!(!families.contains_key(name), "declared twice: {line}");
            let family = Family { help: help.to_owned(), ..Family::default() };
            families.insert(name.to_owned(), family);
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
            assert_eq!(name, current, "TYPE follows its HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.samples.is_empty() && family.kind.is_empty(), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            let (series, value) = sample(line);
            let family = families.get_mut(&current).expect("a sample follows its TYPE");
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(current.as_str()).expect(line);
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(family.samples.insert(series, value).is_none(), "twice: {line}");
        }
    }
    families
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(good) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Splits `name{label="value",...} value`.
fn sample(line: &str) -> (String, f64) {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    assert!(is_name(&line[..name_end]), "{line}");
    let mut rest = &line[name_end..];
    if let Some(mut labels) = rest.strip_prefix('{') {
        let mut seen = BTreeSet::new();
        loop {
            let (name, after) = labels.split_once("=\"").expect(line);
            assert!(is_name(name) && !name.contains(':') && seen.insert(name), "{line}");
            let mut escaped = false;
            let end = after
                .find(|c| {
                    if escaped {
                        assert!(matches!(c, '\\' | '"' | 'n'), "{line}");
                    }
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                })
                .expect(line);
            labels = &after[end + 1..];
            match labels.strip_prefix(',') {
                Some(next) => labels = next,
                None => break,
            }
        }
        rest = labels.strip_prefix('}').expect(line);
    }
    let value = rest.strip_prefix(' ').expect(line);
    assert!(!value.contains(' '), "no timestamps here: {line}");
    (line[..line.len() - value.len() - 1].to_owned(), value.parse().expect(line))
}

fn value(families: &BTreeMap<String, Family>, series: &str) -> Option<f64> {
    families.values().find_map(|family| family.samples.get(series).copied())
}

#[test]
fn every_line_is_valid_and_every_histogram_is_cumulative() {
    let families = parse(&text(&busy()));
    for (name, family) in &families {
        assert!(!family.samples.is_empty() && !family.help.is_empty(), "{name}");
        if family.kind != "histogram" {
            continue;
        }
        let count: f64 = family.samples.iter().find(|(s, _)| s.contains("_count")).unwrap().1 + 0.0;
        let mut buckets: Vec<(f64, f64)> = family
            .samples
            .iter()
            .filter_map(|(series, n)| {
                let bound = series.split_once("le=\"")?.1.split('"').next()?;
                Some((bound.parse().unwrap(), *n))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
    }
}

#[test]
fn what_was_counted_is_what_is_shown() {
    let families = parse(&text(&busy()));
    let net = r#"model="net",version="1""#;
    let expected = [
        (r#"clipper_predictions_total{app="simple-example",outcome="late"}"#.to_owned(), 1.0),
        (r#"clipper_prediction_duration_seconds_count{app="simple-example"}"#.to_owned(), 7.0),
        (r#"clipper_prediction_duration_seconds_sum{app="simple-example"}"#.to_owned(), 0.14),
        (bucket("clipper_prediction_duration_seconds", "0.01"), 0.0),
        (bucket("clipper_prediction_duration_seconds", "0.025"), 7.0),
        (r#"clipper_policy_asked_total{app="simple-example",model="net"}"#.to_owned(), 2.0),
        (r#"clipper_policy_left_out_total{app="simple-example",model="net"}"#.to_owned(), 1.0),
        (r#"clipper_policy_loss_total{app="simple-example",model="net"}"#.to_owned(), 0.25),
        (r#"clipper_feedback_total{app="simple-example",result="learned"}"#.to_owned(), 1.0),
        (format!("clipper_model_predictions_total{{{net}}}"), 3.0),
        (format!("clipper_model_batch_size_bucket{{{net},le=\"2\"}}"), 0.0),
        (format!("clipper_model_batch_size_bucket{{{net},le=\"5\"}}"), 1.0),
        (format!("clipper_cache_lookups_total{{{net},result=\"hit\"}}"), 1.0),
        (format!("clipper_cache_lookups_total{{{net},result=\"miss\"}}"), 3.0),
        (format!("clipper_model_errors_total{{{net}}}"), 2.0),
        (format!("clipper_queue_depth{{{net}}}"), 5.0),
        (format!("clipper_replica_busy_seconds_total{{{net},replica=\"0\"}}"), 0.004),
        ("clipper_rpc_ended_total{reason=\"silent\"}".to_owned(), 1.0),
        ("clipper_actor_restarts_total{actor=\"container\"}".to_owned(), 1.0),
        ("clipper_thread_stalls_total{thread=\"data\"}".to_owned(), 1.0),
        ("clipper_admin_commands_total{result=\"acknowledged\"}".to_owned(), 1.0),
        // The name that the original's dashboard asks for.
        ("app_simple_example_num_predictions_count".to_owned(), 7.0),
        ("app_simple_example_default_prediction_ratio_ratio".to_owned(), 6.0 / 7.0),
        ("model_net_1_prediction_latency_p99".to_owned(), 4_000.0),
        ("model_net_1_prediction_latency_size".to_owned(), 3.0),
        ("model_net_1_batch_size_max".to_owned(), 3.0),
        ("model_net_1_cache_hit_ratio_ratio".to_owned(), 0.25),
        ("internal_prediction_cache_lookups_count".to_owned(), 4.0),
        ("internal_rpc_request_queueing_delay_p50".to_owned(), 700.0),
    ];
    for (series, number) in expected {
        assert_eq!(value(&families, &series), Some(number), "{series}");
    }
    assert!(value(&families, "app_simple_example_prediction_latency_unit").is_none());
}

fn bucket(name: &str, le: &str) -> String {
    format!("{name}_bucket{{app=\"simple-example\",le=\"{le}\"}}")
}

#[test]
fn two_scrapes_list_the_same_series_in_the_same_order() {
    let metrics = busy();
    for name in ["b", "a", "z", "m"] {
        metrics.app(&app(name)).answered(Outcome::Late, 1, Duration::ZERO);
    }
    let names = |text: String| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    assert_eq!(names(text(&metrics)), names(text(&metrics)));
}

#[test]
fn removed_applications_models_and_replicas_leave_no_series() {
    let metrics = busy();
    let before = parse(&text(&metrics));
    let net = metrics.model(&model("net", "1"));
    net.batch_answered(ReplicaId(7), 2, Duration::from_millis(1));
    assert!(text(&metrics).contains(r#"replica="7""#));
    net.remove_replica(ReplicaId(7));
    assert!(!text(&metrics).contains(r#"replica="7""#));

    metrics.remove_app(&app("simple-example"));
    metrics.remove_model(&model("net", "1"));
    net.cache_lookups(1, 0);
    let after = text(&metrics);
    for gone in ["simple-example", "simple_example", r#"model="net""#, "model_net"] {
        assert!(!after.contains(gone), "{gone}");
    }
    // Sums over all models keep what a removed one had counted.
    let after = parse(&after);
    for series in [
        "internal_prediction_cache_lookups_count",
        "internal_aggregate_num_predictions_count",
        "internal_rpc_request_queueing_delay_size",
    ] {
        assert_eq!(value(&after, series), value(&before, series), "{series}");
    }
}

#[test]
fn only_so_many_replicas_of_a_version_have_series() {
    let metrics = Metrics::new();
    let net = metrics.model(&model("net", "1"));
    for replica in 0..1_000 {
        net.batch_answered(ReplicaId(replica), 1, Duration::from_millis(1));
    }
    let families = parse(&text(&metrics));
    let series = &families["clipper_replica_batches_total"].samples;
    assert_eq!(series.len(), clipper::metrics::handles::REPLICA_SERIES_MAX);
    assert!(series.keys().any(|s| s.contains(r#"replica="999""#)), "the newest stay");
}

#[test]
fn awkward_names_make_no_invalid_line() {
    let metrics = Metrics::new();
    for name in ["quo\"te", "back\\slash", "new\u{2028}line", "模型", "a b{}", "1st", "é-é"] {
        metrics.app(&app(name)).answered(Outcome::Prediction, 1, Duration::from_millis(1));
        let _ = metrics.model(&model(name, "v1.2-rc+3"));
    }
    let families = parse(&text(&metrics));
    assert!(families.contains_key("app_1st_num_predictions_count"));
    assert!(families.contains_key("model_back_slash_v1_2_rc_3_num_predictions_count"));
    let quoted = r#"clipper_predictions_total{app="quo\"te",outcome="prediction"}"#;
    assert_eq!(value(&families, quoted), Some(1.0));
}

#[test]
fn names_that_become_equal_keep_the_first_and_count_the_rest() {
    let metrics = Metrics::new();
    metrics.app(&app("a-b")).answered(Outcome::Prediction, 1, Duration::from_millis(1));
    assert_eq!(value(&parse(&text(&metrics)), "clipper_flat_names_dropped"), Some(0.0));
    let _ = metrics.app(&app("a_b"));
    let families = parse(&text(&metrics));
    assert_eq!(value(&families, "app_a_b_num_predictions_count"), Some(1.0));
    assert_eq!(value(&families, "clipper_flat_names_dropped"), Some(14.0));
    assert_eq!(families["clipper_requests_rejected_total"].samples.len(), 2);
}

/// Serves both kinds of listener and returns what each answers to an `Accept` header.
async fn get(metrics: &Arc<Metrics>, port_1390: bool, accept: Option<&str>) -> (String, String) {
    let pages = Pages::new(Arc::clone(metrics)).unwrap();
    let (query, text) = (configure_query(pages.clone()), configure_metrics(pages));
    let server = HttpServer::new(move || {
        let app = App::new();
        if port_1390 { app.configure(text.clone()) } else { app.configure(query.clone()) }
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let accept = accept.map(|value| format!("Accept: {value}\r\n")).unwrap_or_default();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}Connection: close\r\n\r\n");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    handle.stop(false).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let kind = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map_or("", |(_, kind)| kind);
    (kind.to_owned(), body.to_owned())
}

const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[actix_web::test]
async fn prometheus_gets_text_and_clipper_admin_gets_json() {
    let metrics = busy();
    for (port_1390, accept, json) in [
        (false, None, true),
        (false, Some("*/*"), true),
        (false, Some("text/plain"), false),
        (false, Some("text/html,application/xml;q=0.9,*/*;q=0.8"), true),
        (true, Some("application/json"), false),
        (true, None, false),
    ] {
        let (kind, body) = get(&metrics, port_1390, accept).await;
        if json {
            assert_eq!(kind, "application/json", "{accept:?}");
            let report: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(counter(&report, "app:simple-example:num_predictions"), json!("7"));
        } else {
            assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{accept:?}");
            let families = parse(&body);
            assert!(families.contains_key("clipper_predictions_total"));
            let flat = families.contains_key("app_simple_example_num_predictions_count");
            assert_eq!(flat, port_1390, "flat names belong to the metrics port");
        }
    }
    for port_1390 in [false, true] {
        let (kind, body) = get(&metrics, port_1390, Some(PROMETHEUS)).await;
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(body.ends_with("\n# EOF\n") && body.contains("\nclipper_predictions_total{"));
        assert_eq!(body.contains("\napp_simple_example_num_predictions_count "), port_1390);
    }
}

fn counter(report: &Value, name: &str) -> Value {
    let counters = report["counters"].as_array().unwrap();
    counters.iter().find_map(|entry| entry.get(name)).map(|c| c["count"].clone()).unwrap()
}

/// The original's answer of a server without applications, models and queries, byte for byte.
const EMPTY_SERVER: &str = include_str!("e2e/golden/metrics_empty_server.json");

#[actix_web::test]
async fn an_empty_server_answers_as_the_original_did() {
    let (kind, body) = get(&Metrics::new(), false, Some("*/*")).await;
    assert_eq!(kind, "application/json");
    // The decaying rates turn from -1 to 0 after the first tick, should the machine be that slow.
    assert_eq!(body.replace("\"-1\"", "\"0\""), EMPTY_SERVER.replace("\"-1\"", "\"0\""));
}

/// The cells of the lines of `docs/metrics.md` that describe a metric.
fn documented() -> Vec<Vec<String>> {
    include_str!("../docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect())
        .collect()
}

#[test]
fn the_page_lists_exactly_the_metrics_of_the_table() {
    let list = |labels: &[&str]| if labels.is_empty() { "-".into() } else { labels.join(", ") };
    let prometheus = TABLE.iter().map(|row| {
        let cells = [row.kind.label(), row.unit, &list(row.labels), row.help, row.alert];
        let name = format!("`{}`", row.name);
        std::iter::once(name).chain(cells.iter().map(ToString::to_string)).collect()
    });
    let clipper = CLIPPER_TABLE.iter().map(|row| {
        vec![format!("`{}`", row.name), row.category.into(), row.unit.into(), row.meaning.into()]
    });
    let declared: Vec<Vec<String>> = prometheus.chain(clipper).collect();
    let documented = documented();
    for row in &declared {
        assert!(documented.contains(row), "docs/metrics.md lacks | {} |", row.join(" | "));
    }
    for row in &documented {
        assert!(declared.contains(row), "docs/metrics.md has a stale | {} |", row.join(" | "));
    }
}

/// An application and a key have limits.
fn limit(metrics: &Metrics) {
    let limits = Limits::of([Some(5), None, None, None], None).unwrap();
    let (app, key) = (AppName::parse("simple-example"), KeyName::parse("ci"));
    let (app, key) = (app.unwrap(), key.unwrap());
    assert!(metrics.app(&app).limit(&app, limits).is_some());
    let quota = Quota::new(Whose::Key(key.clone()), limits, clock::now());
    metrics.watch_keys(move || vec![(key.clone(), Arc::clone(&quota))]);
}

#[test]
fn the_server_shows_exactly_the_metrics_of_the_table() {
    let metrics = busy();
    metrics.redis();
    metrics.traces();
    metrics.tls();
    metrics.http.query.error("json");
    limit(&metrics);
    let families = parse(&text(&metrics));
    for row in TABLE {
        let family = families.get(row.name).unwrap_or_else(|| panic!("{} not shown", row.name));
        assert_eq!((family.kind.as_str(), family.help.as_str()), (row.kind.label(), row.help));
        for label in row.labels {
            let all = family.samples.keys().all(|series| series.contains(&format!("{label}=\"")));
            assert!(all, "{} without label {label}", row.name);
        }
    }
    for name in families.keys().filter(|n| n.starts_with("clipper_") || n.starts_with("process_")) {
        assert!(TABLE.iter().any(|row| row.name == name), "{name} is not in the table");
    }

    let report: Value =
        serde_json::from_str(&clipper::metrics::clipper_json_body(&metrics)).unwrap();
    let mut shown = BTreeSet::new();
    for (category, entries) in report.as_object().unwrap() {
        for (name, fields) in
            entries.as_array().unwrap().iter().flat_map(|e| e.as_object().unwrap())
        {
            assert!(fields.as_object().unwrap().values().all(Value::is_string), "{name}");
            let name =
                name.replace("simple-example", "{app}").replace("net:1", "{model}:{version}");
            assert!(shown.insert((name, category.clone())));
        }
    }
    let declared =
        CLIPPER_TABLE.iter().map(|row| (row.name.to_owned(), row.category.to_owned())).collect();
    assert_eq!(shown, declared);
}
