//! `[metrics]`: where Prometheus learns of containers with metrics of their own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// The file of targets, in Prometheus' format for file-based discovery; empty = none.
    pub file_sd_path: PathBuf,
    /// Shortest time between two versions of the file, ms.
    pub file_sd_pause_ms: u64,
    /// Where a container that does not announce its metrics is asked for them, at its address;
    /// 0 = it is not asked.
    pub container_port: u16,
    /// Containers asked at the same time.
    pub probes_max: usize,
    /// For the whole answer of a container, ms.
    pub probe_timeout_ms: u64,
    /// Bytes that are read of the answer.
    pub probe_max_bytes: u64,
    /// How often a container is asked before it counts as one without metrics.
    pub probe_attempts_max: u32,
    /// Time between two attempts, ms.
    pub probe_interval_ms: u64,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            file_sd_path: PathBuf::new(),
            file_sd_pause_ms: 100,
            container_port: 1390,
            probes_max: 32,
            probe_timeout_ms: 1_000,
            probe_max_bytes: 1 << 20,
            probe_attempts_max: 10,
            probe_interval_ms: 1_000,
        }
    }
}
