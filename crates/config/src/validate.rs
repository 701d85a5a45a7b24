//! Checks that concern more than one key, and files that must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use toml::{Table, Value};

use super::fault::ValueOrigin;
use super::root::Config;
use super::rule::{rpc_socket_addr, split_python_function};
use super::schema;
use super::walk::Draft;
use clipper_domain::shown_url::shown_url;
use clipper_domain::{DEFAULT_POLICY, InputType};

/// Frames of a batch beside its inputs: delimiter, version, type, id, request type, header length,
/// header (docs/container-protocol.md).
const BATCH_HEADER_FRAMES: usize = 7;

/// Whether every model that is linked has to be among those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Models {
    AllHere,
    /// The server may have others.
    SomeHere,
}

/// Adds what is wrong to `draft.faults`. Values that are faulty by themselves are left out of it.
pub(super) fn check(draft: &mut Draft, base_dir: &Path, known: Models) {
    // Only the lists can still lack something, so the rest always makes a `Config`.
    let mut single = draft.root.clone();
    single.remove(schema::APPLICATION_TABLES);
    single.remove(schema::MODEL_TABLES);
    if let Ok(config) = Value::Table(single).try_into::<Config>() {
        limits(draft, &config);
        addresses(draft, &config);
        tls(draft, &config);
        tokens(draft, &config);
        cors(draft, &config);
        traces(draft, &config);
        models(draft, &config, base_dir);
    }
    applications(draft, known);
}

/// Blames the first of `keys` that somebody has set; defaults do not contradict each other.
fn blame(draft: &mut Draft, keys: [&str; 2], problems: [String; 2]) {
    for (key, problem) in keys.into_iter().zip(problems) {
        if let Some(origin) = draft.origins.get(key).cloned() {
            return draft.fault(origin, key, problem);
        }
    }
}

