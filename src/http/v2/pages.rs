//! What the server says of itself and of its models.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::json;
use smallvec::SmallVec;

use super::super::errors::{self as kinds, ApiError, ErrorLabel};
use super::super::limits::QueryLimits;
use super::super::opening;
use super::state::V2;
use super::target::{self, Target};
use super::tensors;
use crate::actors::plane::data_plane::DataPlane;
use crate::metrics::ModelCounts;
use crate::store::projection::Catalog;
use clipper_domain::{BatchSize, ModelId, ModelName, ModelSpec, Signature};
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

/// The server's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Its name.
pub(crate) const NAME: &str = "clipper";

pub(super) fn server() -> HttpResponse {
    page(&json!({ "name": NAME, "version": VERSION, "extensions": EXTENSIONS }))
}

pub(super) fn live() -> HttpResponse {
    page(&json!({ "live": true }))
}

pub(super) fn ready(v2: &V2) -> HttpResponse {
    let is_ready = v2.readiness.is_ready();
    readiness(is_ready, &json!({ "ready": is_ready, "live": true }))
}

pub(super) fn metadata(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let signature = signature_of(v2, name, version)?;
    Ok(page(&metadata_of(&v2.view.read(), signature.as_deref(), name, version)?))
}

/// Of type tensors, if it is known.
pub(crate) fn signature_of(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<Option<Arc<Signature>>, ApiError> {
    let target = target::find(&v2.view.read(), name, version)?;
    Ok(tensors::signature(&v2.plane, &target))
}

pub(crate) fn metadata_of<'c>(
    catalog: &'c Catalog,
    signature: Option<&'c Signature>,
    name: &'c str,
    version: Option<&str>,
) -> Result<Metadata<'c>, ApiError> {
    let target = target::find(catalog, name, version)?;
    // Of several models none can be asked for by its version.
    let model = if let [model] = &target.models[..] { model.as_str() } else { "" };
    let versions = catalog.versions_of(model).map(|spec| spec.id.version.as_str()).collect();
    Ok(Metadata {
        name,
        versions,
        platform: PLATFORM,
        inputs: TensorInfo::inputs(target.input_type, signature),
        outputs: TensorInfo::outputs(target.input_type, signature),
    })
}

pub(super) fn model_ready(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let ready = is_model_ready(v2, name, version)?;
    Ok(readiness(ready, &Named { name, ready }))
}

pub(crate) fn is_model_ready(v2: &V2, name: &str, version: Option<&str>) -> Result<bool, ApiError> {
    let target = target::find(&v2.view.read(), name, version)?;
    Ok(v2.readiness.is_ready() && is_served(&v2.plane, &target))
}

/// Whether a replica is connected, of one model at least.
fn is_served(plane: &DataPlane, target: &Target) -> bool {
    target.served.iter().any(|id| is_connected(plane, id))
}

fn is_connected(plane: &DataPlane, id: &ModelId) -> bool {
    let handle = plane.directory.get(&id.name, &id.version);
    handle.is_some_and(|handle| handle.replicas() > 0)
}

pub(super) fn config(v2: &V2, name: &str, version: Option<&str>) -> Result<HttpResponse, ApiError> {
    Ok(page(&config_of(v2, name, version)?.page()))
}

pub(crate) fn config_of<'n>(
    v2: &V2,
    name: &'n str,
    version: Option<&str>,
) -> Result<Config<'n>, ApiError> {
    let target = target::find(&v2.view.read(), name, version)?;
    let serving = &v2.plane.serving;
    let objective = target.app.as_ref().map(|(_, objective)| objective.as_micros());
    Ok(Config {
        name,
        platform: PLATFORM,
        input_type: target.input_type,
        signature: tensors::signature(&v2.plane, &target),
        rows_max: serving.request_inputs_max,
        batch_size: target.batch_size.and_then(|size| match size {
            BatchSize::Adaptive => None,
            BatchSize::Fixed(size) => Some(size.get()),
        }),
        cache: target.cache,
        latency_slo: objective.unwrap_or(serving.direct_slo_micros),
    })
}

pub(super) fn statistics(
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let catalog = v2.view.read();
    let rows = statistics_of(&catalog, &v2.plane, name, version)?;
    Ok(page(&json!({ "model_stats": rows })))
}

pub(crate) fn statistics_of<'c>(
    catalog: &'c Catalog,
    plane: &DataPlane,
    name: &'c str,
    version: Option<&str>,
) -> Result<Vec<Statistics<'c>>, ApiError> {
    let target = target::find(catalog, name, version)?;
    let is_one = target.models.len() == 1;
    let rows = target
        .models
        .iter()
        .flat_map(|model| catalog.versions_of(model.as_str()))
        .filter(|spec| version.is_none_or(|version| spec.id.version.as_str() == version))
        // Several models may have a version of the same name.
        .filter_map(|spec| {
            let name = if is_one { name } else { spec.id.name.as_str() };
            counted(plane, name, spec)
        });
    Ok(rows.collect())
}

/// What one version has done, under this name.
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
            // As in Triton, what the cache answers has waited no time, and the three parts of
            // computing have one count: perf_analyzer relies on both.
            queue: Spent::micros(queued.count.saturating_add(hits), queued.micros),
            compute_input: Spent::micros(computed.count, 0),
            compute_infer: Spent::micros(computed.count, computed.micros),
            compute_output: Spent::micros(computed.count, 0),
            cache_hit: Spent::micros(hits, 0),
            cache_miss: Spent::micros(misses, 0),
        },
        batch_stats: [],
    })
}

