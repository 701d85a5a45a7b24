//! The configuration: every key, its unit and its default; [`load`] reads it.
//!
//! `config/default.toml` documents the keys for users, [`schema`] says what each of them accepts.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod fault;
pub mod load;
pub mod management;
pub mod metrics;
pub mod rule;
pub mod schema;
mod validate;
mod walk;

use clipper_domain::{ModelId, ModelName, ModelVersion, OnModelError, Runtime};

pub use fault::{ConfigFaults, Fault, Origin};
pub use load::{Loaded, Override};
pub use management::{Deploy, ManagementConfig};
pub use metrics::MetricsConfig;

/// Everything that can be configured. Field names are the TOML keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where journal and policy state live.
    pub data_dir: PathBuf,
    /// Redis to share metadata with; absent = embedded.
    pub redis_url: Option<String>,
    /// How Redis is used, if `redis_url` is there.
    pub redis: RedisConfig,
    /// HTTP frontends.
    pub http: HttpConfig,
    /// What the management frontend allows.
    pub management: ManagementConfig,
    /// The RPC port for model containers.
    pub rpc: RpcConfig,
    /// The way of a query.
    pub serving: ServingConfig,
    /// Replicas and child processes.
    pub containers: ContainersConfig,
    /// The journal.
    pub journal: JournalConfig,
    /// Targets for Prometheus.
    pub metrics: MetricsConfig,
    /// Logs.
    pub log: LogConfig,
    /// Applications to register at start if missing.
    #[serde(rename = "application")]
    pub applications: Vec<ApplicationConfig>,
    /// Models to register, link and start at start if missing.
    #[serde(rename = "model")]
    pub models: Vec<ModelConfig>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Query frontend.
    pub query_addr: SocketAddr,
    /// Management frontend.
    pub management_addr: SocketAddr,
    /// Prometheus text.
    pub metrics_addr: SocketAddr,
    /// Threads of the query frontend; 0 = one per core.
    pub query_workers: usize,
    /// Largest request body, bytes; above it 413.
    pub body_max_bytes: usize,
    /// Open connections per frontend; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Listen backlog, connections.
    pub backlog: u32,
    /// Time for a client to send its request head, ms; then 408.
    pub client_request_timeout_ms: u64,
    /// Idle keep-alive connections are closed after this, ms.
    pub keep_alive_ms: u64,
    /// SIGTERM: in-flight queries get this long, ms.
    pub shutdown_timeout_ms: u64,
}

/// `[rpc]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RpcConfig {
    /// `tcp://host:port` that containers connect to.
    pub addr: String,
    /// Open container connections; further ones are refused.
    pub connections_max: usize,
    /// Connections that have not yet registered a model; for a further one the oldest gives way.
    pub pending_handshakes_max: usize,
    /// From accept to the new-container message, ms.
    pub handshake_timeout_ms: u64,
    /// A replica that has been silent this long is dropped, ms (protocol page: 30 s).
    pub silence_timeout_ms: u64,
    /// Messages in one second, other than answers that are awaited; above it, it is dropped.
    pub unasked_messages_per_second_max: u32,
    /// Frames of one message.
    pub frames_max: usize,
    /// Bytes of one frame.
    pub frame_max_bytes: usize,
    /// Bytes of one message, all its frames.
    pub message_max_bytes: usize,
    /// Bytes queued for a replica that does not read; above it, it is dropped.
    pub write_queue_max_bytes: usize,
    /// Longest text of a model's error, bytes; a replica that sends more is dropped.
    pub model_error_max_bytes: u32,
}

/// `[serving]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingConfig {
    /// Threads that run models' queues and replica connections.
    pub data_threads: usize,
    /// Queries being answered, whole process; above it 429.
    pub inflight_queries_max: usize,
    /// Queries waiting for one model version; above it the default output.
    pub model_queue_max: usize,
    /// Inputs in one request; above it 413.
    pub request_inputs_max: usize,
    /// Queries in one message to a replica, whatever the batch size says.
    pub batch_max: usize,
    /// Prediction cache, bytes of keys and values; 0 = off.
    pub cache_max_bytes: u64,
    /// How often one query may be sent to a replica, first try included.
    pub attempts_max: u32,
    /// The thread of a model that a lone caller asks stays awake so long for the next message, us;
    /// 0 = never.
    pub stay_awake_us: u64,
    /// What replicas have learned of their latency is saved this often, ms, if it has changed.
    pub learned_save_ms: u64,
    /// Bound of every actor's mailbox, messages.
    pub mailbox_max: usize,
}

