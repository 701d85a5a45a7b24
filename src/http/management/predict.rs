//! `POST /admin/predict/{name}`: a prediction as by `POST /{name}/predict` of the query port, for
//! pages of this port, to which that port is another site.

use std::borrow::Cow;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use percent_encoding::percent_decode_str;

use super::operation::{ManagementState, POST_ALLOW};
use crate::http::body::{self, BodyLimits};
use crate::http::errors::{ApiError, other_method};
use crate::http::explaining::Explaining;
use crate::http::gate;

/// The path served here; what follows is the application's name.
pub(super) const PATH: &str = "/admin/predict/{name}";

/// Adds it to the management frontend.
pub(super) fn configure(
    state: &ManagementState,
    limits: &BodyLimits,
    config: &mut web::ServiceConfig,
) {
    let (state, limits) = (state.clone(), limits.clone());
    let handler = move |request: HttpRequest, payload| {
        let (state, limits) = (state.clone(), limits.clone());
        async move {
            let answered = predict(&state, &limits, &request, payload).await;
            answered.unwrap_or_else(|error| error.error_response())
        }
    };
    config.service(web::resource([PATH, "/admin/predict/{name}/"]).route(web::to(handler)));
}

async fn predict(
    state: &ManagementState,
    limits: &BodyLimits,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if request.method() != Method::POST {
        body::skip(request, payload, limits).await;
        return Ok(other_method(request.method(), POST_ALLOW));
    }
    let name = request.match_info().query("name");
    let name = percent_decode_str(name).decode_utf8().map_or_else(|_| name.to_owned(), Cow::into);
    let asker = gate::asker(request);
    let body = body::read(request, payload, limits).await?;
    match &state.hand_over {
        Some(hand_over) => hand_over.predict(name, body, asker, Explaining::of(request)).await,
        None => Err(ApiError::unavailable("This frontend answers no queries")),
    }
}
