//! Operations on connected replicas.

use super::names;
use super::operation::{Act, Failure, ManagementState, Reply, optional};
use super::ports::{ContainerInfo, RestartReplicas};
use crate::http::schema::Object;
use clipper_domain::admin::ReplicaDescription;
use clipper_domain::{Command, ModelId, ModelName};

pub(super) const GET_SCHEMA: &str = r#"
  {
    "model_name" := string,
    "model_version" := string,
    "replica_id" := int
  }
"#;

pub(super) const RESTART_SCHEMA: &str = r#"
  {
    "model_name" := string (optional),
    "model_version" := string (optional)
  }
"#;

pub(super) const SET_SCHEMA: &str = r#"
  {
    "model_name" := string,
    "model_version" := string (optional, the current one),
    "num_replicas" := int
  }
"#;

fn shown(container: &ContainerInfo) -> ReplicaDescription {
    ReplicaDescription::of(&container.model, container.replica, container.input_type)
}

pub(super) fn list(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let verbose = body.bool("verbose")?;
    let mut containers = state.containers.list();
    containers.sort_by(|a, b| (&a.model, a.replica).cmp(&(&b.model, b.replica)));
    if verbose {
        return Reply::json(&containers.iter().map(shown).collect::<Vec<_>>());
    }
    let name = |c: &ContainerInfo| format!("{}:{}", c.model, c.replica);
    Reply::json(&containers.iter().map(name).collect::<Vec<_>>())
}

pub(super) fn get(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("model_name")?;
    let version = body.string("model_version")?;
    let replica = body.int("replica_id")?;
    let containers = state.containers.list();
    let wanted = |c: &&ContainerInfo| {
        c.model.name.as_str() == name
            && c.model.version.as_str() == version
            && i64::from(c.replica.0) == i64::from(replica)
    };
    match containers.iter().find(wanted) {
        Some(container) => Reply::json(&shown(container)),
        None => Ok(Reply::Json("{}".to_owned())),
    }
}

/// Changes how many replicas of a deployed version every server keeps.
pub(super) fn set(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = names::model(&body.string("model_name")?)?;
    let count = body.int("num_replicas")?;
    let version = optional(body, "model_version", Object::string)?;
    let version =
        match version.map(|version| names::version(&version)).transpose()? {
            Some(version) => version,
            None => state.metadata.catalog().current_version(name.as_str()).cloned().ok_or_else(
                || Failure::Refused(format!("Model '{name}' has no current version")),
            )?,
        };
    let Some(max) = state.replicas_max else {
        let text = "This server starts no replicas that are asked for: management.deploy = \"off\"";
        return Err(Failure::Refused(text.to_owned()));
    };
    let count =
        u32::try_from(count).ok().filter(|count| (1..=max).contains(count)).ok_or_else(|| {
            let text = "num_replicas must be 1 to management.deploy_replicas_max";
            Failure::Refused(format!("{text} = {max}, not {count}"))
        })?;
    let id = ModelId::new(name, version);
    let text = format!("Keeping {count} replica{} of model {id}", plural(count as usize));
    let done = state.execute(Command::SetReplicas { id, count });
    Ok(Box::pin(async move {
        done.await?;
        Ok(Reply::Text(text))
    }))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Replaces the processes of replicas that this server runs. Those that others run are theirs.
pub(super) fn restart(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = optional(body, "model_name", Object::string)?;
    let name = name.map(|name| names::model(&name)).transpose()?;
    let version = optional(body, "model_version", Object::string)?;
    let version = version.map(|version| names::version(&version)).transpose()?;
    if name.is_none() && version.is_some() {
        return Err(Failure::Refused("model_version says nothing without model_name".to_owned()));
    }
    state.check_model(name.as_ref().map(ModelName::as_str))?;
    let of = match (&name, &version) {
        (None, _) => String::new(),
        (Some(name), None) => format!(" of model {name}"),
        (Some(name), Some(version)) => format!(" of model {name}:{version}"),
    };
    let restarted = state.containers.restart(RestartReplicas { name, version });
    Ok(Box::pin(async move {
        let count = restarted.await?;
        if count == 0 {
            return Err(Failure::Refused(format!("This server runs no replicas{of}")));
        }
        Ok(Reply::Text(format!("Restarting {count} replica{}{of}", plural(count))))
    }))
}
