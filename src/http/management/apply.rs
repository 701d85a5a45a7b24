//! `POST /admin/apply`: the applications and models that a caller wants, planned, and made if asked
//! for; `POST /admin/export`: those there are.

use serde::de::DeserializeOwned;

use super::deploy::absolute;
use super::names;
use super::operation::{Act, Failure, ManagementState, Reply, optional};
use crate::declare::{self, Declaration};
use crate::http::schema::Object;
use crate::store::history::Point;
use crate::store::plan::{STEPS_AT_ONCE, after, back_to, plan};
use crate::store::projection::Catalog;
use clipper_clock as clock;
use clipper_config::Lists;
use clipper_domain::command::RefusedStep;
use clipper_domain::{Command, CommandError, Note, Plan, Step};

pub(super) const SCHEMA: &str = r#"
  {
   "application" := [object] (optional; each as an [[application]] of the config file),
   "model" := [object] (optional; each as a [[model]]),
   "prune" := bool (optional, false; true: what is not named is removed),
   "dry_run" := bool (optional, false; true: only the plan),
   "base" := int (optional; the event that a plan was made on, which has to be the last one)
  }
"#;

pub(super) const ROLLBACK_SCHEMA: &str = r#"
  {
   "to" := string (an event's number, a time, or so long ago, such as "2h"),
   "app_name" := string (optional; this application only),
   "dry_run" := bool (optional, false; true: only the plan),
   "base" := int (optional; the event that a plan was made on, which has to be the last one)
  }
"#;

pub(super) const EXPORT_SCHEMA: &str = "\n  {}\n";

/// How a plan is asked for.
pub(super) struct ApplyParams {
    is_dry_run: bool,
    /// The last event of the state that was looked at.
    base: Option<u64>,
}

impl ApplyParams {
    pub(super) fn read(body: &Object<'_>) -> Result<Self, Failure> {
        let base = optional(body, "base", Object::integer)?;
        Ok(Self {
            is_dry_run: optional(body, "dry_run", Object::bool)?.unwrap_or(false),
            base: base.map(|base| u64::try_from(base).unwrap_or_default()),
        })
    }
}

fn list<T: DeserializeOwned>(body: &Object<'_>, key: &str) -> Result<Vec<T>, Failure> {
    let Some(json) = body.get(key) else { return Ok(Vec::new()) };
    serde_json::from_str(json.get())
        .map_err(|error| Failure::Refused(format!("{key}: {error}. Expected: {SCHEMA}")))
}

pub(super) fn apply(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let asked = ApplyParams::read(body)?;
    let prune = optional(body, "prune", Object::bool)?.unwrap_or(false);
    let lists = Lists { applications: list(body, "application")?, models: list(body, "model")? };
    let declaration = Declaration::read(&lists, true).map_err(Failure::of)?;
    let (seq, current) = state.metadata.copy();
    let (wanted, faults) = declaration.wanted(&current, prune);
    if !faults.is_empty() {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        return Err(Failure::Refused(lines.join("\n")));
    }
    carry_out(plan(seq, &current, &wanted), &asked, state)
}

/// What is served becomes what it was.
pub(super) fn rollback(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let asked = ApplyParams::read(body)?;
    let to = body.string("to")?;
    let app = optional(body, "app_name", Object::string)?;
    let app = app.map(|name| names::app(&name)).transpose()?;
    let point = Point::parse(&to, clock::unix_millis()).map_err(Failure::of)?;
    let then = state.metadata.state_at(point).map_err(Failure::of)?;
    let (seq, current) = state.metadata.copy();
    if let Some(app) = &app {
        let is_in = |catalog: &Catalog| catalog.app(app.as_str()).is_some();
        if !is_in(&current) && !is_in(&then.catalog) {
            let text =
                format!("Application '{app}' exists neither now nor after event {}", then.seq);
            return Err(Failure::Refused(text));
        }
    }
    let wanted = back_to(&current, &then.catalog, app.as_ref());
    let mut state = state.clone();
    let why = format!("rollback to event {}", then.seq);
    state.asker.why = state.asker.why.take().or_else(|| Note::new(&why));
    carry_out(plan(seq, &current, &wanted), &asked, &state)
}

pub(super) fn export(_: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let (_, catalog) = state.metadata.copy();
    let text = declare::export(&catalog).to_toml().map_err(Failure::of)?;
    Ok(Reply::Text(text))
}

/// Shows a plan, or makes it: all of it or nothing, or says how far it came.
pub(super) fn carry_out(
    made: Plan,
    asked: &ApplyParams,
    state: &ManagementState,
) -> Result<Act, Failure> {
    if let Some(base) = asked.base.filter(|base| *base != made.base) {
        return Err(Failure::Conflict(
            CommandError::PlanIsOld { base, now: made.base }.to_string(),
        ));
    }
    let mut about = made.describe();
    if asked.is_dry_run || about.is_empty() {
        let reply = Reply::json(&about)?;
        return Ok(Box::pin(async move { Ok(reply) }));
    }
    if !made.refused.is_empty() {
        return Err(Failure::Refused(refusals(&made.refused)));
    }
    for step in &made.steps {
        check_programs(step, state)?;
    }
    let state = state.clone();
    Ok(Box::pin(async move {
        about.failed = make(&made, &mut about.done, &state).await?;
        Reply::json(&about)
    }))
}

/// Makes a plan part by part; why the parts after the first are not there.
async fn make(
    made: &Plan,
    done: &mut usize,
    state: &ManagementState,
) -> Result<Option<String>, Failure> {
    let mut base = made.base;
    for steps in made.steps.chunks(STEPS_AT_ONCE) {
        let (now, current) = state.metadata.copy();
        let expected =
            (now == base && steps.len() == STEPS_AT_ONCE).then(|| after(&current, steps).planned());
        let part = Plan { base, steps: steps.to_vec(), refused: Vec::new() };
        match state.execute(Command::Apply(Box::new(part))).await {
            Ok(()) => *done += steps.len(),
            Err(failure) if *done == 0 => return Err(failure),
            Err(failure) => return Ok(Some(failure.to_string())),
        }
        let (now, current) = state.metadata.copy();
        // What follows was planned for what this part leads to.
        if expected.is_some_and(|expected| expected != current.planned()) {
            let is_last = *done == made.steps.len();
            let old = CommandError::PlanIsOld { base, now };
            return Ok((!is_last).then(|| old.to_string()));
        }
        base = now;
    }
    Ok(None)
}

fn refusals(refused: &[RefusedStep]) -> String {
    let line = |refused: &RefusedStep| {
        let about = &refused.step.about;
        format!("{} {}: {}", about.thing.name(), about.name, refused.why)
    };
    let lines: Vec<String> = refused.iter().map(line).collect();
    format!("Nothing was changed, as a part of it is not allowed:\n{}", lines.join("\n"))
}

/// Whether whoever asks may have the programs started that a step needs.
fn check_programs(step: &Step, state: &ManagementState) -> Result<(), Failure> {
    let (count, runtime) = match &step.command {
        Command::KeepReplicas { replicas, .. } => (replicas.count, Some(&replicas.runtime)),
        Command::SetReplicas { count, .. } => (*count, None),
        _ => return Ok(()),
    };
    if let Some(runtime) = runtime {
        if let Some(why) = &state.no_programs {
            let name = &step.about.name;
            return Err(Failure::Forbidden(format!("replicas of {name}: {why}")));
        }
        absolute(runtime)?;
        let name = &step.about.name;
        let refused = |why| Failure::Forbidden(format!("replicas of {name}: {why}"));
        state.allowed.check(runtime).map_err(refused)?;
    }
    let max = state.replicas_max.unwrap_or(u32::MAX);
    if !(1..=max).contains(&count) {
        let text = format!(
            "replicas of {}: 1 to management.deploy_replicas_max = {max} may be kept, not {count}",
            step.about.name
        );
        return Err(Failure::Refused(text));
    }
    Ok(())
}
