//! Every key and the rule it follows.
//!
//! A test compares this with the structs and with the documented file.

use super::rule::Rule;
use clipper_domain::OnModelError;

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it accepts.
    pub rule: Rule,
    /// Whether its table is faulty without it.
    pub required: bool,
}

const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule, required: false }
}

const fn needed(name: &'static str, rule: Rule) -> Key {
    Key { name, rule, required: true }
}

const fn int(name: &'static str, min: i64, max: i64, unit: &'static str) -> Key {
    key(name, Rule::Int { min, max, unit })
}

/// Milliseconds up to a day, from 1.
const fn millis(name: &'static str) -> Key {
    int(name, 1, 86_400_000, "milliseconds")
}

/// Bytes up to a tebibyte, from 1.
const fn bytes(name: &'static str) -> Key {
    int(name, 1, 1 << 40, "bytes")
}

/// A count up to ten million, from 1.
const fn count(name: &'static str, unit: &'static str) -> Key {
    int(name, 1, 10_000_000, unit)
}

/// Keys above the first table.
pub const TOP: &[Key] = &[key("data_dir", Rule::Text), key("redis_url", Rule::RedisUrl)];

/// The tables that occur once.
pub const SECTIONS: &[(&str, &[Key])] = &[
    ("redis", REDIS),
    ("http", HTTP),
    ("management", MANAGEMENT),
    ("rpc", RPC),
    ("serving", SERVING),
    ("containers", CONTAINERS),
    ("journal", JOURNAL),
    ("metrics", METRICS),
    ("log", LOG),
];

const REDIS: &[Key] = &[
    key("on_data_loss", Rule::Choice(&["restore", "adopt"])),
    millis("connect_timeout_ms"),
    millis("command_timeout_ms"),
    millis("change_timeout_ms"),
    int("conflict_retries_max", 0, 1_000_000, "retries"),
    millis("backoff_initial_ms"),
    millis("backoff_max_ms"),
    millis("pulse_interval_ms"),
    millis("reconcile_interval_ms"),
    int("lease_ms", 1_000, 86_400_000, "milliseconds"),
    count("notices_max", "notices"),
    count("queue_max", "commands"),
];

const HTTP: &[Key] = &[
    key("query_addr", Rule::Address),
    key("management_addr", Rule::Address),
    key("metrics_addr", Rule::Address),
    int("query_workers", 0, 1_024, "threads"),
    bytes("body_max_bytes"),
    count("connections_max", "connections"),
    int("backlog", 1, 65_535, "connections"),
    millis("client_request_timeout_ms"),
    int("keep_alive_ms", 0, 86_400_000, "milliseconds"),
    int("shutdown_timeout_ms", 0, 86_400_000, "milliseconds"),
];

const MANAGEMENT: &[Key] = &[
    key("deploy", Rule::Choice(&["off", "local", "any"])),
    count("deploys_max", "deployments"),
    millis("deploy_timeout_max_ms"),
    count("deploy_replicas_max", "replicas"),
    int("deploy_output_lines_max", 1, 1_000, "lines"),
];

const RPC: &[Key] = &[
    key("addr", Rule::RpcAddress),
    count("connections_max", "connections"),
    count("pending_handshakes_max", "connections"),
    millis("handshake_timeout_ms"),
    millis("silence_timeout_ms"),
    count("unasked_messages_per_second_max", "messages"),
    count("frames_max", "frames"),
    bytes("frame_max_bytes"),
    bytes("message_max_bytes"),
    bytes("write_queue_max_bytes"),
    int("model_error_max_bytes", 64, 1 << 20, "bytes"),
];

const SERVING: &[Key] = &[
    int("data_threads", 1, 1_024, "threads"),
    count("inflight_queries_max", "queries"),
    count("model_queue_max", "queries"),
    count("request_inputs_max", "inputs"),
    count("batch_max", "queries"),
    int("cache_max_bytes", 0, 1 << 40, "bytes"),
    int("attempts_max", 1, 100, "attempts"),
    int("stay_awake_us", 0, 10_000, "microseconds"),
    int("learned_save_ms", 10, 86_400_000, "milliseconds"),
    count("mailbox_max", "messages"),
];

const CONTAINERS: &[Key] = &[
    millis("restart_backoff_initial_ms"),
    millis("restart_backoff_max_ms"),
    int("restart_budget", 0, 1_000_000, "restarts"),
    millis("restart_window_ms"),
    millis("stop_grace_ms"),
    bytes("output_line_max_bytes"),
];

