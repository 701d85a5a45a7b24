//! `GET /admin/explain`: the latest queries, and why they were answered so.

use std::sync::Arc;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use serde::Deserialize;

use super::operation::resource;
use crate::actors::plane::data_plane::DataPlane;
use crate::http::answer::JSON;
use crate::http::errors::{self, ApiError, other_method};
use crate::priority::Lane;
use clipper_domain::explain::KeptAs;
use clipper_scheduling::recent::Wanted;

/// The path served here.
pub(super) const PATH: &str = "/admin/explain";

/// Queries of an answer, unless the request says otherwise, and at most.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 200;

/// What comes with the path.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainParams {
    query_id: Option<u64>,
    slow: Option<String>,
    default: Option<String>,
    app: Option<String>,
    limit: Option<usize>,
}

/// Adds the endpoint to the management frontend; `threads` look for the queries.
pub fn configure(
    plane: &Arc<DataPlane>,
    threads: &Arc<Lane>,
) -> impl Fn(&mut web::ServiceConfig) + Clone + use<> {
    let (plane, threads) = (Arc::clone(plane), Arc::clone(threads));
    move |config| {
        let (plane, threads) = (Arc::clone(&plane), Arc::clone(&threads));
        let handler = move |request: HttpRequest| {
            let (plane, threads) = (Arc::clone(&plane), Arc::clone(&threads));
            async move {
                if request.method() == Method::GET {
                    respond(&request, plane, &threads).await
                } else {
                    other_method(request.method(), "GET, OPTIONS")
                }
            }
        };
        config.service(resource(PATH).route(web::to(handler)));
    }
}

async fn respond(request: &HttpRequest, plane: Arc<DataPlane>, threads: &Lane) -> HttpResponse {
    let wanted = match wanted(request.query_string()) {
        Ok(wanted) => wanted,
        Err(error) => return error.error_response(),
    };
    // Away from the one thread that answers everybody else.
    let text = threads.done(move || serde_json::to_vec(&plane.recent.find(&wanted))).await;
    match text {
        Some(Ok(text)) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, JSON.clone()))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(text),
        _ => ApiError::unavailable("The answer could not be written").error_response(),
    }
}

fn wanted(parameters: &str) -> Result<Wanted, ApiError> {
    let asked = web::Query::<ExplainParams>::from_query(parameters);
    let asked = asked.map_err(|error| ApiError::new(errors::QUERY, error.to_string()))?;
    let ExplainParams { query_id, slow, default, app, limit } = asked.into_inner();
    let kept_as = match (slow, default) {
        (None, None) => None,
        (Some(_), None) => Some(KeptAs::Slow),
        (None, Some(_)) => Some(KeptAs::Default),
        (Some(_), Some(_)) => {
            let cause = "slow or default: a query is kept as one of them";
            return Err(ApiError::new(errors::QUERY, cause));
        }
    };
    let limit = limit.unwrap_or(LIMIT);
    if limit > LIMIT_MAX {
        let cause = format!("limit: {limit} is more than {LIMIT_MAX}");
        return Err(ApiError::new(errors::QUERY, cause));
    }
    Ok(Wanted { query_id, kept_as, app, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_say_which_queries() {
        let slow = wanted("slow&app=a&limit=5").unwrap();
        assert_eq!((slow.kept_as, slow.app.as_deref()), (Some(KeptAs::Slow), Some("a")));
        assert_eq!((slow.limit, slow.query_id), (5, None));
        assert_eq!(wanted("default").unwrap().kept_as, Some(KeptAs::Default));
        assert_eq!(wanted("query_id=7").unwrap().query_id, Some(7));
        assert_eq!(wanted("").unwrap().limit, LIMIT);
        for wrong in ["slow&default", "limit=201", "query_id=x", "who=me"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
