//! Everything that can be configured, as one value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::access::AccessConfig;
use super::access_log::AccessLogConfig;
use super::containers::ContainersConfig;
use super::dashboard::DashboardConfig;
use super::deploy::DeployConfig;
use super::entries::{ApplicationConfig, ModelConfig};
use super::explain::ExplainConfig;
use super::grpc::GrpcConfig;
use super::http::HttpConfig;
use super::journal::JournalConfig;
use super::log::LogConfig;
use super::management::ManagementConfig;
use super::metrics::MetricsConfig;
use super::redis::RedisConfig;
use super::rollouts::RolloutsConfig;
use super::rpc::RpcConfig;
use super::serving::ServingConfig;
use super::tls::TlsConfig;
use super::traces::TracesConfig;

/// Field names are the TOML keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where journal and policy state live.
    pub data_dir: PathBuf,
    /// Redis to share metadata with; absent = embedded.
    pub redis_url: Option<String>,
    /// How Redis is used, if `redis_url` is there.
    pub redis: RedisConfig,
    pub http: HttpConfig,
    pub grpc: GrpcConfig,
    pub access: AccessConfig,
    pub tls: TlsConfig,
    /// What the management frontend allows.
    pub management: ManagementConfig,
    /// The pages of the management frontend.
    pub dashboard: DashboardConfig,
    /// What deployments may start.
    pub deploy: DeployConfig,
    /// The RPC port for model containers.
    pub rpc: RpcConfig,
    /// The way of a query.
    pub serving: ServingConfig,
    /// Which queries are remembered.
    pub explain: ExplainConfig,
    /// Requests as spans.
    pub traces: TracesConfig,
    pub rollouts: RolloutsConfig,
    /// Replicas and child processes.
    pub containers: ContainersConfig,
    pub journal: JournalConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub access_log: AccessLogConfig,
    /// Applications to register at start if missing.
    #[serde(rename = "application")]
    pub applications: Vec<ApplicationConfig>,
    /// Models to register, link and start at start if missing.
    #[serde(rename = "model")]
    pub models: Vec<ModelConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            redis_url: None,
            redis: RedisConfig::default(),
            http: HttpConfig::default(),
            grpc: GrpcConfig::default(),
            access: AccessConfig::default(),
            tls: TlsConfig::default(),
            management: ManagementConfig::default(),
            dashboard: DashboardConfig::default(),
            deploy: DeployConfig::default(),
            rpc: RpcConfig::default(),
            serving: ServingConfig::default(),
            explain: ExplainConfig::default(),
            traces: TracesConfig::default(),
            rollouts: RolloutsConfig::default(),
            containers: ContainersConfig::default(),
            journal: JournalConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            access_log: AccessLogConfig::default(),
            applications: Vec::new(),
            models: Vec::new(),
        }
    }
}
