//! Operations on connected replicas.

use serde::Serialize;

use super::ports::{ContainerInfo, RestartReplicas};
use super::{Act, Failure, ManagementState, Reply, names, optional};
use crate::http::schema::Object;

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

/// A replica as clients see it; the order of the members is the original's.
#[derive(Serialize)]
struct Shown<'a> {
    model_id: String,
    model_name: &'a str,
    model_version: &'a str,
    model_replica_id: u32,
    input_type: &'a str,
}

fn shown(container: &ContainerInfo) -> Shown<'_> {
    Shown {
        model_id: container.model.to_string(),
        model_name: container.model.name.as_str(),
        model_version: container.model.version.as_str(),
        model_replica_id: container.replica.0,
        input_type: container.input_type.long_name(),
    }
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

/// Replaces the processes of replicas that this server runs. Those that others run are theirs.
pub(super) fn restart(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = optional(body, "model_name", Object::string)?;
    let name = name.map(|name| names::model(&name)).transpose()?;
    let version = optional(body, "model_version", Object::string)?;
    let version = version.map(|version| names::version(&version)).transpose()?;
    if name.is_none() && version.is_some() {
        return Err(Failure::Refused("model_version says nothing without model_name".to_owned()));
    }
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
        let plural = if count == 1 { "" } else { "s" };
        Ok(Reply::Text(format!("Restarting {count} replica{plural}{of}")))
    }))
}
