//! What the management frontend tells of the journal, as its callers read it too.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::asker::Asker;
use crate::difference::{Difference, shown};
use crate::ids::{AppName, ModelName};
use crate::printable::printable;

/// An event that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    pub seq: u64,
    /// Unix milliseconds.
    pub recorded_at_ms: u64,
    /// The same, in UTC.
    pub at: String,
    /// The way by which it came.
    pub origin: String,
    #[serde(flatten)]
    pub asker: Asker,
    /// Who asked for it, in words.
    pub who: String,
    /// What happened, in words.
    pub what: String,
    /// The application that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// Without what is made of secrets. Left out where only the entry is meant.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub event: Value,
}

impl LogEntry {
    /// When, who, from where and why, in words.
    #[must_use]
    pub fn circumstances(&self) -> String {
        let known = |word: &str, note: &Option<crate::asker::Note>| {
            note.as_ref().map_or_else(String::new, |note| format!(" {word} {note}"))
        };
        let (from, via) = (known("from", &self.asker.from), known("via", &self.asker.via));
        let why = self.asker.why.as_ref();
        let why = why.map_or_else(|| "unknown".to_owned(), |why| format!("\"{why}\""));
        format!("{} by {}{from}{via}, why: {why}", self.at, printable(&self.who))
    }
}

/// Two lines: what, and how it came.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  {}\n          {}", self.seq, printable(&self.what), self.circumstances())
    }
}

/// The answer of `/admin/journal/log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// In order.
    pub entries: Vec<LogEntry>,
    /// The number of the last event that there is.
    pub last: u64,
    /// Events up to this one are not kept any more; 0: all are.
    pub forgotten: u64,
    /// There may be more: ask again with this as `before`, or as `after` if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A member of an application and what made it what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlamedField {
    pub field: String,
    pub value: Value,
    /// The event that made it so; none: it was so before the oldest event that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<LogEntry>,
}

/// The answer of `/admin/journal/blame`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    pub app: String,
    /// As of this event.
    pub seq: u64,
    /// What was so before this event is not known to be anybody's; 0: all is known.
    pub looked_from: u64,
    pub fields: Vec<BlamedField>,
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "application {} after event {}", printable(&self.app), self.seq)?;
        for BlamedField { field, value, by } in &self.fields {
            write!(f, "\n{field}: {}", shown(value))?;
            match by {
                Some(entry) => write!(f, "\n    event {}, {}", entry.seq, entry.circumstances())?,
                None => write!(f, "\n    before event {}, by unknown", self.looked_from)?,
            }
        }
        Ok(())
    }
}

/// The answer of `/admin/journal/diff`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffAnswer {
    /// Between the states after these events.
    pub from: u64,
    pub to: u64,
    /// The same in words.
    pub words: String,
    #[serde(flatten)]
    pub difference: Difference,
}