const JOURNAL: &[Key] = &[
    int("snapshot_every_events", 1, 1_000_000_000, "events"),
    int("keep_events", 0, 1_000_000_000, "events"),
    count("queue_max", "commands"),
    int("commit_timeout_ms", 1, 3_600_000, "ms"),
    int("publish_timeout_ms", 1, 3_600_000, "ms"),
    count("subscriber_queue_max", "events"),
    count("policy_state_max_entries", "entries"),
    int("policy_state_flush_ms", 1, 3_600_000, "ms"),
    int("page_cache_bytes", 1 << 16, 1 << 40, "bytes"),
];

const METRICS: &[Key] = &[
    key("file_sd_path", Rule::AnyText),
    int("file_sd_pause_ms", 0, 86_400_000, "milliseconds"),
    int("container_port", 0, 65_535, "port"),
    count("probes_max", "containers"),
    millis("probe_timeout_ms"),
    bytes("probe_max_bytes"),
    int("probe_attempts_max", 0, 1_000_000, "attempts"),
    millis("probe_interval_ms"),
];

const LOG: &[Key] = &[
    key("format", Rule::Choice(&["text", "json"])),
    key("filter", Rule::Filter),
    count("outsider_lines_max", "lines"),
    millis("outsider_window_ms"),
    count("outsider_sources_max", "sources"),
];

/// The list of applications.
pub const APPLICATION_TABLES: &str = "application";

/// Keys of `[[application]]`.
pub const APPLICATION: &[Key] = &[
    needed("name", Rule::Name),
    needed("input_type", Rule::InputType),
    needed("default_output", Rule::AnyText),
    needed("latency_slo_micros", Rule::Slo),
    key("on_model_error", Rule::Choice(OnModelError::NAMES)),
    key("model", Rule::Name),
];

/// The list of models.
pub const MODEL_TABLES: &str = "model";

/// Keys of `[[model]]`, without the table [`CONTAINER_TABLE`].
pub const MODEL: &[Key] = &[
    needed("name", Rule::Name),
    needed("version", Rule::Name),
    needed("input_type", Rule::InputType),
    key("batch_size", Rule::BatchSize),
    key("labels", Rule::Names),
];

/// The table of a model that says how its replicas are started.
pub const CONTAINER_TABLE: &str = "container";

/// The key of [`CONTAINER_TABLE`] that chooses its other keys.
pub const RUNTIME: Key = needed("runtime", Rule::Choice(&["onnx", "python", "command"]));

/// Replicas; `rpc.connections_max` limits the sum over all models.
const REPLICAS: Key = count("replicas", "processes");

/// Keys of `[model.container]` by runtime.
pub const CONTAINER: &[(&str, &[Key])] = &[
    ("onnx", &[RUNTIME, needed("path", Rule::Text), REPLICAS]),
    (
        "python",
        &[RUNTIME, needed("function", Rule::PythonFunction), key("python", Rule::Text), REPLICAS],
    ),
    ("command", &[RUNTIME, needed("command", Rule::CommandLine), REPLICAS]),
];

/// Environment variables with a name of their own, and their keys.
///
/// `RUST_LOG` comes first so that `CLIPPER_LOG` overrides it.
pub const ENV_ALIASES: &[(&str, &str)] = &[
    ("RUST_LOG", "log.filter"),
    ("CLIPPER_LOG", "log.filter"),
    ("CLIPPER_LOG_FORMAT", "log.format"),
    ("CLIPPER_QUERY_ADDR", "http.query_addr"),
    ("CLIPPER_MANAGEMENT_ADDR", "http.management_addr"),
    ("CLIPPER_METRICS_ADDR", "http.metrics_addr"),
    ("CLIPPER_RPC_ADDR", "rpc.addr"),
    ("CLIPPER_REDIS_URL", "redis_url"),
    ("CLIPPER_DATA_DIR", "data_dir"),
];

/// The keys of a table that occurs once; `""` is the top.
#[must_use]
pub fn section(name: &str) -> Option<&'static [Key]> {
    if name.is_empty() {
        return Some(TOP);
    }
    SECTIONS.iter().find(|(section, _)| *section == name).map(|(_, keys)| *keys)
}

/// The key with a dotted path such as `http.query_addr` or `data_dir`.
#[must_use]
pub fn by_path(path: &str) -> Option<&'static Key> {
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    section(table)?.iter().find(|key| key.name == name)
}

/// Dotted paths of all keys outside the lists of tables.
pub fn paths() -> impl Iterator<Item = String> {
    let top = TOP.iter().map(|key| key.name.to_owned());
    top.chain(
        SECTIONS.iter().flat_map(|(section, keys)| {
            keys.iter().map(move |key| format!("{section}.{}", key.name))
        }),
    )
}

/// The word among `candidates` that was most likely meant by `word`, if any is near.
#[must_use]
pub fn closest<S: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
    let word = word.to_lowercase().replace('-', "_");
    let near = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&word, &candidate.as_ref().to_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
