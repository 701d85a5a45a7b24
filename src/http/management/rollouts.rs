//! Operations on rollouts.

use serde::de::DeserializeOwned;

use super::names;
use super::operation::{Change, Failure, ManagementState, Reply, optional};
use crate::http::schema::Object;
use clipper_clock as clock;
use clipper_domain::rollout::guard::Guard;
use clipper_domain::rollout::percent::Percent;
use clipper_domain::rollout::plan::{MIN_QUERIES, RolloutKind, RolloutPlan};
use clipper_domain::rollout::progress::RolloutDescription;
use clipper_domain::rollout::{Rollout, RolloutEnd};
use clipper_domain::{Command, ModelId};

pub(super) const START_SCHEMA: &str = r#"
  {
   "app_name" := string,
   "from" := string (NAME:VERSION),
   "to" := string (NAME:VERSION)
  }
"#;
pub(super) const START_OPTIONAL: &str = r#"
  {
   "app_name" := string,
   "from" := string (NAME:VERSION),
   "to" := string (NAME:VERSION),
   "kind" := "shadow" | "canary" | "ab" (optional, canary),
   "steps" := [number] (optional, [1, 5, 25, 50, 100]; percent),
   "hold_ms" := int (optional, 300000),
   "guards" := [string] (optional, none; such as "errors<1%"),
   "min_queries" := int (optional, 500)
  }
"#;
pub(super) const ABORT_OPTIONAL: &str =
    "\n  {\n    \"app_name\" := string,\n    \"reason\" := string (optional)\n  }\n";

/// Longest reason that is kept, characters.
const REASON_CHARS_MAX: usize = 200;

/// Steps of a rollout that does not say.
const STEPS: [f64; 5] = [1.0, 5.0, 25.0, 50.0, 100.0];
/// Hold of a rollout that does not say: five minutes.
const HOLD_MS: u64 = 300_000;

fn parsed<T: DeserializeOwned>(
    body: &Object<'_>,
    key: &'static str,
    expected: &str,
) -> Result<Option<T>, Failure> {
    let Some(value) = body.get(key) else { return Ok(None) };
    let wrong = |error| Failure::Refused(format!("{key}: expected {expected}: {error}"));
    serde_json::from_str(value.get()).map(Some).map_err(wrong)
}

fn version(body: &Object<'_>, key: &'static str) -> Result<ModelId, Failure> {
    let text = body.string(key)?;
    let wrong = |error| Failure::Refused(format!("{key}: expected NAME:VERSION: {error}"));
    ModelId::parse(&text).map_err(wrong)
}

pub(super) fn start(body: &Object<'_>) -> Result<Change, Failure> {
    let app = names::app(&body.string("app_name")?)?;
    let (from, to) = (version(body, "from")?, version(body, "to")?);
    let kind = optional(body, "kind", Object::string)?;
    let kind = kind.map(|name| RolloutKind::parse(&name).map_err(Failure::of)).transpose()?;
    let steps = parsed::<Vec<Percent>>(body, "steps", "a list of percentages")?;
    let usual = || STEPS.into_iter().filter_map(|step| Percent::try_from(step).ok()).collect();
    let guards = optional(body, "guards", Object::strings)?.unwrap_or_default();
    let guard =
        |text| Guard::parse(text).map_err(|error| Failure::Refused(format!("guards: {error}")));
    let guards = guards.iter().map(|text| guard(text)).collect::<Result<_, _>>()?;
    let plan = RolloutPlan {
        kind: kind.unwrap_or(RolloutKind::Canary),
        from,
        to,
        steps: steps.unwrap_or_else(usual),
        hold_ms: parsed(body, "hold_ms", "a whole number of milliseconds")?.unwrap_or(HOLD_MS),
        guards,
        min_queries: parsed(body, "min_queries", "a whole number")?.unwrap_or(MIN_QUERIES),
    };
    let done = format!(
        "Started the rollout of application '{app}' from {} to {} ({}) at {}",
        plan.from,
        plan.to,
        plan.kind,
        plan.steps.first().copied().unwrap_or(Percent::ALL)
    );
    let rollout = Box::new(Rollout::new(clock::unix_millis(), plan));
    Ok(Change { command: Command::StartRollout { app, rollout }, done })
}

fn end(body: &Object<'_>, end: RolloutEnd) -> Result<Change, Failure> {
    let app = names::app(&body.string("app_name")?)?;
    let done = format!("The rollout of application '{app}' has ended: {}", end.name());
    Ok(Change { command: Command::EndRollout { app, id: None, end }, done })
}

pub(super) fn promote(body: &Object<'_>) -> Result<Change, Failure> {
    end(body, RolloutEnd::Promoted)
}

pub(super) fn abort(body: &Object<'_>) -> Result<Change, Failure> {
    let reason = optional(body, "reason", Object::string)?;
    let reason = reason.map_or_else(|| "by an operator".to_owned(), std::borrow::Cow::into_owned);
    let reason = reason.chars().take(REASON_CHARS_MAX).collect();
    end(body, RolloutEnd::Aborted { reason })
}

/// `{}` where the application has had no rollout.
pub(super) fn get(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("app_name")?;
    let catalog = state.metadata.catalog();
    match catalog.app(&name).and_then(|app| app.rollout.as_deref()) {
        Some(rollout) => {
            let live = state.states.rollout(&name, rollout.id);
            Reply::json(&RolloutDescription::of(&name, rollout, live))
        }
        None => Ok(Reply::Json("{}".to_owned())),
    }
}
