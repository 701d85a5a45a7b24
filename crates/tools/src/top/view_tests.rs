//! Tests of [`super`]: rows from two looks that are written out here.

use std::time::Duration;

use super::*;
use crate::top::fetch_error::FetchError;
use clipper_clock as clock;
use clipper_domain::admin::{AppDescription, ModelDescription, ReplicaDescription};
use clipper_domain::{InputType, Limits, OnModelError, Weight};

fn look(after_s: u64, text: &str) -> Fetched {
    Fetched {
        at: clock::now() + Duration::from_secs(after_s),
        unix_ms: 1_700_000_100_000,
        samples: Samples::parse(text),
        definitions: Ok(Definitions {
            applications: vec![AppDescription {
                input_type: InputType::Doubles,
                default_output: String::new(),
                latency_slo_micros: 50_000,
                name: "digits".to_owned(),
                linked_models: vec!["net".to_owned()],
                on_model_error: OnModelError::Default,
                cache: true,
                policy: None,
                policy_parameters: None,
                weight: Weight::default(),
                limits: Limits::default(),
                rollout: None,
            }],
            models: vec![model("1", true), model("2", false)],
            replicas: vec![ReplicaDescription {
                model_id: "net:1".to_owned(),
                model_name: "net".to_owned(),
                model_version: "1".to_owned(),
                model_replica_id: 3,
                input_type: InputType::Doubles,
            }],
        }),
    }
}

fn model(version: &str, is_current_version: bool) -> ModelDescription {
    ModelDescription {
        model_name: "net".to_owned(),
        model_version: version.to_owned(),
        input_type: InputType::Doubles,
        labels: vec![],
        container_name: String::new(),
        model_data_path: String::new(),
        is_current_version,
        cache: true,
        signature: None,
    }
}

const BEFORE: &str = r#"
process_start_time_seconds 1700000000
clipper_predictions_total{app="digits",outcome="prediction"} 100
clipper_predictions_total{app="digits",outcome="late"} 5
clipper_prediction_duration_seconds_bucket{app="digits",le="0.01"} 100
clipper_prediction_duration_seconds_bucket{app="digits",le="0.1"} 105
clipper_prediction_duration_seconds_bucket{app="digits",le="+Inf"} 105
clipper_replicas{model="net",version="1"} 1
clipper_model_predictions_total{model="net",version="1"} 60
clipper_model_batch_size_sum{model="net",version="1"} 60
clipper_model_batch_size_count{model="net",version="1"} 6
clipper_cache_lookups_total{model="net",version="1",result="hit"} 40
clipper_cache_lookups_total{model="net",version="1",result="miss"} 60
clipper_replica_batches_total{model="net",version="1",replica="3"} 6
clipper_replica_predictions_total{model="net",version="1",replica="3"} 60
clipper_replica_busy_seconds_total{model="net",version="1",replica="3"} 1
clipper_policy_asked_total{app="digits",model="net"} 10
clipper_policy_left_out_total{app="digits",model="net"} 1
clipper_policy_judged_total{app="digits",model="net"} 4
clipper_policy_loss_total{app="digits",model="net"} 4
"#;
const NOW: &str = r#"
process_start_time_seconds 1700000000
process_resident_memory_bytes 20971520
clipper_build_info{version="0.1.0"} 1
clipper_rpc_connections 1
clipper_predictions_total{app="digits",outcome="prediction"} 400
clipper_predictions_total{app="digits",outcome="late"} 5
clipper_predictions_total{app="digits",outcome="model_error"} 100
clipper_prediction_duration_seconds_bucket{app="digits",le="0.01"} 300
clipper_prediction_duration_seconds_bucket{app="digits",le="0.1"} 505
clipper_prediction_duration_seconds_bucket{app="digits",le="+Inf"} 505
clipper_replicas{model="net",version="1"} 1
clipper_queue_depth{model="net",version="1"} 7
clipper_model_predictions_total{model="net",version="1"} 360
clipper_model_errors_total{model="net",version="1"} 100
clipper_model_batch_size_sum{model="net",version="1"} 360
clipper_model_batch_size_count{model="net",version="1"} 16
clipper_cache_lookups_total{model="net",version="1",result="hit"} 140
clipper_cache_lookups_total{model="net",version="1",result="miss"} 360
clipper_replica_batches_total{model="net",version="1",replica="3"} 16
clipper_replica_predictions_total{model="net",version="1",replica="3"} 360
clipper_replica_busy_seconds_total{model="net",version="1",replica="3"} 2.5
clipper_policy_weight{app="digits",model="net"} 0.75
clipper_policy_weight{app="other",model="net"} 0.5
clipper_policy_asked_total{app="digits",model="net"} 30
clipper_policy_left_out_total{app="digits",model="net"} 2
clipper_policy_compared_total{app="digits",model="net"} 8
clipper_policy_agreed_total{app="digits",model="net"} 6
clipper_policy_judged_total{app="digits",model="net"} 12
clipper_policy_loss_total{app="digits",model="net"} 6
"#;