/// (smaller key, its value, larger key, its value, why)
type Pair = (&'static str, u64, &'static str, u64, &'static str);

fn http_pairs(config: &Config) -> [Pair; 3] {
    let (http, rpc) = (&config.http, &config.rpc);
    [
        (
            "http.body_max_bytes",
            http.body_max_bytes as u64,
            "rpc.frame_max_bytes",
            rpc.frame_max_bytes as u64,
            "an input travels in one frame",
        ),
        (
            "http.body_max_bytes",
            http.body_max_bytes as u64,
            "http.bodies_max_bytes",
            http.bodies_max_bytes as u64,
            "the largest body could never be read",
        ),
        (
            "http.answer_max_bytes",
            http.answer_max_bytes as u64,
            "http.answers_max_bytes",
            http.answers_max_bytes as u64,
            "the longest answer could never be sent",
        ),
    ]
}

fn other_pairs(config: &Config) -> [Pair; 7] {
    let (rpc, serving) = (&config.rpc, &config.serving);
    let batch_frames = serving.batch_max.saturating_add(BATCH_HEADER_FRAMES);
    let backoff = &config.containers;
    [
        (
            "redis.backoff_initial_ms",
            config.redis.backoff_initial_ms,
            "redis.backoff_max_ms",
            config.redis.backoff_max_ms,
            "the first pause is the shortest",
        ),
        (
            "rpc.frame_max_bytes",
            rpc.frame_max_bytes as u64,
            "rpc.message_max_bytes",
            rpc.message_max_bytes as u64,
            "a message holds its frames",
        ),
        (
            "rpc.message_max_bytes",
            rpc.message_max_bytes as u64,
            "rpc.write_queue_max_bytes",
            rpc.write_queue_max_bytes as u64,
            "the queue must hold one message",
        ),
        (
            "rpc.pending_handshakes_max",
            rpc.pending_handshakes_max as u64,
            "rpc.connections_max",
            rpc.connections_max as u64,
            "pending connections are connections",
        ),
        (
            "serving.request_inputs_max",
            serving.request_inputs_max as u64,
            "serving.inflight_queries_max",
            serving.inflight_queries_max as u64,
            "the largest request could never be admitted",
        ),
        (
            "serving.batch_max",
            batch_frames as u64,
            "rpc.frames_max",
            rpc.frames_max as u64,
            "a message has 7 frames beside those of the queries",
        ),
        (
            "containers.restart_backoff_initial_ms",
            backoff.restart_backoff_initial_ms,
            "containers.restart_backoff_max_ms",
            backoff.restart_backoff_max_ms,
            "the first pause is the shortest",
        ),
    ]
}

fn trace_pairs(config: &Config) -> [Pair; 2] {
    let traces = &config.traces;
    [
        (
            "traces.retry_initial_ms",
            traces.retry_initial_ms,
            "traces.retry_max_ms",
            traces.retry_max_ms,
            "the first pause is the shortest",
        ),
        (
            "traces.export_spans_max",
            traces.export_spans_max as u64,
            "traces.queue_spans_max",
            traces.queue_spans_max as u64,
            "a whole message could never wait",
        ),
    ]
}

fn limits(draft: &mut Draft, config: &Config) {
    let pairs = http_pairs(config).into_iter().chain(other_pairs(config));
    let pairs = pairs.chain(trace_pairs(config));
    for (small, small_value, large, large_value, why) in pairs {
        if small_value > large_value {
            let too_large = format!("{small_value} is more than {large}, {large_value}: {why}");
            let too_small = format!("{large_value} is less than {small}, {small_value}: {why}");
            blame(draft, [small, large], [too_large, too_small]);
        }
    }
}

fn addresses(draft: &mut Draft, config: &Config) {
    let addresses = [
        ("http.query_addr", Some(config.http.query_addr)),
        ("http.management_addr", Some(config.http.management_addr)),
        ("http.metrics_addr", Some(config.http.metrics_addr)),
        ("grpc.addr", config.grpc.enabled.then_some(config.grpc.addr)),
        ("rpc.addr", rpc_socket_addr(&config.rpc.addr)),
    ];
    let clash = |a: SocketAddr, b: SocketAddr| {
        let shared = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && shared && a.is_ipv4() == b.is_ipv4()
    };
    for (n, (key, address)) in addresses.iter().enumerate() {
        for (other, taken) in &addresses[..n] {
            let (Some(address), Some(taken)) = (address, taken) else { continue };
            if clash(*address, *taken) {
                let problems = [
                    format!("{address} is taken by {other}, {taken}"),
                    format!("{taken} is taken by {key}, {address}"),
                ];
                blame(draft, [key, other], problems);
            }
        }
    }
}

/// Certificate and key come together, and authorities of clients with them.
fn tls(draft: &mut Draft, config: &Config) {
    let tls = &config.tls;
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    for (key, path) in [("tls.key", &tls.key), ("tls.client_ca", &tls.client_ca)] {
        if is_set(path) && !tls.is_on() {
            let problem = "it needs a certificate, and tls.cert is empty".to_owned();
            blame(draft, [key, "tls.cert"], [problem.clone(), problem]);
        }
    }
    if tls.is_on() && !is_set(&tls.key) {
        let problem = "it needs its key, and tls.key is empty".to_owned();
        blame(draft, ["tls.cert", "tls.key"], [problem.clone(), problem]);
    }
}

/// Browsers take certificates to nobody who lets in every site.
fn cors(draft: &mut Draft, config: &Config) {
    let http = &config.http;
    if http.cors_credentials && http.cors_origins.iter().any(|origin| origin == "*") {
        let problem = "it needs sites by their names, and http.cors_origins has \"*\"".to_owned();
        fault_at(draft, "http.cors_credentials", problem);
    }
}

fn tokens(draft: &mut Draft, config: &Config) {
    let access = &config.access;
    if access.jwt_keys.as_os_str().is_empty() {
        return;
    }
    if let Err(invalid) = access.jwt_limits() {
        fault_at(draft, "access.jwt_burst", invalid.to_string());
    }
    let in_clear = access.jwt_keys.to_str().and_then(|text| text.strip_prefix("http://"));
    if in_clear.is_some_and(|rest| !is_of_this_machine(rest)) {
        let problem = "keys that come over http:// may be anybody's: use https://".to_owned();
        fault_at(draft, "access.jwt_keys", problem);
    }
    let texts = [
        ("access.jwt_issuer", &access.jwt_issuer, "tokens of whom"),
        ("access.jwt_audience", &access.jwt_audience, "tokens for whom"),
    ];
    for (key, text, what) in texts {
        if text.is_empty() {
            let problem = format!("{what}? access.jwt_keys needs {key}");
            blame(draft, [key, "access.jwt_keys"], [problem.clone(), problem]);
        }
    }
}

fn traces(draft: &mut Draft, config: &Config) {
    let endpoint = &config.traces.endpoint;
    let rest = ["http://", "https://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let is_good = !host.is_empty() && !endpoint.contains(char::is_whitespace);
    if !endpoint.is_empty() && !is_good {
        let problem = format!(
            "expected the http:// or https:// URL of a collector, such as http://127.0.0.1:4318, \
             found {:?}",
            shown_url(endpoint)
        );
        fault_at(draft, "traces.endpoint", problem);
    }
}

/// Of a URL behind its scheme.
fn is_of_this_machine(rest: &str) -> bool {
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Ok(addr) = place.parse::<SocketAddr>() {
        return addr.ip().is_loopback();
    }
    let host = place.split_once(':').map_or(place, |(host, _)| host);
    let is_alone = !place.contains('@');
    is_alone && (host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()))
}

/// The tables of a list with their paths, such as `model[0]`.
fn listed(draft: &Draft, name: &str) -> Vec<(String, Table)> {
    let items = draft.root.get(name).and_then(Value::as_array);
    let tables = items.into_iter().flatten().filter_map(Value::as_table).cloned();
    tables.enumerate().map(|(n, table)| (format!("{name}[{n}]"), table)).collect()
}

fn text<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key)?.as_str()
}

