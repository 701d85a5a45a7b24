//! `[management]`: what the management frontend allows.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;

section! {
    /// `[management]`: what the management frontend allows.
    pub struct ManagementConfig {
        /// Who may have this server start processes, by `clipper deploy` or POST
        /// /admin/deploy_model: "local" is whoever connects from this machine, "any" whoever
        /// reaches the management frontend, "off" nobody. The processes run as the server's user:
        /// on a machine whose users do not trust each other say "off".
        deploy: Deploy = Deploy::Local, Rule::Choice(&["off", "local", "any"]);

        /// Deployments under way; above it a further one is refused.
        deploys_max: usize = 4, Rule::count("deployments");

        /// Longest time of one deployment, milliseconds, whatever its request says.
        deploy_timeout_max_ms: u64 = 600_000, Rule::millis();

        /// Replicas of one deployment.
        deploy_replicas_max: u32 = 256, Rule::count("replicas");

        /// Last lines of a failed container's output that its deployment shows.
        deploy_output_lines_max: usize = 20, Rule::int(1, 1_000, "lines");
    }
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
