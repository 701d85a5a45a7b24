//! The entries of the tables in the original's form, byte for byte (docs/redis.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::fields::{
    Hash, SIGNATURE, batch_size, field, input_type, number, parse, signature, slo, text,
};
use super::key_rows;
use super::row_error::RowError;
use crate::store::policy_state::{self, DefaultPolicyState};
use clipper_domain::{
    AccessKey, AppName, AppSpec, InputType, KeyName, Label, Limits, ModelId, ModelName, ModelSpec,
    ModelVersion, OnModelError, PolicyParameters, ReplicaId, Replicas, Weight, default_output,
};

/// What the keys of [`Table::Metadata`] start with.
const CURRENT_PREFIX: &str = "CURRENT_MODEL_VERSION:";

/// What the keys of planned replicas in [`Table::Resource`] start with.
const REPLICAS_PREFIX: &str = "clipper:replicas:";

/// The original writes a C++ double that nothing reads.
const LOAD: &str = "0.000000";

const ON_MODEL_ERROR: &str = "on_model_error";
const CACHE: &str = "cache";
const WEIGHT: &str = "weight";
const LIMITS: &str = "limits";

/// The field of an application that holds what is set of its policy's parameters, as JSON.
pub const POLICY_PARAMETERS: &str = "policy_parameters";

/// The field of an application that holds its rollout, as JSON.
pub const ROLLOUT: &str = "rollout";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    State,
    Model,
    Container,
    /// Unused by the original; holds what frontends of this server tell each other.
    Resource,
    Application,
    Metadata,
    /// Links of applications to models, sets.
    Links,
}

impl Table {
    /// The tables that the catalog is made of.
    pub const CATALOG: [Self; 4] = [Self::Model, Self::Metadata, Self::Application, Self::Links];

    pub const ALL: [Self; 7] = [
        Self::State,
        Self::Model,
        Self::Container,
        Self::Resource,
        Self::Application,
        Self::Metadata,
        Self::Links,
    ];

    /// Its number, before the offset of the URL is added.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::State => 1,
            Self::Model => 2,
            Self::Container => 3,
            Self::Resource => 4,
            Self::Application => 5,
            Self::Metadata => 6,
            Self::Links => 7,
        }
    }

    /// The inverse of [`Self::number`].
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }
}

/// A key in a table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub table: Table,
    /// The key; whoever wrote it may have used any bytes.
    pub name: Vec<u8>,
}

impl Key {
    /// A key by its text.
    #[must_use]
    pub fn new(table: Table, name: &str) -> Self {
        Self { table, name: name.as_bytes().to_vec() }
    }

    /// The key of an application's definition.
    #[must_use]
    pub fn app(name: &AppName) -> Self {
        Self::new(Table::Application, name.as_str())
    }

    /// The key of an application's links.
    #[must_use]
    pub fn links(name: &AppName) -> Self {
        Self::new(Table::Links, name.as_str())
    }

    /// The key of a model version.
    #[must_use]
    pub fn model(id: &ModelId) -> Self {
        Self::new(Table::Model, &id.to_string())
    }

    /// The key of a model's current version.
    #[must_use]
    pub fn current(model: &ModelName) -> Self {
        Self::new(Table::Metadata, &format!("{CURRENT_PREFIX}{model}"))
    }

    /// The key of the replicas that servers keep of a model version.
    #[must_use]
    pub fn replicas(id: &ModelId) -> Self {
        Self::new(Table::Resource, &format!("{REPLICAS_PREFIX}{id}"))
    }

    /// The pattern of all keys of current versions.
    #[must_use]
    pub fn every_current() -> String {
        format!("{CURRENT_PREFIX}*")
    }

    /// The pattern of all keys of planned replicas.
    #[must_use]
    pub fn every_replicas() -> String {
        format!("{REPLICAS_PREFIX}*")
    }

    /// The key of the row of a key.
    #[must_use]
    pub fn access(name: &KeyName) -> Self {
        Self::new(Table::Resource, &key_rows::row_of(name))
    }

    /// The pattern of all of these.
    #[must_use]
    pub fn every_access() -> String {
        key_rows::every_row()
    }

