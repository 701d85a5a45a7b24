//! `[management]`: what the management frontend allows.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;
use clipper_domain::OldReplicas;

section! {
    /// `[management]`: what the management frontend allows.
    pub struct ManagementConfig {
        /// Who may have this server start processes, by `clipper deploy` or POST
        /// /admin/deploy_model: "local" is whoever connects from this machine or has a key of the
        /// role admin, "any" whoever reaches the management frontend, "off" nobody. The processes
        /// run as the server's user: on a machine whose users do not trust each other say "off".
        deploy: Deploy = Deploy::Local, Rule::Choice(&["off", "local", "any"]);

        /// Looks at the config file this often, milliseconds, and reads it again when it is another
        /// one: its applications, models and containers take effect as they do on SIGHUP. 0: on
        /// SIGHUP alone, so that saving a file changes nothing yet.
        follow_config_ms: u64 = 0, Rule::int(0, 86_400_000, "milliseconds");

        /// Names by which browsers and others may call this frontend, beside addresses, localhost
        /// and names without a dot: a request whose Host is another gets 403, so that no page of a
        /// stranger reaches it by a name of his that leads here.
        hosts: Vec<String> = Vec::new(), Rule::Names;

        /// Sites whose pages may manage this server (CORS), each by its name, such as
        /// "https://ops.example.com"; with keys and roles as any other client. None (the default):
        /// only its own pages. Deployments are taken from no page.
        cors_origins: Vec<String> = Vec::new(), Rule::Origins { any: false };

        /// Whether browsers may send such requests with the certificate of their user.
        cors_credentials: bool = false, Rule::Bool;

        /// Whether changes are taken whatever their content type, as the original does. Otherwise
        /// they have to be application/json, which no web page can send to another site unasked.
        /// clipper_admin sends that.
        legacy_content_types: bool = false, Rule::Bool;

        /// Deployments under way; above it a further one is refused.
        deploys_max: usize = 4, Rule::count("deployments");

        /// Longest time of one deployment, milliseconds, whatever its request says.
        deploy_timeout_max_ms: u64 = 600_000, Rule::millis();

        /// Replicas of one deployment.
        deploy_replicas_max: u32 = 256, Rule::count("replicas");

        /// Last lines of a failed container's output that its deployment shows.
        deploy_output_lines_max: usize = 20, Rule::int(1, 1_000, "lines");

        /// Replicas of earlier versions that go on when a deployed version has become the current
        /// one: "previous" are those of the version before, so that going back is one command;
        /// "all" keeps every version's processes. The versions themselves stay registered.
        deploy_old_replicas: OldReplicas = OldReplicas::Previous,
            Rule::Choice(&["previous", "all"]);

        /// A new version's replicas are warmed up this long at most before queries go to it,
        /// milliseconds; 0: not at all. Batches of growing size, made of the trial inputs, teach
        /// what the model costs, so that its first real batch is not cut into small ones.
        deploy_warm_up_ms: u64 = 3_000, Rule::int(0, 86_400_000, "milliseconds");
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
