//! `/v2/...`: the Open Inference Protocol over HTTP, on the query port.
//!
//! A name is an application, with its objective, default output and cache; where none has the
//! name, a model by itself. Messages are read and written by `clipper_oip`; this module finds who
//! is meant, keeps the limits, and asks the same actors as `/{app}/predict`. What does not depend
//! on HTTP serves `crate::grpc` as well.

pub(crate) mod answer;
pub(crate) mod arrival;
pub(crate) mod ask;
pub(crate) mod errors;
pub(crate) mod generate;
mod infer;
pub(crate) mod pages;
mod path;
pub mod state;
pub(crate) mod target;
pub(crate) mod tensors;

use actix_web::http::Method;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};

use self::path::{Endpoint, Page};
use self::state::V2;
use super::body;
use super::errors::ApiError;
use super::traced;

/// Whether a path belongs here. `/v2/predict` and `/v2/update` are those of an application `v2`.
#[must_use]
pub fn owns(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v2") else { return false };
    match rest.trim_end_matches('/') {
        "" => true,
        "/predict" | "/update" => false,
        rest => rest.starts_with('/'),
    }
}

/// Answers a request whose path belongs here.
pub async fn serve(request: &HttpRequest, payload: Payload, v2: &V2) -> HttpResponse {
    let answer = match path::endpoint(request.path()) {
        None => Err(errors::no_endpoint(request.path())),
        Some(endpoint) => match refused(request.method(), endpoint.methods()) {
            Some(refusal) => Ok(refusal),
            None => return answer(request, payload, v2, endpoint).await,
        },
    };
    body::skip(request, payload, &v2.limits.bodies).await;
    answer.unwrap_or_else(|error| errors::response(&error))
}

/// The answer to a method that an endpoint does not take.
fn refused(method: &Method, allow: &'static str) -> Option<HttpResponse> {
    let is_taken = allow.split(", ").any(|taken| taken == method.as_str());
    (!is_taken || *method == Method::OPTIONS).then(|| errors::other_method(method, allow))
}

async fn answer(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    endpoint: Endpoint<'_>,
) -> HttpResponse {
    if let Some(route) = endpoint.route() {
        traced::begin(request, &v2.plane, route);
    }
    let answered = match endpoint {
        Endpoint::Model { name, version, page: Page::Infer } => {
            infer::infer(request, payload, v2, &name, version.as_deref()).await
        }
        Endpoint::Model { name, version, page: Page::Generate } => {
            generate::generate(request, payload, v2, (&name, version.as_deref())).await
        }
        Endpoint::Model { name, version, page: Page::GenerateStream } => {
            generate::generate_stream(request, payload, v2, (&name, version.as_deref())).await
        }
        Endpoint::Index => pages::index(request, payload, v2).await,
        other => {
            body::skip(request, payload, &v2.limits.bodies).await;
            page(v2, other).await
        }
    };
    answered.unwrap_or_else(|error| errors::response(&error))
}

async fn page(v2: &V2, endpoint: Endpoint<'_>) -> Result<HttpResponse, ApiError> {
    match endpoint {
        Endpoint::Server => Ok(pages::server()),
        Endpoint::Live => Ok(pages::live()),
        Endpoint::Ready => Ok(pages::ready(v2)),
        Endpoint::Models => pages::models(v2).await,
        Endpoint::AllStatistics => pages::all_statistics(v2).await,
        Endpoint::Repository => Err(errors::no_repository()),
        Endpoint::Model { name, version, page } => {
            let version = version.as_deref();
            match page {
                Page::Metadata => pages::metadata(v2, &name, version),
                Page::Ready => pages::model_ready(v2, &name, version),
                Page::Config => pages::config(v2, &name, version),
                Page::Statistics => pages::statistics(v2, &name, version),
                Page::Infer | Page::Generate | Page::GenerateStream => {
                    Err(errors::no_endpoint("infer"))
                }
            }
        }
        Endpoint::Index => Err(errors::no_endpoint("index")),
    }
}

#[cfg(test)]
mod tests {
    use super::owns;

    #[test]
    fn an_application_may_be_called_v2() {
        for path in ["/v2", "/v2/", "/v2/health/live", "/v2/models/predict/infer", "/v2/x"] {
            assert!(owns(path), "{path}");
        }
        for path in ["/v2/predict", "/v2/predict/", "/v2/update", "/v20", "/v2x/models", "/"] {
            assert!(!owns(path), "{path}");
        }
    }
}