fn fault_at(draft: &mut Draft, path: &str, problem: String) {
    if let Some(origin) = draft.origins.get(path).cloned() {
        draft.fault(origin, path, problem);
    }
}

fn line_of(draft: &Draft, path: &str) -> String {
    match draft.origins.get(path) {
        Some(ValueOrigin::File(_, Some(line))) => format!("line {line}"),
        _ => path.to_owned(),
    }
}

fn applications(draft: &mut Draft, known: Models) {
    let models = listed(draft, schema::MODEL_TABLES);
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (path, app) in listed(draft, schema::APPLICATION_TABLES) {
        let name_path = format!("{path}.name");
        if let Some(name) = text(&app, "name") {
            if let Some(first) = seen.get(name) {
                let problem = format!("application {name:?} exists: {}", line_of(draft, first));
                fault_at(draft, &name_path, problem);
            } else {
                seen.insert(name.to_owned(), name_path);
            }
        }
        let mut linked = Vec::new();
        linked.extend(text(&app, "model").map(|model| (format!("{path}.model"), model)));
        let more = app.get("models").and_then(Value::as_array);
        for model in more.into_iter().flatten().filter_map(Value::as_str) {
            linked.push((format!("{path}.models"), model));
        }
        for (key, model) in &linked {
            link(draft, &app, (key, model), (&models, known));
        }
        let distinct: BTreeSet<&str> = linked.iter().map(|(_, model)| *model).collect();
        let policy = app.get(schema::POLICY_TABLE).and_then(Value::as_table);
        let policy = policy.and_then(|policy| text(policy, "name")).unwrap_or(DEFAULT_POLICY);
        if distinct.len() > 1 && policy == DEFAULT_POLICY {
            let problem = "several models need a policy that chooses: [application.policy]";
            fault_at(draft, &format!("{path}.models"), problem.to_owned());
        }
    }
}

