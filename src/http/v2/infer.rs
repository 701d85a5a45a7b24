//! `POST /v2/models/{name}[/versions/{version}]/infer`.

use actix_web::http::header::HeaderValue;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};

use super::super::accessed;
use super::super::body;
use super::super::errors::ApiError;
use super::super::explaining::{self, Explaining};
use super::super::limits;
use super::super::serve::shown;
use super::state::V2;
use super::{answer, arrival, ask, errors, target, tensors};

/// Answers by what the models say, within the application's objective.
pub(super) async fn infer(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let found = target::find(&v2.view.read(), name, version);
    let found = found.and_then(|target| {
        let signature = tensors::wanted(&v2.plane, &target, name)?;
        Ok((target, signature, limits::claim(request, &v2.routes, name)?))
    });
    let (target, signature, mut claim) = match found {
        Ok(found) => found,
        Err(refusal) => {
            body::skip(request, payload, &v2.limits.bodies).await;
            return Err(refusal);
        }
    };
    let body = body::read_within(request, payload, &v2.limits.bodies, &mut claim).await?;
    let arrived = shown::arrived(request);
    let wanted = (target.input_type, target.due(v2, arrived));
    let read = arrival::read(request, (body, claim), wanted, signature, &v2.limits).await;
    let mut asked = ask::counted(read, v2, &target)?;
    asked.explaining = Explaining::of(request);
    let key = |header: &str| request.headers().get(header).map(HeaderValue::as_bytes);
    asked.key = v2.routes.key(name, key);
    let meant = ask::Meant { name, version, target: &target };
    let mut told = ask::ask(v2, &meant, &mut asked, arrived).await?;
    let (explained, model) = (std::mem::take(&mut told.explained), told.model.take());
    let ended = accessed::ended(&told.answers);
    let response = match told.tensors {
        Some(_) => tensors::respond(told, &v2.limits).await,
        None => answer::respond(told, &v2.limits).await,
    };
    // A default output is an error here, and its client wants to know why all the more.
    let mut response = response.unwrap_or_else(|error| errors::response(&error));
    accessed::note(&mut response, ended);
    explaining::name_model(&mut response, model.as_ref());
    explaining::tell(&mut response, explained.first());
    Ok(response)
}