    /// The key of a replica.
    #[must_use]
    pub fn container(model: &ModelId, replica: ReplicaId) -> Self {
        Self::new(Table::Container, &format!("{},{},{replica}", model.name, model.version))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db {} {:?}", self.table.number(), String::from_utf8_lossy(&self.name))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    Absent,
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Text(Vec<u8>),
    /// A value of another type than its table's.
    OtherType,
}

/// An entry that means something to the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    App(AppSpec),
    Model(ModelSpec),
    /// A model version that a management frontend has marked as deleted.
    Marked(ModelId),
    Current(ModelName, ModelVersion),
    /// The models an application is linked to.
    Links(AppName, BTreeSet<ModelName>),
    /// The replicas that servers keep of a model version.
    Replicas(ModelId, Replicas),
    /// A key; `None`: it was revoked.
    Access(KeyName, Option<Box<AccessKey>>),
}

/// A field and its value, in the order of the original's writes.
pub type Fields = Vec<(&'static str, String)>;

/// The fields of an application.
///
/// What it does about errors of the model, that it wants no cache, its weight, its policy's
/// parameters and its rollout are fields that the original's readers pass over. They are left out
/// where they are the default, so that the row is then the original's to the byte.
#[must_use]
pub fn app_fields(app: &AppSpec) -> Fields {
    let mut fields = vec![
        ("input_type", app.input_type.long_name().to_owned()),
        ("policy", app.policy.clone()),
        ("default_output", app.default_output.clone()),
        ("latency_slo_micros", app.latency_slo.as_micros().to_string()),
    ];
    if !app.policy_parameters.is_empty() {
        fields.push((POLICY_PARAMETERS, json_text(&app.policy_parameters)));
    }
    if !app.on_model_error.is_default() {
        fields.push((ON_MODEL_ERROR, app.on_model_error.name().to_owned()));
    }
    if !app.cache {
        fields.push((CACHE, app.cache.to_string()));
    }
    if !app.weight.is_default() {
        fields.push((WEIGHT, app.weight.get().to_string()));
    }
    if !app.limits.is_none() {
        fields.push((LIMITS, json_text(&app.limits)));
    }
    if let Some(rollout) = &app.rollout {
        fields.push((ROLLOUT, json_text(rollout)));
    }
    fields
}

/// What one field has as JSON: a policy's parameters, limits, a rollout.
#[must_use]
pub fn json_text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The fields of a model version; that it wants no cache, and its
/// signature, are ours, as in [`app_fields`].
#[must_use]
pub fn model_fields(model: &ModelSpec) -> Fields {
    let labels: Vec<&str> = model.labels.iter().map(Label::as_str).collect();
    let mut fields = vec![
        ("model_name", model.id.name.to_string()),
        ("model_version", model.id.version.to_string()),
        ("load", LOAD.to_owned()),
        ("input_type", model.input_type.long_name().to_owned()),
        ("labels", labels.join(",")),
        ("container_name", model.container_name.clone()),
        ("model_data_path", model.model_data_path.clone()),
        ("batch_size", i64::from(model.batch_size).to_string()),
        ("valid", String::new()),
    ];
    if !model.cache {
        fields.push((CACHE, model.cache.to_string()));
    }
    if let Some(signature) = &model.signature {
        fields.push((SIGNATURE, signature.json()));
    }
    fields
}

/// A replica as its row says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    pub model: ModelId,
    pub replica: ReplicaId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// The frontend it is connected to; `None` if an original frontend wrote the row.
    pub frontend: Option<String>,
}

/// The fields of a replica; `frontend`, its owner, is one that the original's readers pass over.
#[must_use]
pub fn container_fields(row: &ContainerRow) -> Fields {
    let mut fields = vec![
        ("model_id", row.model.to_string()),
        ("model_name", row.model.name.to_string()),
        ("model_version", row.model.version.to_string()),
        ("model_replica_id", row.replica.to_string()),
        ("zmq_connection_id", row.replica.to_string()),
        ("batch_size", "1".to_owned()),
        ("input_type", row.input_type.long_name().to_owned()),
    ];
    fields.extend(row.frontend.clone().map(|frontend| ("frontend", frontend)));
    fields
}

