//! `clipper top`

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::{UNREACHABLE, answer, answer_json, exit};
use super::remote::{KeyArg, TlsArgs};
use super::value::Expected;
use clipper_tools::top::view::View;
use clipper_tools::top::{self, TopOptions, grid};

/// `clipper top`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q quits, n t l d sort by name, throughput, latency and defaults, ? explains.

Rates and percentiles are those of the time between two looks at the server's metrics.

Examples:
  clipper top
  clipper top --query-url http://10.0.0.7:1337 --management-url http://10.0.0.7:1338
  clipper top --once
  clipper top --json --interval 10")]
pub(super) struct TopArgs {
    /// The query frontend, for its metrics.
    #[arg(long, default_value = "http://127.0.0.1:1337", value_name = "http://HOST:PORT",
          value_parser = http_url)]
    query_url: String,
    /// The management frontend, for definitions and replicas.
    #[arg(long, default_value = "http://127.0.0.1:1338", value_name = "http://HOST:PORT",
          env = "CLIPPER_MANAGEMENT_URL",
          value_parser = http_url)]
    management_url: String,
    #[command(flatten)]
    key: KeyArg,
    /// Between two looks at the server, s.
    #[arg(long, default_value = "2", value_name = "S", value_parser = interval)]
    interval: Duration,
    /// Print one table after one interval and end.
    #[arg(long)]
    once: bool,
    /// Print one JSON object after one interval and end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

impl TopArgs {
    pub(super) fn run(&self) -> ExitCode {
        let options = TopOptions {
            query_url: self.query_url.clone(),
            management_url: self.management_url.clone(),
            interval: self.interval,
            key: self.key.get().map(str::to_owned),
            trust: self.tls.trust(),
        };
        if self.once || self.json {
            return match top::once(&options) {
                Ok(view) => exit(self.print(&view)),
                Err(error) => {
                    let _ = exit(Err(error));
                    ExitCode::from(UNREACHABLE)
                }
            };
        }
        if !std::io::stdout().is_terminal() {
            return exit(Err("the output is no terminal: use --once or --json"));
        }
        exit(top::live(&options))
    }

    fn print(&self, view: &View) -> Result<(), serde_json::Error> {
        if self.json {
            answer_json(serde_json::to_string_pretty(view)?);
        } else {
            answer(grid::text(view));
        }
        Ok(())
    }
}

fn http_url(text: &str) -> Result<String, Expected> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err(Expected::new("http://HOST:PORT or https://HOST:PORT")),
    }
}

/// From a tenth of a second to an hour.
fn interval(text: &str) -> Result<Duration, Expected> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| Expected::new("0.1 to 3600 seconds"))
}
