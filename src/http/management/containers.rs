//! Operations on connected replicas.

use serde::Serialize;

use super::ports::ContainerInfo;
use super::{Failure, ManagementState, Reply};
use crate::http::schema::Object;

pub(super) const GET_SCHEMA: &str = r#"
  {
    "model_name" := string,
    "model_version" := string,
    "replica_id" := int
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
