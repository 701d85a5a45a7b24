//! Who a name means.

use std::time::Duration;

use actix::Addr;
use smallvec::SmallVec;

use super::super::errors::ApiError;
use super::errors;
use super::state::V2;
use crate::actors::apps::app::App;
use crate::actors::apps::router::{AppOfModel, Route};
use crate::store::projection::Catalog;
use clipper_clock::Instant;
use clipper_domain::{
    AppName, BatchSize, InputType, LatencySlo, ModelId, ModelName, ModelSpec, ModelVersion,
};

/// What a name, and perhaps a version, stands for.
#[derive(Debug)]
pub(crate) struct Target {
    /// The application and its objective; `None` for a model by itself.
    pub(crate) app: Option<(AppName, LatencySlo)>,
    /// The models that are asked: none, one, or those that the application's policy chooses among.
    pub(crate) models: SmallVec<[ModelName; 1]>,
    /// Of each the version that is asked, where there is one.
    pub(crate) served: SmallVec<[ModelId; 1]>,
    /// What its inputs are.
    pub(crate) input_type: InputType,
    /// Of the only version that is asked.
    pub(crate) batch_size: Option<BatchSize>,
    /// Whether outputs may be answered again.
    pub(crate) cache: bool,
}

impl Target {
    /// The version that answers, where that can only be one.
    pub(crate) fn version(&self) -> Option<&ModelVersion> {
        match (&self.models[..], &self.served[..]) {
            ([_], [id]) => Some(&id.version),
            _ => None,
        }
    }

    /// When a query that arrived then is to be answered at the latest.
    pub(crate) fn due(&self, v2: &V2, arrived: Instant) -> Instant {
        let direct = || Duration::from_micros(v2.plane.serving.direct_slo_micros.into());
        let objective = self.app.as_ref().map_or_else(direct, |(_, slo)| slo.as_duration());
        arrived + v2.limits.due_within(objective)
    }
}

/// Finds who is meant.
pub(crate) fn find(
    catalog: &Catalog,
    name: &str,
    version: Option<&str>,
) -> Result<Target, ApiError> {
    let app = catalog.app(name);
    let models: SmallVec<[ModelName; 1]> = match app {
        Some(_) => catalog.queried_models(name).cloned().collect(),
        None => catalog.versions_of(name).take(1).map(|spec| spec.id.name.clone()).collect(),
    };
    if app.is_none() && models.is_empty() {
        return Err(errors::unknown_model(name, version));
    }
    if version.is_some() && models.len() > 1 {
        return Err(errors::version_of_several(name));
    }
    let served: SmallVec<[&ModelSpec; 1]> =
        models.iter().filter_map(|model| served(catalog, model, version)).collect();
    if version.is_some() && served.is_empty() {
        return Err(errors::unknown_model(name, version));
    }
    let only = if models.len() == 1 { served.first() } else { None };
    let input_type = only.map(|spec| spec.input_type).or(app.map(|app| app.input_type));
    let Some(input_type) = input_type else {
        return Err(ApiError::unavailable(format!("Model '{name}' has no current version")));
    };
    Ok(Target {
        app: app.map(|app| (app.name.clone(), app.latency_slo)),
        served: served.iter().map(|spec| spec.id.clone()).collect(),
        input_type,
        batch_size: only.map(|spec| spec.batch_size),
        cache: app.is_none_or(|app| app.cache) && served.iter().all(|spec| spec.cache),
        models,
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
pub(crate) async fn actor(v2: &V2, name: &str, target: &Target) -> Result<Addr<App>, ApiError> {
    let is_away = || ApiError::unavailable("The server is starting");
    match v2.routes.of(name) {
        Route::To(app) if target.app.is_some() => return Ok(app),
        Route::Starting => return Err(is_away()),
        // Defined, or deleted, at this moment.
        _ if target.app.is_some() => return Err(is_away()),
        Route::To(_) | Route::Unknown => {}
    }
    let [model] = &target.models[..] else { return Err(errors::unknown_model(name, None)) };
    if let Some(app) = v2.routes.of_model(model) {
        return Ok(app);
    }
    let started = v2.router.send(AppOfModel(model.clone(), target.input_type)).await;
    started.ok().flatten().ok_or_else(is_away)
}