/// Reads a row of [`Table::Container`].
///
/// # Errors
/// What is wrong with it.
pub fn decode_container(raw: &Raw) -> Result<Option<ContainerRow>, RowError> {
    let Raw::Hash(fields) = raw else { return not_a(raw, "hash").map(|()| None) };
    let name = parse(fields, "model_name", ModelName::parse)?;
    let version = parse(fields, "model_version", ModelVersion::parse)?;
    let replica = field(fields, "model_replica_id")?;
    Ok(Some(ContainerRow {
        model: ModelId::new(name, version),
        replica: ReplicaId(replica.parse().map_err(|_| {
            let why = RowError::NotANumber(replica.to_owned());
            RowError::of("model_replica_id")(why)
        })?),
        input_type: input_type(fields)?,
        frontend: field(fields, "frontend").ok().map(str::to_owned),
    }))
}

/// What an entry of the catalog's tables means; `None`: the key is not there.
///
/// # Errors
/// What is wrong with it.
pub fn decode(key: &Key, raw: &Raw) -> Result<Option<Entry>, RowError> {
    if *raw == Raw::Absent {
        return Ok(None);
    }
    let name =
        std::str::from_utf8(&key.name).map_err(|_| RowError::NotText("the key".to_owned()))?;
    let entry = match key.table {
        Table::Application => {
            let Raw::Hash(fields) = raw else { return not_a(raw, "hash").map(|()| None) };
            Entry::App(decode_app(app_name(name)?, fields)?)
        }
        Table::Model => {
            let Raw::Hash(fields) = raw else { return not_a(raw, "hash").map(|()| None) };
            decode_model(model_id(name)?, fields)?
        }
        Table::Metadata => {
            let Some(model) = name.strip_prefix(CURRENT_PREFIX) else { return Ok(None) };
            let Raw::Text(version) = raw else { return not_a(raw, "string").map(|()| None) };
            let model = ModelName::parse(model).map_err(RowError::of("model name"))?;
            let version = ModelVersion::parse(text("the version", version)?)
                .map_err(RowError::of("model version"))?;
            Entry::Current(model, version)
        }
        Table::Links => {
            let Raw::Set(members) = raw else { return not_a(raw, "set").map(|()| None) };
            let model = |member: &Vec<u8>| {
                let member = text("a member", member)?;
                ModelName::parse(member).map_err(RowError::of(format!("member {member:?}")))
            };
            Entry::Links(app_name(name)?, members.iter().map(model).collect::<Result<_, _>>()?)
        }
        Table::Resource => {
            let Some(id) = name.strip_prefix(REPLICAS_PREFIX) else {
                let text = if let Raw::Text(text) = raw { Some(text.as_slice()) } else { None };
                let kept = key_rows::read(name, text)?;
                return Ok(kept.map(|(name, key)| Entry::Access(name, key)));
            };
            let Raw::Text(plan) = raw else { return not_a(raw, "string").map(|()| None) };
            let plan = serde_json::from_slice(plan).map_err(RowError::invalid)?;
            Entry::Replicas(model_id(id)?, plan)
        }
        Table::State | Table::Container => return Ok(None),
    };
    Ok(Some(entry))
}

/// The application of a key of [`Table::Application`] or [`Table::Links`].
#[must_use]
pub fn app_of(key: &Key) -> Option<AppName> {
    matches!(key.table, Table::Application | Table::Links)
        .then(|| AppName::parse(std::str::from_utf8(&key.name).ok()?).ok())?
}

/// The model version of a key of [`Table::Model`].
#[must_use]
pub fn model_of(key: &Key) -> Option<ModelId> {
    let name = std::str::from_utf8(&key.name).ok().filter(|_| key.table == Table::Model)?;
    model_id(name).ok()
}

/// The model of a key of [`Table::Metadata`].
#[must_use]
pub fn current_of(key: &Key) -> Option<ModelName> {
    let name = std::str::from_utf8(&key.name).ok().filter(|_| key.table == Table::Metadata)?;
    ModelName::parse(name.strip_prefix(CURRENT_PREFIX)?).ok()
}

/// The model version of a key of planned replicas.
#[must_use]
pub fn replicas_of(key: &Key) -> Option<ModelId> {
    let name = std::str::from_utf8(&key.name).ok().filter(|_| key.table == Table::Resource)?;
    model_id(name.strip_prefix(REPLICAS_PREFIX)?).ok()
}

