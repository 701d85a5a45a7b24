//! What verbs that plan share: the plan is shown, asked for, made.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::output::{answer, answer_json};
use super::remote::{VerbFailure, understood};
use clipper_domain::difference::{Became, FieldChange};
use clipper_domain::plan::{PlanDescription, StepDescription};
use clipper_domain::printable::printable_lines;
use clipper_tools::admin::{Client, ClientError};

/// Exit code where `--dry-run` has found something to do.
pub(super) const PENDING: u8 = 4;

/// Plans in a row that others may be faster than, where nobody is asked.
const TRIES: usize = 5;

/// Longest value that is shown of a member, characters.
const VALUE_CHARS_MAX: usize = 60;

/// How far a verb goes.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Show what would be done, and do nothing; exits with 4 if there is something to do.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Print JSON; it asks nothing, and so needs --yes or --dry-run.
    #[arg(long)]
    pub(super) json: bool,
}

/// What came of it.
pub(super) enum PlanEnd {
    /// Everything is as it is wanted, by these steps.
    There(Vec<StepDescription>),
    Pending,
    /// Nobody has said yes.
    NotAsked,
}

impl PlanArgs {
    /// Asks for the plan of `body`, shows it, and has it made.
    pub(super) fn carry_out(
        &self,
        client: &Client,
        endpoint: &str,
        body: &Value,
    ) -> Result<PlanEnd, VerbFailure> {
        let mut tries = 0;
        loop {
            let about = self.shown(client, endpoint, body)?;
            if !about.refused.is_empty() {
                return Err(VerbFailure::Said("Nothing was changed: see above".to_owned()));
            }
            if about.steps.is_empty() {
                return Ok(PlanEnd::There(Vec::new()));
            }
            if self.dry_run {
                return Ok(PlanEnd::Pending);
            }
            if !self.yes && !self.is_confirmed(about.steps.len())? {
                return Ok(PlanEnd::NotAsked);
            }
            match asked(client, endpoint, body, &json!({"base": about.base})) {
                Ok(done) => return self.told(done),
                // Nobody has looked at the plan: another is as good.
                Err(VerbFailure::Client(ClientError::Refused { status: 409, .. }))
                    if self.yes && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn shown(
        &self,
        client: &Client,
        endpoint: &str,
        body: &Value,
    ) -> Result<PlanDescription, VerbFailure> {
        let about = asked(client, endpoint, body, &json!({"dry_run": true}))?;
        let has_ended = self.dry_run || about.is_empty() || !about.refused.is_empty();
        if !self.json {
            show(&about);
        } else if has_ended {
            answer_json(json(&about));
        }
        Ok(about)
    }

    fn told(&self, done: PlanDescription) -> Result<PlanEnd, VerbFailure> {
        if self.json {
            answer_json(json(&done));
        }
        if let Some(why) = &done.failed {
            let (made, all) = (done.done, done.steps.len());
            let why = format!(
                "{made} of {all} steps were made, the others were not: {why}\nRun it again for the \
                 rest"
            );
            return Err(VerbFailure::Said(why));
        }
        if !self.json {
            answer(format_args!("Done: {}", changes(done.steps.len())));
        }
        Ok(PlanEnd::There(done.steps))
    }

    fn is_confirmed(&self, steps: usize) -> Result<bool, VerbFailure> {
        if self.json || !std::io::stdin().is_terminal() {
            let why = "Nobody is here to be asked: --yes makes the change, --dry-run only shows it";
            return Err(VerbFailure::Said(why.to_owned()));
        }
        let mut out = std::io::stdout();
        let _ = write!(out, "Make {}? [y/N] ", changes(steps));
        let _ = out.flush();
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str()))
    }
}

fn json(about: &PlanDescription) -> String {
    serde_json::to_string(about).unwrap_or_default()
}

fn changes(count: usize) -> String {
    format!("{count} change{}", if count == 1 { "" } else { "s" })
}

fn asked(
    client: &Client,
    endpoint: &str,
    body: &Value,
    more: &Value,
) -> Result<PlanDescription, VerbFailure> {
    let mut body = body.clone();
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let answer = client.ask(endpoint, &body)?;
    understood(client, endpoint, &answer)
}

impl PlanEnd {
    /// The exit code.
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::There(_) => ExitCode::SUCCESS,
            Self::Pending => ExitCode::from(PENDING),
            Self::NotAsked => ExitCode::FAILURE,
        }
    }
}

/// A line for each step, in colour on a terminal, and how many there are.
fn show(about: &PlanDescription) {
    let has_colour = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut out = std::io::stdout();
    for step in &about.steps {
        let text = printable_lines(&line(step)).into_owned();
        // A closed stdout is the reader's choice.
        let _ = if has_colour {
            writeln!(out, "\x1b[{}m{text}\x1b[0m", colour(step.kind))
        } else {
            writeln!(out, "{text}")
        };
    }
    for refused in &about.refused {
        let text = format!("! {}\n  is not allowed: {}", line(&refused.step), refused.why);
        answer(text);
    }
    answer(summary(about));
}

fn colour(kind: Became) -> u8 {
    match kind {
        Became::Added => 32,
        Became::Changed => 33,
        Became::Removed => 31,
    }
}

fn summary(about: &PlanDescription) -> String {
    if about.is_empty() {
        return format!("Nothing to do: it is as wanted (event {})", about.base);
    }
    let count = |kind| about.steps.iter().filter(|step| step.kind == kind).count();
    let (added, changed, removed) =
        (count(Became::Added), count(Became::Changed), count(Became::Removed));
    format!(
        "{}: {added} added, {changed} changed, {removed} removed; planned after event {}",
        changes(about.steps.len()),
        about.base
    )
}

/// `~ application a: latency_slo 100000 -> 20000`
fn line(step: &StepDescription) -> String {
    let mark = match step.kind {
        Became::Added => '+',
        Became::Changed => '~',
        Became::Removed => '-',
    };
    let mut text = format!("{mark} {} {}", step.thing.name(), step.name);
    for (n, field) in step.fields.iter().enumerate() {
        // A text takes everything.
        let _ = write!(text, "{} {}", if n == 0 { ":" } else { "," }, shown(field));
    }
    text
}

fn shown(change: &FieldChange) -> String {
    let value = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"));
        match text.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    };
    let field = &change.field;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{field} {} -> {}", value(before), value(after)),
        (Some(before), None) => format!("{field} {} -> none", value(before)),
        (None, Some(after)) => format!("{field} {}", value(after)),
        (None, None) => field.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line() {
        let step = |json: Value| line(&serde_json::from_value(json).unwrap());
        let changed = step(json!({"kind": "changed", "thing": "application", "name": "a",
            "fields": [{"field": "latency_slo", "before": 100_000, "after": 20_000},
                       {"field": "weight", "after": 3}]}));
        assert_eq!(changed, "~ application a: latency_slo 100000 -> 20000, weight 3");
        let removed = step(json!({"kind": "removed", "thing": "model", "name": "m:1"}));
        assert_eq!(removed, "- model m:1");
        let long = step(json!({"kind": "added", "thing": "links", "name": "a",
            "fields": [{"field": "models", "after": "x".repeat(100)}]}));
        assert!(long.ends_with("...") && long.len() < 100, "{long}");
    }
}