/// `[containers]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainersConfig {
    /// First pause before a dead child is started again, ms; doubles each time.
    pub restart_backoff_initial_ms: u64,
    /// Longest pause, ms.
    pub restart_backoff_max_ms: u64,
    /// Quick deaths in a row (each within `restart_window_ms` of its start) after which a child is
    /// given up.
    pub restart_budget: u32,
    /// A child that lived this long has its budget back, ms.
    pub restart_window_ms: u64,
    /// SIGTERM to a child, then SIGKILL after this, ms.
    pub stop_grace_ms: u64,
    /// Bytes of one captured output line; the rest of it is cut.
    pub output_line_max_bytes: usize,
}

/// `[journal]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// A snapshot every so many events.
    pub snapshot_every_events: u64,
    /// Events older than the newest snapshot kept for `journal list`.
    pub keep_events: u64,
    /// Commands waiting to be written; above it 503.
    pub queue_max: usize,
    /// From a command's acceptance to its answer, ms; then 503, and it may still be written.
    pub commit_timeout_ms: u64,
    /// An acknowledgement waits this long for the actors to apply the change, ms; then it is
    /// logged.
    pub publish_timeout_ms: u64,
    /// Events waiting for one actor that does not apply them; above it, it is cut off.
    pub subscriber_queue_max: usize,
    /// Users whose policy state is kept; further ones have the initial state.
    pub policy_state_max_entries: usize,
    /// Policy state that no commit has flushed is flushed after this, ms.
    pub policy_state_flush_ms: u64,
    /// Page cache of the store, bytes.
    pub page_cache_bytes: u64,
}

/// `[redis]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// What to do with tables that came back without their data.
    pub on_data_loss: OnDataLoss,
    /// From the first packet to a usable connection, ms.
    pub connect_timeout_ms: u64,
    /// For each answer of Redis, ms; then the connection is made anew.
    pub command_timeout_ms: u64,
    /// From a management request to its answer, ms; then 503.
    pub change_timeout_ms: u64,
    /// How often a change is decided again after another frontend was first.
    pub conflict_retries_max: u32,
    /// First pause between attempts to connect, ms; doubles each time.
    pub backoff_initial_ms: u64,
    /// Longest pause, ms.
    pub backoff_max_ms: u64,
    /// A small look at the server this often, ms.
    pub pulse_interval_ms: u64,
    /// The whole tables are read again this often, ms.
    pub reconcile_interval_ms: u64,
    /// Rows of a frontend that is gone disappear after this, ms.
    pub lease_ms: u64,
    /// Notices that wait to be looked at; above it the whole tables are read.
    pub notices_max: usize,
    /// Changes that wait to be carried out; above it 503.
    pub queue_max: usize,
}

/// What to do with tables that came back without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Write them back from the journal.
    Restore,
    /// Take their emptiness as the truth.
    Adopt,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// text or json.
    pub format: LogFormat,
    /// A tracing filter.
    pub filter: String,
    /// Lines of one cause that one address can make the server write in one window.
    pub outsider_lines_max: u32,
    /// Length of that window, ms.
    pub outsider_window_ms: u64,
    /// Pairs of cause and address told apart in one window.
    pub outsider_sources_max: usize,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[application]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationConfig {
    /// Its name.
    pub name: String,
    /// bytes, integers, floats, doubles or strings.
    pub input_type: String,
    /// Sent when no model answers in time.
    pub default_output: String,
    /// The objective, microseconds.
    pub latency_slo_micros: i64,
    /// What a caller gets for a query that the model answers with an error.
    #[serde(default)]
    pub on_model_error: OnModelError,
    /// The model it queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// `[[model]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// bytes, integers, floats, doubles or strings.
    pub input_type: String,
    /// Queries a message; -1 = adaptive.
    #[serde(default = "adaptive")]
    pub batch_size: i64,
    /// Free labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How its replicas are started; absent = they connect by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerConfig>,
}

