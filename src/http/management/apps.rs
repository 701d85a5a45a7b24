//! Operations on applications and their links.

use super::operation::{Change, Failure, ManagementState, Reply, optional};
use super::{limits, names, policies};
use crate::http::schema::Object;
use crate::store::projection::Catalog;
use clipper_domain::admin::AppDescription;
use clipper_domain::rollout::Rollout;
use clipper_domain::{
    AppSpec, AppUpdate, Command, DEFAULT_POLICY, LatencySlo, ModelName, OnModelError,
    PolicyParameters, Weight,
};

pub(super) const ADD_SCHEMA: &str = r#"
  {
   "name" := string,
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "default_output" := string,
   "latency_slo_micros" := int
  }
"#;
pub(super) const ADD_OPTIONAL: &str = r#"
  {
   "name" := string,
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "default_output" := string,
   "latency_slo_micros" := int,
   "on_model_error" := "default" | "error" (optional),
   "cache" := bool (optional),
   "weight" := int (optional, 1 to 100),
   "limits" := object of rate, burst, concurrent, body_bytes (int) and priority (optional)
  }
"#;
pub(super) const UPDATE_SCHEMA: &str = r#"
  {
   "name" := string,
   "default_output" := string (optional),
   "latency_slo_micros" := int (optional),
   "on_model_error" := "default" | "error" (optional),
   "cache" := bool (optional),
   "weight" := int (optional, 1 to 100),
   "policy" := string (optional),
   "parameters" := object (optional, of the policy),
   "limits" := object of rate, burst, concurrent, body_bytes (int) and priority (optional)
  }
"#;
pub(super) const LINK_SCHEMA: &str = r#"
  {
    "app_name" := string,
    "model_names" := [string]
  }
"#;
pub(super) const UNLINK_SCHEMA: &str = r#"
  {
  "app_name" := string,
  "model_names" := [string]
  }
"#;
pub(super) const GET_SCHEMA: &str = "\n  {\n    \"name\" := string\n  }\n";
pub(super) const LINKED_SCHEMA: &str = "\n  {\n    \"app_name\" := string\n  }\n";
pub(super) const STATE_SCHEMA: &str = r#"
  {
   "app_name" := string,
   "uid" := int,
  }
"#;

pub(super) fn add(body: &Object<'_>) -> Result<Change, Failure> {
    let name = body.string("name")?;
    let input_type = body.string("input_type")?;
    let default_output = body.string("default_output")?;
    let micros = i64::from(body.int("latency_slo_micros")?);
    let on_model_error = on_model_error(body)?.unwrap_or_default();
    let cache = optional(body, "cache", Object::bool)?.unwrap_or(true);
    let weight = weight(body)?.unwrap_or_default();
    let name = names::app(&name)?;
    let spec = AppSpec {
        name: name.clone(),
        input_type: names::input_type(&input_type)?,
        policy: DEFAULT_POLICY.to_owned(),
        policy_parameters: PolicyParameters::new(),
        default_output: names::default_output(default_output.into_owned())?,
        latency_slo: LatencySlo::try_from(micros).map_err(Failure::of)?,
        on_model_error,
        cache,
        weight,
        limits: limits::optional(body)?.unwrap_or_default(),
        rollout: None,
    };
    Ok(Change {
        command: Command::AddApp(spec),
        done: format!("Successfully added application with name '{name}'"),
    })
}

fn on_model_error(body: &Object<'_>) -> Result<Option<OnModelError>, Failure> {
    let name = optional(body, "on_model_error", Object::string)?;
    name.map(|name| OnModelError::parse(&name).map_err(Failure::of)).transpose()
}

fn weight(body: &Object<'_>) -> Result<Option<Weight>, Failure> {
    let number = optional(body, "weight", Object::int)?;
    number.map(|n| Weight::try_from(i64::from(n)).map_err(Failure::of)).transpose()
}

