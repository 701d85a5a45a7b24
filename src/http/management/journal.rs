//! The journal's past: what was changed, by whom and why, and the state at any time.

use serde::Serialize;

use super::names;
use super::operation::{Failure, Reply, optional};
use super::past::Past;
use crate::http::schema::Object;
use crate::store::StoreError;
use crate::store::difference::difference;
use crate::store::history::log::{LogLimits, Query};
use crate::store::history::{Point, StateAt};
use crate::store::projection::Catalog;
use clipper_clock as clock;
use clipper_domain::history::DiffAnswer;

pub(super) const LOG_SCHEMA: &str = r#"
  {
   "app" := string (optional),
   "model" := string (optional),
   "who" := string (optional, a key, a user, an address, or an origin),
   "since" := string (optional, a point: the number of an event, a time, or how long ago),
   "after" := int (optional), "before" := int (optional),
   "limit" := int (optional)
  }
"#;
pub(super) const BLAME_SCHEMA: &str = "\n  {\n    \"app\" := string\n  }\n";
pub(super) const DIFF_SCHEMA: &str =
    "\n  {\n    \"from\" := string (a point),\n    \"to\" := string (a point)\n  }\n";
pub(super) const STATE_SCHEMA: &str = "\n  {\n    \"at\" := string (a point)\n  }\n";

/// Entries of an answer unless it is said.
const LIMIT: usize = 100;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotKept { .. } => Self::Refused(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The number of an event, a time, or how long ago.
pub(super) fn point(text: &str) -> Result<Point, Failure> {
    Point::parse(text, clock::unix_millis()).map_err(Failure::of)
}

fn number(body: &Object<'_>, key: &'static str) -> Result<Option<u64>, Failure> {
    let wrong = |_| Failure::Refused(format!("{key} must be a number from 0"));
    optional(body, key, Object::integer)?.map(u64::try_from).transpose().map_err(wrong)
}

pub(super) fn log(body: &Object<'_>, past: &Past) -> Result<Reply, Failure> {
    let text = |key: &'static str| {
        Ok::<_, Failure>(optional(body, key, Object::string)?.map(String::from))
    };
    let query = Query {
        app: text("app")?,
        model: text("model")?,
        who: text("who")?,
        since: text("since")?.map(|since| point(&since)).transpose()?,
        after: number(body, "after")?,
        before: number(body, "before")?,
    };
    let max = past.limits.log_entries_max;
    let entries = number(body, "limit")?
        .map_or(LIMIT.min(max), |limit| usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, max));
    let limits = LogLimits {
        entries,
        bytes: past.limits.log_bytes_max,
        examined: past.limits.log_examined_max,
    };
    Reply::json(&past.history.log(&query, limits)?)
}

pub(super) fn blame(body: &Object<'_>, past: &Past) -> Result<Reply, Failure> {
    let app = names::app(&body.string("app")?)?;
    let blame = past.history.blame(app.as_str(), past.limits.log_examined_max)?;
    let unknown = || Failure::Refused(format!("Application '{app}' does not exist"));
    Reply::json(&blame.ok_or_else(unknown)?)
}

pub(super) fn diff(body: &Object<'_>, past: &Past) -> Result<Reply, Failure> {
    let (from, to) = (point(&body.string("from")?)?, point(&body.string("to")?)?);
    let (before, after) = (past.history.state_at(from)?, past.history.state_at(to)?);
    let difference = difference(&before.catalog, &after.catalog, past.limits.diff_entries_max);
    let words = difference.to_string();
    Reply::json(&DiffAnswer { from: before.seq, to: after.seq, words, difference })
}

pub(super) fn state(body: &Object<'_>, past: &Past) -> Result<Reply, Failure> {
    let StateAt { seq, catalog } = past.history.state_at(point(&body.string("at")?)?)?;
    let has_keys = catalog.keys().next().is_some();
    let without = has_keys.then(|| catalog.without_secrets());
    Reply::json(&ShownState { seq, catalog: without.as_ref().unwrap_or(&catalog) })
}

#[derive(Serialize)]
struct ShownState<'c> {
    seq: u64,
    catalog: &'c Catalog,
}