impl ModelConfig {
    /// Its id.
    ///
    /// # Errors
    /// A name that cannot be one.
    pub fn id(&self) -> Result<ModelId, String> {
        let name = ModelName::parse(&self.name).map_err(|e| format!("model name: {e}"))?;
        let version = ModelVersion::parse(&self.version);
        Ok(ModelId::new(name, version.map_err(|e| format!("model version: {e}"))?))
    }
}

fn adaptive() -> i64 {
    -1
}

/// `[model.container]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "runtime", rename_all = "lowercase", deny_unknown_fields)]
pub enum ContainerConfig {
    /// This binary again: `clipper container onnx`.
    Onnx {
        /// The model file; relative to the config file's folder.
        path: String,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
    /// A Python function: a list of inputs in, a list of outputs out.
    Python {
        /// `FILE.py:function`; relative to the config file's folder.
        function: String,
        /// The interpreter.
        #[serde(default = "python3")]
        python: String,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
    /// Anything that speaks the protocol.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
}

impl ContainerConfig {
    /// What each of its processes is.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        match self.clone() {
            Self::Onnx { path, .. } => Runtime::Onnx { path },
            Self::Python { function, python, .. } => Runtime::Python { function, python },
            Self::Command { command, .. } => Runtime::Command { command },
        }
    }

    /// Processes to keep alive.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        match self {
            Self::Onnx { replicas, .. }
            | Self::Python { replicas, .. }
            | Self::Command { replicas, .. } => *replicas,
        }
    }
}

fn one() -> u32 {
    1
}

fn python3() -> String {
    "python3".to_owned()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            redis_url: None,
            redis: RedisConfig::default(),
            http: HttpConfig::default(),
            management: ManagementConfig::default(),
            rpc: RpcConfig::default(),
            serving: ServingConfig::default(),
            containers: ContainersConfig::default(),
            journal: JournalConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            applications: Vec::new(),
            models: Vec::new(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            query_addr: loopback(1337),
            management_addr: loopback(1338),
            metrics_addr: loopback(1390),
            query_workers: 0,
            body_max_bytes: 16 << 20,
            connections_max: 25_000,
            backlog: 2048,
            client_request_timeout_ms: 10_000,
            keep_alive_ms: 75_000,
            shutdown_timeout_ms: 30_000,
        }
    }
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            addr: "tcp://127.0.0.1:7000".to_owned(),
            connections_max: 4096,
            pending_handshakes_max: 512,
            handshake_timeout_ms: 5_000,
            silence_timeout_ms: 30_000,
            unasked_messages_per_second_max: 1_000,
            frames_max: 8_192,
            frame_max_bytes: 64 << 20,
            message_max_bytes: 64 << 20,
            write_queue_max_bytes: 128 << 20,
            model_error_max_bytes: 4 << 10,
        }
    }
}

impl Default for ServingConfig {
    fn default() -> Self {
        Self {
            data_threads: 1,
            inflight_queries_max: 100_000,
            model_queue_max: 50_000,
            request_inputs_max: 10_000,
            batch_max: 4_096,
            cache_max_bytes: 32 << 20,
            attempts_max: 2,
            stay_awake_us: 300,
            learned_save_ms: 10_000,
            mailbox_max: 1_024,
        }
    }
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            restart_backoff_initial_ms: 100,
            restart_backoff_max_ms: 10_000,
            restart_budget: 20,
            restart_window_ms: 30_000,
            stop_grace_ms: 2_000,
            output_line_max_bytes: 8 << 10,
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            snapshot_every_events: 1_000,
            keep_events: 10_000,
            queue_max: 1_024,
            commit_timeout_ms: 10_000,
            publish_timeout_ms: 1_000,
            subscriber_queue_max: 4_096,
            policy_state_max_entries: 100_000,
            policy_state_flush_ms: 1_000,
            page_cache_bytes: 8 << 20,
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            on_data_loss: OnDataLoss::Restore,
            connect_timeout_ms: 1_000,
            command_timeout_ms: 1_000,
            change_timeout_ms: 1_500,
            conflict_retries_max: 50,
            backoff_initial_ms: 20,
            backoff_max_ms: 500,
            pulse_interval_ms: 500,
            reconcile_interval_ms: 60_000,
            lease_ms: 30_000,
            notices_max: 65_536,
            queue_max: 1_024,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,actix_server=warn".to_owned(),
            outsider_lines_max: 5,
            outsider_window_ms: 10_000,
            outsider_sources_max: 1_024,
        }
    }
}
