//! The configuration: every key, its unit and its default; [`load`] reads it.
//!
//! `config/default.toml` documents the keys for users, [`schema`] says what each of them accepts.

mod access;
mod containers;
mod dashboard;
mod deploy;
pub mod document;
mod entries;
pub mod fault;
mod grpc;
mod http;
mod journal;
mod key;
pub mod lists;
pub mod load;
mod log;
mod management;
mod metrics;
mod network;
mod policy;
mod process;
mod redis;
mod rollouts;
mod root;
mod rpc;
pub mod rule;
pub mod schema;
mod section;
mod serving;
mod tls;
mod validate;
mod walk;

pub use self::redis::{OnDataLoss, RedisConfig};
pub use access::AccessConfig;
pub use containers::{ContainersConfig, Landlock, Network as ChildNetwork};
pub use dashboard::DashboardConfig;
pub use deploy::DeployConfig;
pub use entries::{ApplicationConfig, ContainerConfig, InvalidId, ModelConfig};
pub use fault::{ConfigFaults, Fault, ValueOrigin};
pub use grpc::GrpcConfig;
pub use http::HttpConfig;
pub use journal::JournalConfig;
pub use lists::Lists;
pub use load::{Loaded, Override};
pub use log::{LogConfig, LogFormat};
pub use management::{Deploy, ManagementConfig};
pub use metrics::MetricsConfig;
pub use network::Network;
pub use policy::PolicyConfig;
pub use process::ProcessConfig;
pub use rollouts::RolloutsConfig;
pub use root::Config;
pub use rpc::RpcConfig;
pub use serving::ServingConfig;
pub use tls::{TlsConfig, TlsVersion};
