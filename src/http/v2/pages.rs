//! What the server says of itself and of its models.

use actix_web::http::StatusCode;
use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::json;

use super::super::body;
use super::super::errors::{self as kinds, ApiError, ErrorLabel};
use super::state::V2;
use super::target::{self, Target};
use crate::actors::plane::data_plane::DataPlane;
use crate::metrics::ModelCounts;
use crate::store::projection::Catalog;
use clipper_domain::{BatchSize, ModelName, ModelSpec};
use clipper_oip::{
    Config, EXTENSIONS, IndexRequest, IndexRow, InferenceStats, Metadata, Named, Spent, Statistics,
    TensorInfo,
};

const PLATFORM: &str = "clipper";

fn page(content: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(content)
}

/// 200, or 503 where what was asked after is not ready.
fn readiness(is_ready: bool, content: &impl Serialize) -> HttpResponse {
    if is_ready {
        return page(content);
    }
    let mut response = HttpResponse::build(StatusCode::SERVICE_UNAVAILABLE).json(content);
    response.extensions_mut().insert(ErrorLabel(kinds::UNAVAILABLE.label));
    response
}

pub(super) fn server() -> HttpResponse {
    let version = env!("CARGO_PKG_VERSION");
    page(&json!({ "name": "clipper", "version": version, "extensions": EXTENSIONS }))
}

pub(super) fn live() -> HttpResponse {
    page(&json!({ "live": true }))
}

pub(super) fn ready(v2: &V2) -> HttpResponse {
    let is_ready = v2.readiness.missing().is_empty();
    readiness(is_ready, &json!({ "ready": is_ready, "live": true }))
}

pub(super) fn metadata(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let catalog = v2.view.read();
    let target = target::find(&catalog, name, version)?;
    let model = target.model.as_ref().map_or("", ModelName::as_str);
    let versions = catalog.versions_of(model).map(|spec| spec.id.version.as_str()).collect();
    Ok(page(&Metadata {
        name,
        versions,
        platform: PLATFORM,
        inputs: [TensorInfo::input(target.input_type)],
        outputs: [TensorInfo::output()],
    }))
}

pub(super) fn model_ready(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let target = target::find(&v2.view.read(), name, version)?;
    let ready = v2.readiness.missing().is_empty() && is_served(&v2.plane, &target);
    Ok(readiness(ready, &Named { name, ready }))
}

/// Whether a replica is connected.
fn is_served(plane: &DataPlane, target: &Target) -> bool {
    let id = target.model.as_ref().zip(target.version.as_ref());
    let handle = id.and_then(|(model, version)| plane.directory.get(model, version));
    handle.is_some_and(|handle| handle.replicas() > 0)
}

pub(super) fn config(v2: &V2, name: &str, version: Option<&str>) -> Result<HttpResponse, ApiError> {
    let target = target::find(&v2.view.read(), name, version)?;
    let serving = &v2.plane.serving;
    let objective = target.app.as_ref().map(|app| app.latency_slo.as_micros());
    let config = Config {
        name,
        platform: PLATFORM,
        input_type: target.input_type,
        rows_max: serving.request_inputs_max,
        batch_size: target.batch_size.and_then(|size| match size {
            BatchSize::Adaptive => None,
            BatchSize::Fixed(size) => Some(size.get()),
        }),
        cache: target.cache,
        latency_slo: objective.unwrap_or(serving.direct_slo_micros),
    };
    Ok(page(&config.page()))
}

pub(super) fn statistics(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let catalog = v2.view.read();
    let target = target::find(&catalog, name, version)?;
    let model = target.model.as_ref().map_or("", ModelName::as_str);
    let rows: Vec<_> = catalog
        .versions_of(model)
        .filter(|spec| version.is_none_or(|version| spec.id.version.as_str() == version))
        .filter_map(|spec| counted(&v2.plane, name, spec))
        .collect();
    Ok(page(&json!({ "model_stats": rows })))
}

