//! `[management]`: what the management frontend allows.

use serde::{Deserialize, Serialize};

/// `[management]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagementConfig {
    /// Who may have this server start processes by `POST /admin/deploy_model`.
    pub deploy: Deploy,
    /// Deployments under way.
    pub deploys_max: usize,
    /// Longest time of one, ms.
    pub deploy_timeout_max_ms: u64,
    /// Replicas of one.
    pub deploy_replicas_max: u32,
    /// Lines of a failed container's output that are shown.
    pub deploy_output_lines_max: usize,
}

/// Who may deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deploy {
    /// Nobody.
    Off,
    /// Who connects from this machine.
    Local,
    /// Whoever reaches the management frontend.
    Any,
}

impl Default for ManagementConfig {
    fn default() -> Self {
        Self {
            deploy: Deploy::Local,
            deploys_max: 4,
            deploy_timeout_max_ms: 600_000,
            deploy_replicas_max: 256,
            deploy_output_lines_max: 20,
        }
    }
}
