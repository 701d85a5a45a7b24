//! What can be asked of the journal of a running server.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::text::state_text;
use crate::cli::output::{answer, answer_json};
use crate::cli::remote::{Outcome, ServerArgs, Shown, VerbFailure, ended, understood};
use crate::cli::value::Expected;
use crate::store::inspect::StateAt;
use clipper_domain::history::{Blame, DiffAnswer, LogEntry, LogPage};
use clipper_domain::{AppName, ModelName};
use clipper_tools::admin::{Client, ClientError, ServerEvent};

/// `clipper journal log`
#[derive(Debug, Args)]
pub(in crate::cli) struct LogArgs {
    /// Of this application only.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Of this model only.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// By this key, user or address only; also config files and others by their origin, such as
    /// bootstrap.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// From there on: the number of an event, a time such as 2026-01-31T23:59:59Z, or how long ago
    /// such as 2h.
    #[arg(long, value_name = "POINT")]
    since: Option<String>,
    /// Print so many events, the newest.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Go on and print each change as it comes.
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one event a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Two points, `A..B`; without B, the second is now.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Range {
    from: String,
    to: String,
}

pub(in crate::cli) fn range(text: &str) -> Result<Range, Expected> {
    let (from, to) = text.split_once("..").unwrap_or((text, ""));
    if from.is_empty() {
        return Err(Expected::new("A..B or A.., each the number of an event or a time"));
    }
    let to = if to.is_empty() { "now" } else { to };
    Ok(Range { from: from.to_owned(), to: to.to_owned() })
}

impl LogArgs {
    pub(super) fn run(&self) -> ExitCode {
        let printed = self.server.client().and_then(|client| self.print(&client));
        match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.show(),
        }
    }

    fn print(&self, client: &Client) -> Result<(), VerbFailure> {
        let page = self.newest(client)?;
        if page.forgotten > 0 && self.reaches(&page) && !self.json {
            answer(format_args!("Events up to {} are not kept any more.", page.forgotten));
        }
        page.entries.iter().for_each(|entry| self.show(entry));
        if self.follow { self.follow_from(client, page.last) } else { Ok(()) }
    }

    /// Whether older events would be shown, if there were any.
    fn reaches(&self, page: &LogPage) -> bool {
        page.next.is_none() && page.entries.len() < self.limit
    }

    fn show(&self, entry: &LogEntry) {
        if self.json {
            answer_json(serde_json::to_string(entry).unwrap_or_default());
        } else {
            answer(entry);
        }
    }

    /// The newest of those that are asked for, in as many answers as that takes.
    fn newest(&self, client: &Client) -> Result<LogPage, VerbFailure> {
        let mut whole: Option<LogPage> = None;
        loop {
            let had = whole.as_ref().map_or(0, |whole| whole.entries.len());
            let before = whole.as_ref().and_then(|whole| whole.next);
            let page = self.page(client, before, self.limit - had)?;
            let next = page.next;
            let whole = match &mut whole {
                Some(whole) => {
                    whole.entries.splice(..0, page.entries);
                    whole.next = next;
                    whole
                }
                None => whole.insert(page),
            };
            if next.is_none() || whole.entries.len() >= self.limit {
                return Ok(whole.clone());
            }
        }
    }

    fn page(
        &self,
        client: &Client,
        before: Option<u64>,
        limit: usize,
    ) -> Result<LogPage, VerbFailure> {
        let mut body = json!({"limit": limit});
        let texts = [
            ("app", &self.app),
            ("model", &self.model),
            ("who", &self.who),
            ("since", &self.since),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                body[key] = json!(text);
            }
        }
        if let Some(before) = before {
            body["before"] = json!(before);
        }
        let page = client.ask("journal/log", &body)?;
        understood(client, "journal/log", &page)
    }

    /// Prints what comes after an event, until somebody ends it or the server has forgotten what
    /// would come next.
    #[allow(clippy::disallowed_methods, reason = "this process has no arbiter that could wait")]
    fn follow_from(&self, client: &Client, mut given: u64) -> Result<(), VerbFailure> {
        loop {
            let mut end = None;
            let followed =
                client.events("/admin/journal/stream", given, |ServerEvent { name, id, data }| {
                    match name.as_str() {
                        "change" => self.show_change(&data),
                        name => end = Some((name.to_owned(), data)),
                    }
                    given = id.unwrap_or(given);
                });
            match (followed, end) {
                (Err(error @ ClientError::Refused { .. }), _) => return Err(error.into()),
                (_, Some((name, data))) if name == "forgotten" => {
                    return Err(VerbFailure::Said(reason(&data)));
                }
                _ => std::thread::sleep(AGAIN),
            }
        }
    }

    fn show_change(&self, data: &str) {
        let Ok(entry) = serde_json::from_str::<LogEntry>(data) else { return };
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == name)
        };
        let is_meant = is(&self.app, entry.app.as_ref().map(AppName::as_str))
            && is(&self.model, entry.model.as_ref().map(ModelName::as_str));
        let by = |who: &String| entry.asker.is(who) || entry.origin == *who;
        if is_meant && self.who.as_ref().is_none_or(by) {
            self.show(&entry);
        }
    }
}

/// Before a follower that was cut off comes back.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

fn reason(data: &str) -> String {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    data["reason"].as_str().unwrap_or("The server has ended the stream").to_owned()
}

pub(super) fn blame(app: &str, json: bool, server: &ServerArgs) -> ExitCode {
    let asked = |client: Client| -> Outcome {
        let json = client.ask("journal/blame", &json!({"app": app}))?;
        let blame: Blame = understood(&client, "journal/blame", &json)?;
        Ok(Shown { text: blame.to_string(), json })
    };
    ended(server.client().and_then(asked), json)
}

pub(super) fn diff(range: &Range, json: bool, server: &ServerArgs) -> ExitCode {
    let asked = |client: Client| -> Outcome {
        let body = json!({"from": range.from, "to": range.to});
        let json = client.ask("journal/diff", &body)?;
        let told: DiffAnswer = understood(&client, "journal/diff", &json)?;
        let text = format!("from event {} to event {}\n{}", told.from, told.to, told.difference);
        Ok(Shown { text, json })
    };
    ended(server.client().and_then(asked), json)
}

pub(super) fn state(at: Option<&str>, json: bool, server: &ServerArgs) -> ExitCode {
    let asked = |client: Client| -> Outcome {
        let json = client.ask("journal/state", &json!({"at": at.unwrap_or("now")}))?;
        let state: StateAt = understood(&client, "journal/state", &json)?;
        Ok(Shown { text: state_text(&state), json })
    };
    ended(server.client().and_then(asked), json)
}