/// Every name that can be asked for, and the models behind it: applications, and models that none
/// is called as.
fn names(catalog: &Catalog) -> impl Iterator<Item = (&str, Behind<'_>)> {
    let apps = catalog.apps().map(|app| {
        let name = app.name.as_str();
        (name, catalog.linked_models(name).collect())
    });
    let mut seen = None;
    let models = catalog.models().filter_map(move |spec| {
        let name = &spec.id.name;
        // Versions of a model follow each other.
        let is_first = seen.replace(name) != Some(name);
        let is_free = is_first && catalog.app(name.as_str()).is_none();
        is_free.then(|| (name.as_str(), SmallVec::from_buf([name])))
    });
    apps.chain(models)
}

/// The models that a name stands for.
type Behind<'c> = SmallVec<[&'c ModelName; 1]>;

/// Long pages are made elsewhere.
pub(crate) async fn made<T: Send + 'static>(
    v2: &V2,
    make: impl FnOnce(&Catalog, &DataPlane) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (view, plane) = (v2.view.clone(), std::sync::Arc::clone(&v2.plane));
    let page = web::block(move || {
        let (_, catalog) = view.copy();
        make(&catalog, &plane)
    });
    page.await.map_err(not_made)
}

fn not_made(error: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("The page was not made: {error}"))
}

async fn made_page<T: Serialize>(
    v2: &V2,
    make: impl FnOnce(&Catalog, &DataPlane) -> T + Send + 'static,
) -> Result<HttpResponse, ApiError> {
    let text = made(v2, |catalog, plane| serde_json::to_vec(&make(catalog, plane))).await?;
    let text = text.map_err(not_made)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

pub(super) async fn models(v2: &V2) -> Result<HttpResponse, ApiError> {
    made_page(v2, |catalog, _| {
        let names: Vec<String> = names(catalog).map(|(name, _)| name.to_owned()).collect();
        json!({ "models": names })
    })
    .await
}

pub(super) async fn all_statistics(v2: &V2) -> Result<HttpResponse, ApiError> {
    made_page(v2, |catalog, plane| {
        let rows: Vec<_> = statistics_of_all(catalog, plane)
            .filter_map(|row| serde_json::to_value(row).ok())
            .collect();
        json!({ "model_stats": rows })
    })
    .await
}

pub(crate) fn statistics_of_all<'c>(
    catalog: &'c Catalog,
    plane: &'c DataPlane,
) -> impl Iterator<Item = Statistics<'c>> {
    names(catalog)
        // Of an application that asks several, the models themselves are here.
        .filter(|(_, models)| models.len() == 1)
        .flat_map(|(name, models)| models.into_iter().map(move |model| (name, model)))
        .flat_map(|(name, model)| catalog.versions_of(model.as_str()).map(move |spec| (name, spec)))
        .filter_map(|(name, spec)| counted(plane, name, spec))
}

pub(super) async fn index(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
) -> Result<HttpResponse, ApiError> {
    let QueryLimits { bodies, parsing, .. } = &v2.limits;
    let body = opening::read(request, payload, bodies, parsing).await?.join();
    let asked: IndexRequest = match &*body {
        [] => IndexRequest::default(),
        text => serde_json::from_slice(text)
            .map_err(|error| ApiError::json(format!("request: {error}")))?,
    };
    let is_ready_only = asked.ready == Some(true);
    let is_ready = v2.readiness.is_ready();
    made_page(v2, move |catalog, plane| index_of(catalog, plane, is_ready, is_ready_only)).await
}

/// What can be asked for; `is_ready`: whether the server takes traffic.
pub(crate) fn index_of(
    catalog: &Catalog,
    plane: &DataPlane,
    is_ready: bool,
    is_ready_only: bool,
) -> Vec<IndexRow> {
    let rows = names(catalog).flat_map(|(name, models)| {
        let rows = index_rows(catalog, plane, name, &models).into_iter();
        rows.map(move |row| {
            if is_ready {
                return row;
            }
            IndexRow::new(name, row.version.as_deref(), "the server is not ready")
        })
    });
    rows.filter(|row| !is_ready_only || row.state == "READY").collect()
}

/// One for each version; for an application that asks several models one without.
fn index_rows(
    catalog: &Catalog,
    plane: &DataPlane,
    name: &str,
    models: &[&ModelName],
) -> Vec<IndexRow> {
    let row = |spec: &ModelSpec| {
        let reason = if is_connected(plane, &spec.id) { "" } else { "no replica is connected" };
        IndexRow::new(name, Some(spec.id.version.as_str()), reason)
    };
    match models {
        [] => vec![IndexRow::new(name, None, "the application is not linked to a model")],
        [model] => catalog.versions_of(model.as_str()).map(row).collect(),
        _ => {
            let target = target::find(catalog, name, None);
            let is_served = target.is_ok_and(|target| is_served(plane, &target));
            let reason = if is_served { "" } else { "no replica of any model is connected" };
            vec![IndexRow::new(name, None, reason)]
        }
    }
}
