//! Operations on model versions.

use std::borrow::Cow;
use std::sync::Arc;

use super::names;
use super::operation::{Change, Failure, ManagementState, Reply, optional};
use crate::http::schema::Object;
use crate::store::projection::Catalog;
use clipper_domain::admin::ModelDescription;
use clipper_domain::{BatchSize, Command, InputType, ModelId, ModelSpec, ModelUpdate, Signature};

/// What has to be there. The original requires `batch_size` too, which its text does not tell.
pub(super) const ADD_SCHEMA: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
   "labels" := [string],
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "container_name" := string,
   "model_data_path" := string
  }
"#;
pub(super) const ADD_OPTIONAL: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
   "labels" := [string],
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "container_name" := string,
   "model_data_path" := string,
   "batch_size" := int (optional, -1: the server chooses),
   "make_current" := bool (optional, true),
   "cache" := bool (optional, true),
   "signature" := {"inputs": [tensor], "outputs": [tensor]} (optional, of type tensors)
  }
"#;
pub(super) const UPDATE_OPTIONAL: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
   "batch_size" := int (optional, -1: the server chooses),
   "labels" := [string] (optional),
   "cache" := bool (optional),
   "container_name" := string (optional),
   "model_data_path" := string (optional)
  }
"#;
pub(super) const DELETE_OPTIONAL: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
   "force" := bool (optional, true; false: not if an application queries it)
  }
"#;
pub(super) const VERSION_SCHEMA: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
  }
"#;
pub(super) const GET_SCHEMA: &str = r#"
  {
    "model_name" := string,
    "model_version" := string
  }
"#;

pub(super) fn add(body: &Object<'_>) -> Result<Change, Failure> {
    let name = body.string("model_name")?;
    let version = body.string("model_version")?;
    let labels = body.strings("labels")?;
    let input_type = body.string("input_type")?;
    let container_name = body.string("container_name")?;
    let model_data_path = body.string("model_data_path")?;
    let batch_size = optional(body, "batch_size", Object::int)?.unwrap_or(-1);
    let make_current = optional(body, "make_current", Object::bool)?;
    let cache = optional(body, "cache", Object::bool)?.unwrap_or(true);
    let signature = signature(body)?;

    let batch_size = batch_size_of(batch_size)?;
    let id = ModelId::new(names::model(&name)?, names::version(&version)?);
    let labels = labels.iter().map(|l| names::label(l)).collect::<Result<_, _>>()?;
    let input_type = names::input_type(&input_type)?;
    if signature.is_some() && input_type != InputType::Tensors {
        let text = format!("signature: only models of type tensors have one, not {input_type}");
        return Err(Failure::Refused(text));
    }
    let done =
        format!("Successfully added model with name '{}' and input type '{input_type}'", id.name);
    let spec = ModelSpec {
        id,
        input_type,
        labels,
        container_name: container_name.into_owned(),
        model_data_path: model_data_path.into_owned(),
        batch_size,
        cache,
        signature,
    };
    let command = match make_current {
        Some(false) => Command::StageModel(spec),
        Some(true) | None => Command::AddModel(spec),
    };
    Ok(Change { command, done })
}

fn batch_size_of(number: i32) -> Result<BatchSize, Failure> {
    BatchSize::from_number(i64::from(number)).ok_or_else(|| {
        let text = "The batch size must be positive or DEFAULT_BATCH_SIZE, which is -1";
        Failure::Refused(text.to_owned())
    })
}

pub(super) fn update(body: &Object<'_>) -> Result<Change, Failure> {
    let id = id(body)?;
    let labels = optional(body, "labels", Object::strings)?;
    let labels = labels.map(|all| all.iter().map(|l| names::label(l)).collect()).transpose()?;
    let batch_size = optional(body, "batch_size", Object::int)?.map(batch_size_of);
    let text = |key| Ok::<_, Failure>(optional(body, key, Object::string)?.map(Cow::into_owned));
    let update = ModelUpdate {
        batch_size: batch_size.transpose()?,
        labels,
        cache: optional(body, "cache", Object::bool)?,
        container_name: text("container_name")?,
        model_data_path: text("model_data_path")?,
        id,
    };
    if let Some(fixed) = ["input_type", "signature"].into_iter().find(|m| body.get(m).is_some()) {
        let text =
            "of a version cannot be changed: its applications rely on it. Add another version";
        return Err(Failure::Refused(format!("The {fixed} {text}")));
    }
    if update.is_empty() {
        let text = format!("There is nothing to change. Expected JSON schema: {UPDATE_OPTIONAL}");
        return Err(Failure::Refused(text));
    }
    let done = format!(
        "Successfully updated model with name '{}' and version '{}'",
        update.id.name, update.id.version
    );
    Ok(Change { command: Command::UpdateModel(update), done })
}

fn signature(body: &Object<'_>) -> Result<Option<Arc<Signature>>, Failure> {
    let Some(json) = body.get("signature") else { return Ok(None) };
    let signature = Signature::parse(json.get().as_bytes());
    let signature = signature.map_err(|why| Failure::Refused(format!("signature: {why}")))?;
    Ok(Some(Arc::new(signature)))
}

fn id(body: &Object<'_>) -> Result<ModelId, Failure> {
    let name = body.string("model_name")?;
    let version = body.string("model_version")?;
    Ok(ModelId::new(names::model(&name)?, names::version(&version)?))
}

pub(super) fn set_version(body: &Object<'_>) -> Result<Change, Failure> {
    let id = id(body)?;
    let done =
        format!("Successfully set model with name '{}' to version '{}'", id.name, id.version);
    Ok(Change { command: Command::SetModelVersion(id), done })
}

pub(super) fn delete_version(body: &Object<'_>) -> Result<Change, Failure> {
    let id = id(body)?;
    let done =
        format!("Successfully deleted model with name '{}' and version '{}'", id.name, id.version);
    let force = optional(body, "force", Object::bool)?;
    let command = match force {
        Some(false) => Command::DeleteUnqueriedModel(id),
        Some(true) | None => Command::DeleteVersionedModel(id),
    };
    Ok(Change { command, done })
}

fn shown(catalog: &Catalog, model: &ModelSpec) -> ModelDescription {
    ModelDescription::of(model, catalog.current_version(model.id.name.as_str()))
}

pub(super) fn list(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let verbose = body.bool("verbose")?;
    let catalog = state.metadata.catalog();
    if verbose {
        return Reply::json(&catalog.models().map(|m| shown(&catalog, m)).collect::<Vec<_>>());
    }
    Reply::json(&catalog.models().map(|m| m.id.to_string()).collect::<Vec<_>>())
}

pub(super) fn get(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let name = body.string("model_name")?;
    let version = body.string("model_version")?;
    let catalog = state.metadata.catalog();
    match catalog.model(&name, &version) {
        Some(model) => Reply::json(&shown(&catalog, model)),
        None => Ok(Reply::Json("{}".to_owned())),
    }
}