/// Checks one link of an application: its key and the model that it names.
fn link(
    draft: &mut Draft,
    app: &Table,
    (key, linked): (&str, &str),
    (models, known): (&[(String, Table)], Models),
) {
    let versions: Vec<_> =
        models.iter().filter(|(_, model)| text(model, "name") == Some(linked)).collect();
    if versions.is_empty() && known == Models::AllHere {
        let names = models.iter().filter_map(|(_, model)| text(model, "name"));
        let hint = schema::closest(linked, names.collect::<BTreeSet<_>>())
            .map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
        fault_at(draft, key, format!("no [[model]] is named {linked:?}{hint}"));
    }
    let kind = |table| text(table, "input_type").and_then(InputType::parse);
    for (other, model) in versions {
        let (Some(mine), Some(theirs)) = (kind(app), kind(model)) else { continue };
        if mine != theirs {
            let line = line_of(draft, &format!("{other}.input_type"));
            let version = text(model, "version").unwrap_or_default();
            let problem = format!(
                "the application takes {mine}, but version {version:?} of model {linked:?} takes \
                 {theirs} ({line}); they must be the same"
            );
            fault_at(draft, key, problem);
        }
    }
}

fn models(draft: &mut Draft, config: &Config, base_dir: &Path) {
    let mut seen: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut replicas = 0;
    for (path, model) in listed(draft, schema::MODEL_TABLES) {
        let name_path = format!("{path}.name");
        if let (Some(name), Some(version)) = (text(&model, "name"), text(&model, "version")) {
            let id = (name.to_owned(), version.to_owned());
            if let Some(first) = seen.get(&id) {
                let problem =
                    format!("model {name:?} version {version:?} exists: {}", line_of(draft, first));
                fault_at(draft, &name_path, problem);
            } else {
                seen.insert(id, name_path);
            }
        }
        let kind = text(&model, "input_type").and_then(InputType::parse);
        if model.contains_key(schema::SIGNATURE.name) && kind != Some(InputType::Tensors) {
            let problem = "only a model of type tensors has one".to_owned();
            fault_at(draft, &format!("{path}.{}", schema::SIGNATURE.name), problem);
        }
        let size = model.get("batch_size").and_then(Value::as_integer).unwrap_or(-1);
        if usize::try_from(size).is_ok_and(|size| size > config.serving.batch_max) {
            let max = config.serving.batch_max;
            let problem = format!("{size} is more than serving.batch_max, {max}");
            fault_at(draft, &format!("{path}.batch_size"), problem);
        }
        let Some(container) = model.get(schema::CONTAINER_TABLE).and_then(Value::as_table) else {
            continue;
        };
        let path = format!("{path}.{}", schema::CONTAINER_TABLE);
        let wanted = container.get("replicas").and_then(Value::as_integer).unwrap_or(1);
        replicas += usize::try_from(wanted).unwrap_or(0);
        if replicas > config.rpc.connections_max {
            let problem = format!(
                "{replicas} replicas of all models up to here, but rpc.connections_max is {}",
                config.rpc.connections_max
            );
            let replicas_path = format!("{path}.replicas");
            let blamed =
                if draft.origins.contains_key(&replicas_path) { &replicas_path } else { &path };
            fault_at(draft, blamed, problem);
        }
        container_files(draft, &path, container, base_dir);
    }
}

fn container_files(draft: &mut Draft, path: &str, container: &Table, base_dir: &Path) {
    let onnx = ["path", "library"];
    let onnx = onnx.into_iter().filter_map(|key| Some((key, text(container, key)?)));
    let python = text(container, "function")
        .and_then(split_python_function)
        .map(|(file, _)| ("function", file));
    for (key, file) in onnx.chain(python) {
        let file = base_dir.join(file);
        if !file.is_file() {
            let problem = format!("there is no file {}", file.display());
            fault_at(draft, &format!("{path}.{key}"), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_this_machine;

    #[test]
    fn only_this_machine_is_asked_in_clear() {
        for place in ["localhost/jwks", "127.0.0.1:8080/x", "[::1]:80/x", "localhost:8080"] {
            assert!(is_of_this_machine(place), "{place}");
        }
        for place in [
            "issuer.example/jwks",
            "localhost.example/x",
            "localhost@issuer.example/x",
            "localhost:1@issuer.example/x",
            "127.0.0.1:x@issuer.example/",
            "10.0.0.1:80/x",
            "",
        ] {
            assert!(!is_of_this_machine(place), "{place}");
        }
    }
}
