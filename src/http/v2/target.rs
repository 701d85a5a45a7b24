//! Who a name means.

use actix::Addr;

use super::super::errors::ApiError;
use super::errors;
use super::state::V2;
use crate::actors::apps::app::App;
use crate::actors::apps::router::{AppOfModel, Route};
use crate::store::projection::Catalog;
use clipper_domain::{AppSpec, BatchSize, InputType, ModelName, ModelSpec, ModelVersion};

/// What a name, and perhaps a version, stands for.
#[derive(Debug)]
pub(super) struct Target {
    /// The application's definition; `None` for a model by itself.
    pub(super) app: Option<AppSpec>,
    /// The model that is asked; an application may have none.
    pub(super) model: Option<ModelName>,
    /// The version that was asked for, else the current one.
    pub(super) version: Option<ModelVersion>,
    /// What its inputs are.
    pub(super) input_type: InputType,
    /// Of the version's definition.
    pub(super) batch_size: Option<BatchSize>,
    /// Whether the version's outputs may be answered again.
    pub(super) cache: bool,
}

/// Finds who is meant.
pub(super) fn find(
    catalog: &Catalog,
    name: &str,
    version: Option<&str>,
) -> Result<Target, ApiError> {
    let app = catalog.app(name);
    let model = match app {
        Some(_) => catalog.linked_models(name).next(),
        None => catalog.versions_of(name).next().map(|spec| &spec.id.name),
    };
    if app.is_none() && model.is_none() {
        return Err(errors::unknown_model(name, version));
    }
    let spec = model.and_then(|model| served(catalog, model, version));
    if version.is_some() && spec.is_none() {
        return Err(errors::unknown_model(name, version));
    }
    let Some(input_type) = app.map(|app| app.input_type).or(spec.map(|spec| spec.input_type))
    else {
        return Err(ApiError::unavailable(format!("Model '{name}' has no current version")));
    };
    Ok(Target {
        app: app.cloned(),
        model: model.cloned(),
        version: spec.map(|spec| spec.id.version.clone()),
        input_type: spec.map_or(input_type, |spec| spec.input_type),
        batch_size: spec.map(|spec| spec.batch_size),
        cache: app.is_none_or(|app| app.cache) && spec.is_some_and(|spec| spec.cache),
    })
}

/// The version asked for, else the current one.
fn served<'c>(
    catalog: &'c Catalog,
    model: &ModelName,
    version: Option<&str>,
) -> Option<&'c ModelSpec> {
    let version = match version {
        Some(version) => version,
        None => catalog.current_version(model.as_str())?.as_str(),
    };
    catalog.model(model.as_str(), version)
}

/// The actor that answers for it on this worker.
pub(super) async fn actor(v2: &V2, name: &str, target: &Target) -> Result<Addr<App>, ApiError> {
    let is_away = || ApiError::unavailable("The server is starting");
    match v2.routes.of(name) {
        Route::To(app) if target.app.is_some() => return Ok(app),
        Route::Starting => return Err(is_away()),
        // Defined, or deleted, at this moment.
        _ if target.app.is_some() => return Err(is_away()),
        Route::To(_) | Route::Unknown => {}
    }
    let Some(model) = &target.model else { return Err(errors::unknown_model(name, None)) };
    if let Some(app) = v2.routes.of_model(model) {
        return Ok(app);
    }
    let started = v2.router.send(AppOfModel(model.clone(), target.input_type)).await;
    started.ok().flatten().ok_or_else(is_away)
}