/// The name of the key whose row this is.
#[must_use]
pub fn access_of(key: &Key) -> Option<KeyName> {
    let row = std::str::from_utf8(&key.name).ok().filter(|_| key.table == Table::Resource)?;
    key_rows::name_in(row)
}

/// The key and value of the policy state that the original writes for a new application.
#[must_use]
pub fn initial_state(app: &AppSpec) -> (Key, String) {
    let value = DefaultPolicyState::text(&app.default_output);
    (Key::new(Table::State, &policy_state::key(&app.name, 0)), value)
}

fn not_a(raw: &Raw, wanted: &'static str) -> Result<(), RowError> {
    if *raw == Raw::Absent { Ok(()) } else { Err(RowError::NotA(wanted)) }
}

fn app_name(name: &str) -> Result<AppName, RowError> {
    AppName::parse(name).map_err(RowError::of("application name"))
}

fn model_id(name: &str) -> Result<ModelId, RowError> {
    let parts = name.split_once(':');
    let (name, version) = parts.ok_or(RowError::NotAVersion)?;
    let name = ModelName::parse(name).map_err(RowError::of("model name"))?;
    let version = ModelVersion::parse(version).map_err(RowError::of("model version"))?;
    Ok(ModelId::new(name, version))
}

fn decode_app(name: AppName, fields: &Hash) -> Result<AppSpec, RowError> {
    Ok(AppSpec {
        name,
        input_type: input_type(fields)?,
        policy: field(fields, "policy")?.to_owned(),
        policy_parameters: match fields.get(POLICY_PARAMETERS.as_bytes()) {
            Some(value) => {
                serde_json::from_slice(value).map_err(RowError::of(POLICY_PARAMETERS))?
            }
            None => PolicyParameters::new(),
        },
        default_output: default_output(field(fields, "default_output")?.to_owned())
            .map_err(RowError::invalid)?,
        latency_slo: parse(fields, "latency_slo_micros", slo)?,
        on_model_error: match fields.get(ON_MODEL_ERROR.as_bytes()) {
            Some(value) => {
                OnModelError::parse(text(ON_MODEL_ERROR, value)?).map_err(RowError::invalid)?
            }
            None => OnModelError::default(),
        },
        cache: cache(fields)?,
        weight: match fields.get(WEIGHT.as_bytes()) {
            Some(value) => {
                Weight::try_from(number(text(WEIGHT, value)?)?).map_err(RowError::invalid)?
            }
            None => Weight::default(),
        },
        limits: match fields.get(LIMITS.as_bytes()) {
            Some(value) => serde_json::from_slice(value).map_err(RowError::of(LIMITS))?,
            None => Limits::default(),
        },
        rollout: match fields.get(ROLLOUT.as_bytes()) {
            Some(value) => Some(serde_json::from_slice(value).map_err(RowError::of(ROLLOUT))?),
            None => None,
        },
    })
}

fn cache(fields: &Hash) -> Result<bool, RowError> {
    match fields.get(CACHE.as_bytes()) {
        None => Ok(true),
        Some(value) => {
            let value = text(CACHE, value)?;
            let neither = |_| format!("{value:?} is neither true nor false");
            value.parse().map_err(neither).map_err(RowError::of(CACHE))
        }
    }
}

fn decode_model(id: ModelId, fields: &Hash) -> Result<Entry, RowError> {
    for (name, part) in [("model_name", id.name.as_str()), ("model_version", id.version.as_str())] {
        let value = field(fields, name)?;
        if value != part {
            let (value, key) = (value.to_owned(), part.to_owned());
            return Err(RowError::NotAsInKey { field: name, value, key });
        }
    }
    let labels = field(fields, "labels")?.split(',').filter(|label| !label.is_empty());
    let model = ModelSpec {
        id,
        input_type: input_type(fields)?,
        labels: labels
            .map(|label| Label::parse(label).map_err(RowError::of(format!("label {label:?}"))))
            .collect::<Result<_, _>>()?,
        container_name: field(fields, "container_name")?.to_owned(),
        model_data_path: field(fields, "model_data_path")?.to_owned(),
        batch_size: parse(fields, "batch_size", batch_size)?,
        cache: cache(fields)?,
        signature: signature(fields)?,
    };
    let valid = fields.contains_key(b"valid".as_slice());
    Ok(if valid { Entry::Model(model) } else { Entry::Marked(model.id) })
}