pub(super) fn update(body: &Object<'_>) -> Result<Change, Failure> {
    let name = names::app(&body.string("name")?)?;
    let default_output = optional(body, "default_output", Object::string)?;
    let micros = optional(body, "latency_slo_micros", Object::int)?;
    let latency_slo = micros.map(|micros| LatencySlo::try_from(i64::from(micros))).transpose();
    let update = AppUpdate {
        default_output: default_output
            .map(|output| names::default_output(output.into_owned()))
            .transpose()?,
        latency_slo: latency_slo.map_err(Failure::of)?,
        on_model_error: on_model_error(body)?,
        cache: optional(body, "cache", Object::bool)?,
        weight: weight(body)?,
        limits: limits::optional(body)?,
        policy: policies::optional_policy(body)?,
        name,
    };
    if body.get("input_type").is_some() {
        let text = "The input type of an application cannot be changed: its models and clients \
                    rely on it. Add another application";
        return Err(Failure::Refused(text.to_owned()));
    }
    if update.is_empty() {
        let text = format!("There is nothing to change. Expected JSON schema: {UPDATE_SCHEMA}");
        return Err(Failure::Refused(text));
    }
    let done = format!("Successfully updated application with name '{}'", update.name);
    Ok(Change { command: Command::UpdateApp(update), done })
}

pub(super) fn delete(body: &Object<'_>) -> Result<Change, Failure> {
    let name = names::app(&body.string("name")?)?;
    let done = format!("Successfully deleted application with name '{name}'");
    Ok(Change { command: Command::DeleteApp(name), done })
}

pub(super) fn link(body: &Object<'_>) -> Result<Change, Failure> {
    let app = body.string("app_name")?;
    let models = body.strings("model_names")?;
    let app = names::app(&app)?;
    let models: Vec<ModelName> =
        models.iter().map(|m| names::model(m)).collect::<Result<_, _>>()?;
    let done = match models.as_slice() {
        [_, _, ..] => {
            let names: Vec<String> = models.iter().map(|model| format!("'{model}'")).collect();
            let names = names.join(", ");
            format!("Successfully linked models with names {names} to application '{app}'")
        }
        one => {
            let linked = one.first().map_or("", ModelName::as_str);
            format!("Successfully linked model with name '{linked}' to application '{app}'")
        }
    };
    Ok(Change { command: Command::AddModelLinks { app, models }, done })
}

pub(super) fn unlink(body: &Object<'_>) -> Result<Change, Failure> {
    let app = body.string("app_name")?;
    let models = body.strings("model_names")?;
    let app = names::app(&app)?;
    let models = models.iter().map(|m| names::model(m)).collect::<Result<_, _>>()?;
    let done = "Success!".to_owned();
    Ok(Change { command: Command::DeleteModelLinks { app, models }, done })
}

fn shown(catalog: &Catalog, app: &AppSpec, state: &ManagementState) -> AppDescription {
    let live = |rollout: &Rollout| state.states.rollout(app.name.as_str(), rollout.id);
    AppDescription::of(app, catalog.linked_models(app.name.as_str()), live)
}

fn linked<'a>(catalog: &'a Catalog, app: &AppSpec) -> Vec<&'a str> {
    catalog.linked_models(app.name.as_str()).map(ModelName::as_str).collect()
}

pub(super) fn list(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let verbose = body.bool("verbose")?;
    let catalog = state.metadata.catalog();
    if verbose {
        let shown = |app| shown(&catalog, app, state);
        return Reply::json(&catalog.apps().map(shown).collect::<Vec<_>>());
    }
    Reply::json(&catalog.apps().map(|app| app.name.as_str()).collect::<Vec<_>>())
}

pub(super) fn get(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("name")?;
    let catalog = state.metadata.catalog();
    match catalog.app(&name) {
        Some(app) => Reply::json(&shown(&catalog, app, state)),
        None => Ok(Reply::Json("{}".to_owned())),
    }
}

pub(super) fn linked_models(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("app_name")?;
    let catalog = state.metadata.catalog();
    let Some(app) = catalog.app(&name) else {
        let name = crate::http::errors::shown(&name);
        return Err(Failure::Refused(format!("No application with name '{name}' exists.")));
    };
    Reply::json(&linked(&catalog, app))
}

/// An unknown application has an empty state and no error, as recorded from the original.
pub(super) fn state(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("app_name")?;
    let uid = body.integer("uid")?;
    let catalog = state.metadata.catalog();
    let text = catalog.app(&name).map(|app| {
        let kept = if app.has_default_policy() {
            state.states.get(app.name.as_str(), uid)
        } else {
            state.states.learned(app.name.as_str(), uid)
        };
        kept.unwrap_or_else(|| app.default_output.clone())
    });
    Ok(Reply::Text(text.unwrap_or_default()))
}
