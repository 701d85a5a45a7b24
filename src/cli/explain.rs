//! `clipper explain`: why queries were answered so.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::remote::{Outcome, ServerArgs, Shown, VerbFailure, ended, understood};
use clipper_domain::AppName;
use clipper_domain::explain::{
    AttemptEnd, AttemptKind, CacheUse, ExplainedAttempt, ExplainedModel, ExplainedQueries,
    ExplainedQuery, KeptAs, Times,
};
use clipper_tools::admin::Client;

/// `clipper explain`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
The server keeps the latest queries that were slow or got the default output, and a sample of the
others ([explain] of its config). Exits with 1 where it knows of none that is asked for.

Examples:
  clipper explain 71
  clipper explain --slow --app digits
  clipper explain --default -n 5 --json")]
pub(super) struct ExplainArgs {
    /// The query, by the query_id of its answer; without it the newest.
    query_id: Option<u64>,
    /// Those that were slow.
    #[arg(long, conflicts_with_all = ["default", "query_id"])]
    slow: bool,
    /// Those that got the default output.
    #[arg(long, conflicts_with = "query_id")]
    default: bool,
    /// Of this application only.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print so many queries, the newest, at most 200.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: u8,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl ExplainArgs {
    pub(super) fn run(&self) -> ExitCode {
        ended(self.server.client().and_then(|client| self.once(&client)), self.json)
    }

    fn path(&self) -> Result<String, VerbFailure> {
        let mut path = format!("/admin/explain?limit={}", self.limit);
        if let Some(query_id) = self.query_id {
            // Writing to memory does not fail.
            let _ = write!(path, "&query_id={query_id}");
        }
        path += if self.slow { "&slow" } else { "" };
        path += if self.default { "&default" } else { "" };
        if let Some(app) = &self.app {
            let name = AppName::parse(app);
            let name = name.map_err(|error| VerbFailure::Said(format!("--app: {error}")))?;
            let all = percent_encoding::NON_ALPHANUMERIC;
            let app = percent_encoding::utf8_percent_encode(name.as_str(), all);
            let _ = write!(path, "&app={app}");
        }
        Ok(path)
    }

    fn once(&self, client: &Client) -> Outcome {
        let text = client.get(&self.path()?, "application/json")?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let found: ExplainedQueries = understood(client, "explain", &json)?;
        if found.queries.is_empty() {
            let known = "the server keeps the latest that were slow or got the default output, \
                         and a sample of the others";
            return Err(VerbFailure::Said(format!("No such query is known: {known}")));
        }
        let text = found.queries.iter().map(|query| ExplainedText(query).to_string());
        Ok(Shown { text: text.collect::<Vec<_>>().join("\n\n"), json })
    }
}

/// One query for people.
struct ExplainedText<'a>(&'a ExplainedQuery);

impl fmt::Display for ExplainedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.0;
        let kept = match query.kept_as {
            Some(KeptAs::Slow) => " (slow)",
            Some(KeptAs::Default | KeptAs::Sample) | None => "",
        };
        write!(
            f,
            "query {} of {}, {}: {} in {} of {} ms{kept}",
            query.query_id,
            query.app,
            query.at,
            query.outcome,
            round(query.latency_ms),
            round(query.slo_ms),
        )?;
        if let Some(id) = &query.request_id {
            write!(f, "\n  request    {id}")?;
        }
        for (n, because) in query.because.iter().enumerate() {
            let label = if n == 0 { "because" } else { "" };
            write!(f, "\n  {label:<10} {} [{}]", because.text, word(&because.cause))?;
        }
        write!(f, "\n  time       {}", times(&query.times_ms))?;
        write!(f, "\n  policy     {}", query.policy.name)?;
        if let Some(confidence) = query.policy.confidence {
            write!(f, ", {confidence:.3} sure")?;
        }
        query.models.iter().try_for_each(|model| write_model(f, model))
    }
}

fn write_model(f: &mut fmt::Formatter<'_>, model: &ExplainedModel) -> fmt::Result {
    write!(f, "\n  model      {}:{}", model.model, model.version)?;
    if let Some(weight) = model.weight {
        write!(f, ", weight {weight:.3}")?;
    }
    write!(f, ", {}", if model.used { "used" } else { &model.outcome })?;
    let cache = match model.cache {
        CacheUse::Hit => "in the cache",
        CacheUse::Joined => "an equal query was under way",
        CacheUse::Miss => "not in the cache",
        CacheUse::Off => "the cache was not asked",
    };
    write!(f, ", {cache}")?;
    if let Some(batch) = &model.batch {
        write!(f, "\n  batch      {} queries: {}", batch.queries, batch.text)?;
    }
    for (n, attempt) in model.attempts.iter().enumerate() {
        let label = if n == 0 { "attempts" } else { "" };
        write!(f, "\n  {label:<10} {}", said(attempt))?;
    }
    Ok(())
}

fn said(attempt: &ExplainedAttempt) -> String {
    let kind = match attempt.kind {
        AttemptKind::First => "first",
        AttemptKind::Retry => "retry",
        AttemptKind::Hedge => "hedge",
    };
    let end = match attempt.end {
        AttemptEnd::Answered => "answered",
        AttemptEnd::Failed => "failed",
        AttemptEnd::Outrun => "answered after another one",
        AttemptEnd::Unanswered => "not answered",
    };
    let mut text = kind.to_owned();
    // Writing to memory does not fail.
    if let Some(replica) = attempt.replica {
        let _ = write!(text, ", replica {replica}");
    }
    if let Some(began) = attempt.began_ms {
        let _ = write!(text, ", began at {} ms", round(began));
    }
    let _ = write!(text, ", {end}");
    if let Some(took) = attempt.took_ms {
        let _ = write!(text, " after {} ms", round(took));
    }
    text
}

fn times(times: &Times) -> String {
    let parts = [
        ("admission", Some(times.admission)),
        ("queue", Some(times.queue)),
        ("earlier attempts", Some(times.earlier_attempts).filter(|time| *time > 0.0)),
        ("network", times.network),
        ("container", Some(times.container)),
        ("answer", Some(times.answer)),
    ];
    let parts = parts.into_iter().filter_map(|(name, time)| Some((name, time?)));
    let parts: Vec<_> = parts.map(|(name, time)| format!("{name} {}", round(time))).collect();
    format!("{} ms", parts.join(", "))
}

fn round(ms: f64) -> String {
    format!("{ms:.1}")
}

/// As JSON names it.
fn word(cause: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(cause).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
