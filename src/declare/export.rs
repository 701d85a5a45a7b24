//! A state as the lists of a file that leads to it.

use crate::store::projection::Catalog;
use clipper_config::{ApplicationConfig, ContainerConfig, Lists, ModelConfig, PolicyConfig};
use clipper_domain::{AppSpec, Label, ModelName, ModelSpec, Runtime};

/// The applications and models of a state, without keys and rollouts. Applied to an empty server,
/// it makes an equal one.
#[must_use]
pub fn export(catalog: &Catalog) -> Lists {
    Lists {
        applications: catalog.apps().map(|app| application(app, catalog)).collect(),
        models: catalog.models().map(|model| version(model, catalog)).collect(),
    }
}

fn application(app: &AppSpec, catalog: &Catalog) -> ApplicationConfig {
    let linked = catalog.linked_models(app.name.as_str());
    let (mut models, absent): (Vec<&ModelName>, Vec<&ModelName>) =
        linked.partition(|model| catalog.current_version(model.as_str()).is_some());
    let texts = |models: Vec<&ModelName>| models.into_iter().map(ToString::to_string).collect();
    // Usual applications have one, and a key for it.
    let model = if models.len() == 1 { models.pop().map(ToString::to_string) } else { None };
    let policy =
        || PolicyConfig { name: app.policy.clone(), parameters: app.policy_parameters.clone() };
    let is_usual = app.has_default_policy() && app.policy_parameters.is_empty();
    ApplicationConfig {
        name: app.name.to_string(),
        input_type: app.input_type.long_name().to_owned(),
        default_output: app.default_output.clone(),
        latency_slo_micros: i64::from(app.latency_slo.as_micros()),
        on_model_error: app.on_model_error,
        cache: app.cache,
        weight: app.weight.get(),
        model,
        models: texts(models),
        absent_models: texts(absent),
        limits: app.limits,
        policy: (!is_usual).then(policy),
    }
}

fn version(model: &ModelSpec, catalog: &Catalog) -> ModelConfig {
    let replicas = catalog.replicas_of(&model.id);
    let runtime = replicas.map(|replicas| &replicas.runtime);
    let (container, source) = (
        runtime.map_or("external", Runtime::name),
        runtime.map_or_else(String::new, Runtime::source),
    );
    let note = |is: &String, usual: &str| (is != usual).then(|| is.clone());
    let is_current = catalog.current_version(model.id.name.as_str()) == Some(&model.id.version);
    ModelConfig {
        name: model.id.name.to_string(),
        version: model.id.version.to_string(),
        input_type: model.input_type.long_name().to_owned(),
        batch_size: i64::from(model.batch_size),
        labels: model.labels.iter().map(|label| Label::as_str(label).to_owned()).collect(),
        cache: model.cache,
        current: Some(is_current),
        container_name: note(&model.container_name, container),
        model_data_path: note(&model.model_data_path, &source),
        signature: model.signature.as_deref().cloned(),
        container: replicas.map(ContainerConfig::of),
        process: None,
    }
}
