//! `clipper rollback`: what is served becomes what it was.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::plan::PlanArgs;
use super::remote::ServerArgs;

/// `clipper rollback`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Applications, models, links, policies and planned replicas become what they were right after the
event, or at the time. Keys stay as they are. A rollout that runs now and did not then is ended;
none is begun again. A rollback is a change like any other: another one undoes it.

Exits with 0 when it is done or there is nothing to do, 1 when the server refused or nobody said
yes, 2 when the command line is wrong, 3 when no server answers, and 4 when --dry-run has found
something to do.

Examples:
  clipper rollback --to 41 --dry-run
  clipper rollback --to 30m --app digits --yes
  clipper rollback --to 2026-11-27T03:00:00Z")]
pub(super) struct RollbackArgs {
    /// The event, or a time: as RFC 3339 has it, or so long ago, such as 30m or 2h.
    #[arg(long, value_name = "SEQ|TIME")]
    to: String,
    /// This application only: its definition and links, and the versions that its models had.
    #[arg(long, value_name = "APPLICATION")]
    app: Option<String>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl RollbackArgs {
    pub(super) fn run(&self) -> ExitCode {
        let mut body = json!({"to": self.to});
        if let Some(app) = &self.app {
            body["app_name"] = json!(app);
        }
        let ended =
            self.server.client().and_then(|client| self.plan.carry_out(&client, "rollback", &body));
        match ended {
            Ok(ended) => ended.code(),
            Err(failure) => failure.show(),
        }
    }
}
