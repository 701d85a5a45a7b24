//! Entries of a file's lists as values.

use std::collections::BTreeSet;
use std::sync::Arc;

use clipper_config::{ApplicationConfig, ContainerConfig, InvalidId, ModelConfig, PolicyConfig};
use clipper_domain::app::{DefaultOutputTooLong, InvalidSlo, InvalidWeight};
use clipper_domain::model::InvalidBatchSize;
use clipper_domain::{
    AppName, AppSpec, BatchSize, InputType, InvalidName, Label, LatencySlo, ModelName, ModelSpec,
    PolicySpec, Replicas, Runtime, Weight,
};

/// An application and the models that it queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredApp {
    pub spec: AppSpec,
    pub models: BTreeSet<ModelName>,
    /// Models that it queries once they have a current version.
    pub absent: BTreeSet<ModelName>,
}

/// A model version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredModel {
    pub spec: ModelSpec,
    /// What the server keeps alive of it; `None`: its containers connect by themselves.
    pub replicas: Option<Replicas>,
    /// Whether queries go to it, if that is said.
    pub current: Option<bool>,
}

/// A value that is none of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    #[error(transparent)]
    ModelId(#[from] InvalidId),
    #[error("model name: {0}")]
    ModelName(InvalidName),
    #[error("application name: {0}")]
    AppName(InvalidName),
    #[error("label: {0}")]
    Label(InvalidName),
    #[error("unknown input type '{0}'")]
    InputType(String),
    #[error(transparent)]
    BatchSize(#[from] InvalidBatchSize),
    #[error(transparent)]
    Slo(#[from] InvalidSlo),
    #[error(transparent)]
    DefaultOutput(#[from] DefaultOutputTooLong),
    #[error(transparent)]
    Weight(#[from] InvalidWeight),
}

pub(super) fn model_spec(model: &ModelConfig) -> Result<ModelSpec, InvalidEntry> {
    let labels = model.labels.iter().map(|label| Label::parse(label));
    let runtime = model.container.as_ref().map(ContainerConfig::runtime);
    let container = || runtime.as_ref().map_or("external", Runtime::name).to_owned();
    let source = || runtime.as_ref().map_or_else(String::new, Runtime::source);
    Ok(ModelSpec {
        id: model.id()?,
        input_type: input_type(&model.input_type)?,
        labels: labels.collect::<Result<_, _>>().map_err(InvalidEntry::Label)?,
        container_name: model.container_name.clone().unwrap_or_else(container),
        model_data_path: model.model_data_path.clone().unwrap_or_else(source),
        batch_size: BatchSize::try_from(model.batch_size)?,
        cache: model.cache,
        signature: model.signature.clone().map(Arc::new),
    })
}

fn app_spec(app: &ApplicationConfig) -> Result<AppSpec, InvalidEntry> {
    let policy = app.policy.as_ref().map_or_else(PolicySpec::usual, PolicyConfig::spec);
    Ok(AppSpec {
        name: AppName::parse(&app.name).map_err(InvalidEntry::AppName)?,
        input_type: input_type(&app.input_type)?,
        policy: policy.name,
        policy_parameters: policy.parameters,
        default_output: clipper_domain::default_output(app.default_output.clone())?,
        latency_slo: LatencySlo::try_from(app.latency_slo_micros)?,
        on_model_error: app.on_model_error,
        cache: app.cache,
        weight: Weight::try_from(i64::from(app.weight))?,
        limits: app.limits,
        rollout: None,
    })
}

fn name(model: &str) -> Result<ModelName, InvalidEntry> {
    ModelName::parse(model).map_err(InvalidEntry::ModelName)
}

pub(super) fn declared_app(app: &ApplicationConfig) -> Result<DeclaredApp, InvalidEntry> {
    Ok(DeclaredApp {
        spec: app_spec(app)?,
        models: app
            .model
            .iter()
            .chain(&app.models)
            .map(|model| name(model))
            .collect::<Result<_, _>>()?,
        absent: app.absent_models.iter().map(|model| name(model)).collect::<Result<_, _>>()?,
    })
}

fn input_type(text: &str) -> Result<InputType, InvalidEntry> {
    InputType::parse(text).ok_or_else(|| InvalidEntry::InputType(text.to_owned()))
}
