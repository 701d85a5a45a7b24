//! `clipper rollout ...`: move an application's queries to another version of its model.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::remote::{Outcome, ServerArgs, Shown, VerbFailure, ended, understood};
use clipper_domain::rollout::guard::Guard;
use clipper_domain::rollout::plan::RolloutKind;
use clipper_domain::rollout::progress::{GuardProgress, RolloutDescription};
use clipper_tools::admin::Client;

/// `clipper rollout`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 when done, 1 when the server refused, 2 when the command line is wrong and 3 when no
server answers.

Examples:
  clipper rollout start digits --from m:1 --to m:2 --steps 1,5,25,50,100 --hold 5m \\
      --guard 'errors<1%' --guard 'p99<slo' --guard 'disagreement<2%'
  clipper rollout status digits
  clipper rollout promote digits
  clipper rollout abort digits --reason 'the wrong file'")]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
enum RolloutVerb {
    /// Begin with the first step.
    Start(StartArgs),
    /// Print how the rollout stands that runs, or that ran last.
    Status {
        /// The application.
        app: String,
    },
    /// Make the new version the current one, at once.
    Promote {
        /// The application.
        app: String,
    },
    /// Go back to the old version.
    Abort {
        /// The application.
        app: String,
    },
}

#[derive(Debug, Args)]
struct StartArgs {
    /// The application.
    app: String,
    /// The current version.
    #[arg(long, value_name = "MODEL:VERSION")]
    from: String,
    /// The new version, registered and not current.
    #[arg(long, value_name = "MODEL:VERSION")]
    to: String,
    /// shadow (the new version gets copies of queries), canary (it answers a growing part of them)
    /// or ab (it answers a part until an operator ends it).
    #[arg(long, default_value = "canary", value_parser = RolloutKind::parse)]
    kind: RolloutKind,
    /// The parts of the queries, percent.
    #[arg(
        long,
        value_name = "PERCENT,...",
        value_delimiter = ',',
        default_value = "1,5,25,50,100"
    )]
    steps: Vec<f64>,
    /// How long each step lasts at least: 30s, 5m, 2h.
    #[arg(long, value_name = "TIME", default_value = "5m",
          value_parser = super::value::time_with_unit)]
    hold: Duration,
    /// What ends it when it is broken, such as errors<1%, p99<slo, p95<50ms, disagreement<2%,
    /// loss<=baseline; may be given more than once.
    #[arg(long = "guard", value_name = "GUARD", value_parser = Guard::parse)]
    guards: Vec<Guard>,
    /// So much each guard looks at before a step is left.
    #[arg(long, value_name = "N")]
    min_queries: Option<u64>,
}

impl RolloutArgs {
    pub(super) fn run(&self) -> ExitCode {
        ended(self.server.client().and_then(|client| self.once(&client)), self.json)
    }

    fn once(&self, client: &Client) -> Outcome {
        let change = |endpoint: &str, body: &Value| Ok(Shown::done(client.post(endpoint, body)?));
        match &self.verb {
            RolloutVerb::Start(start) => change("start_rollout", &start.body()),
            RolloutVerb::Status { app } => status(client, app),
            RolloutVerb::Promote { app } => change("promote_rollout", &json!({"app_name": app})),
            RolloutVerb::Abort { app } => {
                let mut body = json!({"app_name": app});
                if let Some(reason) = self.server.reason() {
                    body["reason"] = json!(reason);
                }
                change("abort_rollout", &body)
            }
        }
    }
}

impl StartArgs {
    fn body(&self) -> Value {
        let hold_ms = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
        let mut body = json!({"app_name": self.app, "from": self.from, "to": self.to,
            "kind": self.kind, "steps": self.steps, "hold_ms": hold_ms, "guards": self.guards});
        if let Some(min_queries) = self.min_queries {
            body["min_queries"] = json!(min_queries);
        }
        body
    }
}

fn status(client: &Client, app: &str) -> Outcome {
    let json = client.ask("get_rollout", &json!({"app_name": app}))?;
    if json.as_object().is_some_and(serde_json::Map::is_empty) {
        let why =
            format!("Application '{app}' has had no rollout, or there is no such application");
        return Err(VerbFailure::Said(why));
    }
    let rollout: RolloutDescription = understood(client, "get_rollout", &json)?;
    Ok(Shown { text: shown(&rollout), json })
}

fn shown(rollout: &RolloutDescription) -> String {
    let steps: Vec<String> = rollout.steps.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "{} from {} to {}: {}\nstep {} of {} ({} of {}), each held {} s\n{} queries exposed",
        rollout.kind,
        rollout.from,
        rollout.to,
        rollout.state,
        rollout.step,
        rollout.steps.len(),
        rollout.percent,
        steps.join(", "),
        rollout.hold_ms as f64 / 1e3,
        rollout.live.exposed
    );
    if let Some(why) = &rollout.why {
        // A text takes everything.
        let _ = write!(text, "\n{why}");
    }
    if rollout.end.is_none() {
        let _ = write!(text, "\nwaits for {}", rollout.live.waits_for);
    }
    for guard in &rollout.live.guards {
        text += &line(guard);
    }
    text
}

fn line(progress: &GuardProgress) -> String {
    let GuardProgress { guard, seen, value, bound, alarm } = progress;
    let part = |part: &Option<f64>| part.map_or("-".to_owned(), |p| format!("{:.2}%", p * 100.0));
    format!(
        "\n  {guard:<20} {} of {seen}, bound {}, alarm {:.0}%",
        part(value),
        part(bound),
        alarm * 100.0
    )
}