fn near(found: Option<f64>, expected: f64) {
    let distance = found.map_or(f64::INFINITY, |found| (found - expected).abs());
    assert!(distance < 1e-3 * expected.abs().max(1.0), "{found:?} is not {expected}");
}

/// The same moment for both clocks, two seconds apart.
fn two_looks() -> (Fetched, Fetched) {
    let (before, mut now) = (look(0, BEFORE), look(2, NOW));
    now.at = before.at + Duration::from_secs(2);
    (before, now)
}

#[test]
fn two_looks_make_rates_percentiles_and_shares() {
    let (before, now) = two_looks();
    let view = View::between(Some(&before), &now);
    near(view.interval_s, 2.0);
    near(view.server.uptime_s, 100.0);
    near(view.server.queries_per_second, 200.0);
    assert_eq!(view.server.version.as_deref(), Some("0.1.0"));
    assert_eq!(view.server.redis_connected, None);

    let [app] = view.applications.as_slice() else { panic!("{view:?}") };
    assert_eq!((app.name.as_str(), &app.linked_models[..]), ("digits", &["net".to_owned()][..]));
    near(app.objective_ms, 50.0);
    near(app.queries_per_second, 200.0);
    near(app.default_share, 0.25);
    assert_eq!(app.defaults_per_second, BTreeMap::from([("model_error".to_owned(), 50.0)]));
    // Of 400 answers 200 took up to 10 ms, the others up to 100 ms.
    near(app.p50_ms, 10.0);
    near(app.p99_ms, 10.0 + 90.0 * 0.98);

    let [choice] = app.choices.as_slice() else { panic!("{app:?}") };
    assert_eq!((choice.model.as_str(), choice.weight), ("net", Some(0.75)));
    near(choice.asked_per_second, 10.0);
    near(choice.left_out_share, 0.05);
    near(choice.loss, 0.25);
    near(choice.agreement, 0.75);

    let [one, two] = view.models.as_slice() else { panic!("{view:?}") };
    assert_eq!((one.version.as_str(), one.current), ("1", Some(true)));
    assert_eq!((two.version.as_str(), two.current, two.replicas), ("2", Some(false), None));
    near(one.queue, 7.0);
    near(one.queries_per_second, 150.0);
    near(one.batch_mean, 30.0);
    near(one.cache_hit_share, 0.25);
    near(one.errors_per_second, 50.0);

    let [replica] = view.replicas.as_slice() else { panic!("{view:?}") };
    assert_eq!(replica.replica, 3);
    near(replica.queries_per_second, 150.0);
    near(replica.batch_mean, 30.0);
    near(replica.busy_share, 0.75);
}

#[test]
fn the_objective_of_the_metrics_goes_before_that_of_the_definition() {
    let text = format!("{NOW}clipper_application_objective_seconds{{app=\"digits\"}} 0.02\n");
    near(View::between(None, &look(0, &text)).applications[0].objective_ms, 20.0);
}

#[test]
fn one_look_shows_what_stands_and_no_rates() {
    let view = View::between(None, &look(0, NOW));
    assert_eq!((view.interval_s, view.server.queries_per_second), (None, None));
    let app = &view.applications[0];
    assert_eq!((app.queries_per_second, app.p99_ms, app.default_share), (None, None, None));
    near(view.models[0].queue, 7.0);
    near(view.models[0].replicas, 1.0);
}

#[test]
fn a_restarted_server_counts_from_zero() {
    let (before, mut now) = two_looks();
    let restarted = NOW.replace("1700000000", "1700000099");
    now.samples = Samples::parse(&restarted);
    assert_eq!(View::between(Some(&before), &now).interval_s, None);
}

#[test]
fn metrics_alone_make_most_of_the_rows() {
    let (before, mut now) = two_looks();
    now.definitions =
        Err(FetchError { url: "http://there/admin".to_owned(), why: "nobody".to_owned() });
    let view = View::between(Some(&before), &now);
    assert_eq!(view.management_error.as_deref(), Some("http://there/admin: nobody"));
    near(view.applications[0].queries_per_second, 200.0);
    assert_eq!(view.applications[0].objective_ms, None);
    assert_eq!((view.models.len(), view.models[0].current), (1, None));
    assert_eq!(view.replicas.len(), 1);
}

#[test]
fn an_application_nobody_asked_has_no_percentiles() {
    let (before, mut now) = two_looks();
    now.samples = before.samples.clone();
    let view = View::between(Some(&before), &now);
    let app = &view.applications[0];
    assert_eq!((app.p50_ms, app.p99_ms, app.default_share), (None, None, None));
    near(app.queries_per_second, 0.0);
}