/// What one version has done, under the name that was asked for.
fn counted<'c>(plane: &DataPlane, name: &'c str, spec: &'c ModelSpec) -> Option<Statistics<'c>> {
    let handle = plane.directory.get(&spec.id.name, &spec.id.version)?;
    let counts = handle.metrics.counts();
    let ModelCounts { hits, misses, queries, errors, batches, queued, computed } = counts;
    let succeeded = queries.saturating_sub(errors).saturating_add(hits);
    Some(Statistics {
        name,
        version: spec.id.version.as_str(),
        inference_count: succeeded,
        execution_count: batches,
        inference_stats: InferenceStats {
            success: Spent::micros(succeeded, queued.micros.saturating_add(computed.micros)),
            fail: Spent::micros(errors, 0),
            queue: Spent::micros(queued.count, queued.micros),
            compute_infer: Spent::micros(computed.count, computed.micros),
            cache_hit: Spent::micros(hits, 0),
            cache_miss: Spent::micros(misses, 0),
            ..InferenceStats::default()
        },
        batch_stats: [],
    })
}

/// Every name that can be asked for: applications, and models that none is called as, with the
/// versions that can be asked for.
fn names(catalog: &Catalog) -> impl Iterator<Item = (&str, Vec<&ModelSpec>)> {
    let apps = catalog.apps().map(|app| {
        let name = app.name.as_str();
        let linked = catalog.linked_models(name).next();
        (name, linked.map_or("", ModelName::as_str))
    });
    let mut seen = None;
    let models = catalog.models().filter_map(move |spec| {
        let name = spec.id.name.as_str();
        // Versions of a model follow each other.
        let is_first = seen.replace(name) != Some(name);
        (is_first && catalog.app(name).is_none()).then_some((name, name))
    });
    apps.chain(models).map(|(name, model)| (name, catalog.versions_of(model).collect()))
}

/// Long pages are made elsewhere.
async fn made<T: Serialize + Send + 'static>(
    v2: &V2,
    make: impl FnOnce(&Catalog, &DataPlane) -> T + Send + 'static,
) -> Result<HttpResponse, ApiError> {
    let (view, plane) = (v2.view.clone(), std::sync::Arc::clone(&v2.plane));
    let text = web::block(move || {
        let (_, catalog) = view.copy();
        serde_json::to_vec(&make(&catalog, &plane))
    });
    let text = text.await.map_err(std::io::Error::other);
    match text.and_then(|text| text.map_err(std::io::Error::other)) {
        Ok(text) => Ok(HttpResponse::Ok().content_type("application/json").body(text)),
        Err(error) => Err(ApiError::unavailable(format!("The page was not made: {error}"))),
    }
}

pub(super) async fn models(v2: &V2) -> Result<HttpResponse, ApiError> {
    made(v2, |catalog, _| {
        let names: Vec<String> = names(catalog).map(|(name, _)| name.to_owned()).collect();
        json!({ "models": names })
    })
    .await
}

pub(super) async fn all_statistics(v2: &V2) -> Result<HttpResponse, ApiError> {
    made(v2, |catalog, plane| {
        let rows: Vec<_> = names(catalog)
            .flat_map(|(name, specs)| {
                specs
                    .into_iter()
                    .filter_map(move |spec| serde_json::to_value(counted(plane, name, spec)?).ok())
            })
            .collect();
        json!({ "model_stats": rows })
    })
    .await
}

pub(super) async fn index(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(request, payload, &v2.limits.bodies).await?;
    let body = body.join();
    let asked: IndexRequest = match &*body {
        [] => IndexRequest::default(),
        text => serde_json::from_slice(text)
            .map_err(|error| ApiError::json(format!("request: {error}")))?,
    };
    let is_ready_only = asked.ready == Some(true);
    let is_ready = v2.readiness.missing().is_empty();
    made(v2, move |catalog, plane| {
        let rows =
            names(catalog).flat_map(|(name, specs)| index_rows(plane, name, &specs, is_ready));
        let wanted = |row: &IndexRow| !is_ready_only || row.state == "READY";
        rows.filter(wanted).collect::<Vec<_>>()
    })
    .await
}

fn index_rows(
    plane: &DataPlane,
    name: &str,
    specs: &[&ModelSpec],
    is_ready: bool,
) -> Vec<IndexRow> {
    let row = |version: Option<&str>, reason: &'static str| IndexRow {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        state: if reason.is_empty() { "READY" } else { "UNAVAILABLE" },
        reason,
    };
    if specs.is_empty() {
        return vec![row(None, "the application is not linked to a model")];
    }
    let of = |spec: &&ModelSpec| {
        let handle = plane.directory.get(&spec.id.name, &spec.id.version);
        let reason = match handle.map(|handle| handle.replicas()) {
            _ if !is_ready => "the server is not ready",
            None | Some(0) => "no replica is connected",
            Some(_) => "",
        };
        row(Some(spec.id.version.as_str()), reason)
    };
    specs.iter().map(of).collect()
}
