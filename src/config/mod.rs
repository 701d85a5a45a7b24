//! The configuration: every key, its unit and its default; [`load`] reads it.
//!
//! `config/default.toml` documents the keys for users, [`schema`] says what each of them accepts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod containers;
pub mod document;
pub mod fault;
mod http;
mod journal;
pub mod load;
mod log;
mod management;
mod metrics;
mod policy;
mod redis;
mod rpc;
pub mod rule;
pub mod schema;
mod section;
mod serving;
mod validate;
mod walk;

use clipper_domain::{ModelId, ModelName, ModelVersion, OnModelError, OnnxEngine, Runtime};

pub use self::redis::{OnDataLoss, RedisConfig};
pub use containers::ContainersConfig;
pub use fault::{ConfigFaults, Fault, Origin};
pub use http::HttpConfig;
pub use journal::JournalConfig;
pub use load::{Loaded, Override};
pub use log::{LogConfig, LogFormat};
pub use management::{Deploy, ManagementConfig};
pub use metrics::MetricsConfig;
pub use policy::PolicyConfig;
pub use rpc::RpcConfig;
pub use serving::ServingConfig;

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
    /// Whether its queries may be answered from the prediction cache.
    #[serde(default = "yes")]
    pub cache: bool,
    /// Its part of a model that it shares with others.
    #[serde(default = "one")]
    pub weight: u32,
    /// The model it queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// More models, for a policy that chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Which of them are asked; absent = the one model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyConfig>,
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
    /// Whether its outputs may be kept in the prediction cache.
    #[serde(default = "yes")]
    pub cache: bool,
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

fn yes() -> bool {
    true
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
        /// What computes it.
        #[serde(default)]
        engine: OnnxEngine,
        /// ONNX Runtime's library; relative likewise.
        #[serde(default)]
        library: Option<String>,
        /// Threads that compute a batch.
        #[serde(default)]
        threads: Option<u32>,
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
            Self::Onnx { path, engine, library, threads, .. } => {
                Runtime::Onnx { path, engine, library, threads }
            }
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
