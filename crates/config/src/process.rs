//! `[model.process]`: what each process of one model's replicas may use.

use serde::{Deserialize, Serialize};

use super::containers::{self, Landlock, Network};
use super::key::{Key, key};

/// What is absent is as `[containers]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space_max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<Landlock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Beside those of `[containers]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_paths: Vec<String>,
    /// Likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_paths: Vec<String>,
}

impl ProcessConfig {
    /// Its keys, each with the rule of its namesake.
    pub const KEYS: &[Key] = &[
        key("address_space_max_bytes", containers::ADDRESS_SPACE),
        key("open_files_max", containers::OPEN_FILES),
        key("processes_max", containers::PROCESSES),
        key("cpu_seconds_max", containers::CPU_SECONDS),
        key("landlock", containers::LANDLOCK),
        key("network", containers::NETWORK),
        key("read_paths", super::rule::Rule::Paths),
        key("write_paths", super::rule::Rule::Paths),
    ];
}
