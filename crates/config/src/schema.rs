//! Every key and the rule it follows.
//!
//! A test compares this with the structs and with the documented file.

use super::access::AccessConfig;
use super::access_log::AccessLogConfig;
use super::containers::ContainersConfig;
use super::dashboard::DashboardConfig;
use super::deploy::DeployConfig;
use super::explain::ExplainConfig;
use super::grpc::GrpcConfig;
use super::http::HttpConfig;
use super::journal::JournalConfig;
pub use super::key::{Flag, Key};
use super::key::{key, needed};
use super::log::LogConfig;
use super::management::ManagementConfig;
use super::metrics::MetricsConfig;
use super::redis::RedisConfig;
use super::rollouts::RolloutsConfig;
use super::rpc::RpcConfig;
use super::rule::{RUNTIMES, Rule};
use super::serving::ServingConfig;
use super::tls::TlsConfig;
use super::traces::TracesConfig;
use clipper_domain::limits::Class;
use clipper_domain::{Limits, OnModelError, OnnxEngine, Weight};

/// Keys above the first table.
pub const TOP: &[Key] = &[
    Key {
        doc: &[
            " Where journal and policy state live; relative to the working directory. One server",
            " owns a directory at a time.",
        ],
        flag: Some(Flag { name: "data-dir", value: "DIR" }),
        ..key("data_dir", Rule::Text)
    },
    Key {
        doc: &[
            " Redis to share metadata with other frontends and the original's tools. Without it",
            " (the default) the journal in data_dir is the only store.",
            " redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS,",
            " redis+unix:///PATH[?db=DB] for a Unix socket. The seven tables are the databases",
            " after DB: 1 to 7 of the whole server if it is left out. Cluster is not supported;",
            " redis+sentinel://HOST:PORT[,HOST:PORT...]/SERVICE[/DB] asks sentinels for the",
            " primary.",
        ],
        flag: Some(Flag { name: "redis-url", value: "redis://HOST:PORT" }),
        ..key("redis_url", Rule::RedisUrl)
    },
];

/// The tables that occur once, in the order of the documented file.
pub const SECTIONS: &[(&str, &[Key])] = &[
    ("redis", RedisConfig::KEYS),
    ("http", HttpConfig::KEYS),
    ("grpc", GrpcConfig::KEYS),
    ("access", AccessConfig::KEYS),
    ("tls", TlsConfig::KEYS),
    ("management", ManagementConfig::KEYS),
    ("dashboard", DashboardConfig::KEYS),
    ("deploy", DeployConfig::KEYS),
    ("rpc", RpcConfig::KEYS),
    ("serving", ServingConfig::KEYS),
    ("explain", ExplainConfig::KEYS),
    ("traces", TracesConfig::KEYS),
    ("rollouts", RolloutsConfig::KEYS),
    ("containers", ContainersConfig::KEYS),
    ("journal", JournalConfig::KEYS),
    ("metrics", MetricsConfig::KEYS),
    ("log", LogConfig::KEYS),
    ("access_log", AccessLogConfig::KEYS),
];

/// The list of applications.
pub const APPLICATION_TABLES: &str = "application";

/// Keys of `[[application]]`, without the tables [`POLICY_TABLE`] and [`LIMITS_TABLE`].
pub const APPLICATION: &[Key] = &[
    needed("name", Rule::Name),
    needed("input_type", Rule::InputType),
    needed("default_output", Rule::DefaultOutput),
    needed("latency_slo_micros", Rule::Slo),
    key("on_model_error", Rule::Choice(OnModelError::NAMES)),
    key("cache", Rule::Bool),
    key("weight", Rule::int(Weight::RANGE.0, Weight::RANGE.1, "parts")),
    key("model", Rule::Name),
    key("models", Rule::Names),
    key("absent_models", Rule::Names),
];

/// The table of an application that names its policy; its other keys are the policy's parameters.
pub const POLICY_TABLE: &str = "policy";

/// The table of an application that says how much its clients may ask for.
pub const LIMITS_TABLE: &str = "limits";

const QUERIES_MAX: i64 = Limits::QUERIES_MAX as i64;

/// Keys of [`LIMITS_TABLE`].
pub const LIMITS: &[Key] = &[
    key("rate", Rule::int(1, QUERIES_MAX, "queries a second")),
    key("burst", Rule::int(1, QUERIES_MAX, "queries")),
    key("concurrent", Rule::int(1, QUERIES_MAX, "queries")),
    key("body_bytes", Rule::bytes()),
    key("priority", Rule::Choice(Class::NAMES)),
];

/// The list of models.
pub const MODEL_TABLES: &str = "model";

/// Keys of `[[model]]`, without the tables [`CONTAINER_TABLE`], [`PROCESS_TABLE`] and
/// [`SIGNATURE`].
pub const MODEL: &[Key] = &[
    needed("name", Rule::Name),
    needed("version", Rule::Name),
    needed("input_type", Rule::InputType),
    key("batch_size", Rule::BatchSize),
    key("labels", Rule::Names),
    key("cache", Rule::Bool),
    key("current", Rule::Bool),
    key("container_name", Rule::AnyText),
    key("model_data_path", Rule::AnyText),
];

/// The table of a model of type tensors that says which they are.
pub const SIGNATURE: Key = key("signature", Rule::Signature);

/// The table of a model that says how its replicas are started.
pub const CONTAINER_TABLE: &str = "container";

/// The table of a model that says what each process of its replicas may use.
pub const PROCESS_TABLE: &str = "process";

/// The key of [`CONTAINER_TABLE`] that chooses its other keys.
pub const RUNTIME: Key = needed("runtime", Rule::Choice(&RUNTIMES));

/// Replicas; `rpc.connections_max` limits the sum over all models.
const REPLICAS: Key = key("replicas", Rule::count("processes"));

/// Keys of `[model.container]` by runtime.
pub const CONTAINER: &[(&str, &[Key])] = &[
    (
        "onnx",
        &[
            RUNTIME,
            needed("path", Rule::Text),
            key("engine", Rule::Choice(&OnnxEngine::NAMES)),
            key("library", Rule::Text),
            key("threads", Rule::count("threads")),
            REPLICAS,
        ],
    ),
    (
        "python",
        &[RUNTIME, needed("function", Rule::PythonFunction), key("python", Rule::Text), REPLICAS],
    ),
    ("command", &[RUNTIME, needed("command", Rule::CommandLine), REPLICAS]),
];

/// Variables that set the log filter, the last one above the first.
pub const LOG_VARIABLES: [&str; 2] = ["RUST_LOG", "CLIPPER_LOG"];

/// Environment variables with a name of their own, and the paths of their keys.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    let log = LOG_VARIABLES.map(|name| (name.to_owned(), "log.filter".to_owned()));
    let flags = flags().map(|(path, _, flag)| (flag.variable(), path));
    log.into_iter().chain(flags)
}

/// Keys with a flag, and their dotted paths.
pub fn flags() -> impl Iterator<Item = (String, &'static Key, Flag)> {
    keys().filter_map(|(path, key)| Some((path, key, key.flag?)))
}

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

/// All keys outside the lists of tables, with their dotted paths.
pub fn keys() -> impl Iterator<Item = (String, &'static Key)> {
    let top = TOP.iter().map(|key| (key.name.to_owned(), key));
    top.chain(SECTIONS.iter().flat_map(|(section, keys)| {
        keys.iter().map(move |key| (format!("{section}.{}", key.name), key))
    }))
}

/// Dotted paths of [`keys`].
pub fn paths() -> impl Iterator<Item = String> {
    keys().map(|(path, _)| path)
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
