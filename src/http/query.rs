//! The query frontend: `POST /{app}/predict` and `POST /{app}/update` (protocol page, section 4).

use std::borrow::Cow;
use std::io::Write as _;

use actix::Addr;
use actix_web::http::{Method, header};
use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{BufMut, Bytes, BytesMut};
use percent_encoding::percent_decode_str;

use super::body::{self, BodyLimits};
use super::errors::{self, ApiError, MODEL};
use super::schema::rapidjson_phrase;
use crate::actors::app::App;
use crate::actors::messages::{Predict, QueryRefused, Recorded, Update};
use crate::actors::prediction::{Answers, QueryAnswer};
use crate::actors::router::{Route, Routes};
use clipper_clock as clock;
use clipper_scheduling::parse::BodyError;

const PREDICT_SCHEMA: &str = "\n  {\n   \"input\" := [double] | [int] | [string] | [byte] | \
                              [float],\n  }\n";
const UPDATE_SCHEMA: &str = "\n  {\n   \"uid\" := string,\n   \"input\" := [double] | [int] | \
                             [string] | [byte] | [float],\n   \"label\" := double\n  }\n";

/// What the handlers of one worker share.
#[derive(Clone)]
struct Frontend {
    routes: Routes,
    limits: BodyLimits,
}

/// Adds the query endpoints of one HTTP worker.
///
/// They are found by hand and not by route patterns: matching those would be a tenth of a cache
/// hit's cost.
pub fn configure(routes: Routes, limits: BodyLimits) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.app_data(web::Data::new(Frontend { routes, limits }));
        app.default_service(web::to(dispatch));
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Predict,
    Update,
}

/// Reads `/{app}/predict` or `/{app}/update`, with or without a slash at its end.
fn endpoint(path: &str) -> Option<(Cow<'_, str>, Verb)> {
    let path = path.strip_prefix('/')?;
    let (app, verb) = path.strip_suffix('/').unwrap_or(path).split_once('/')?;
    let verb = match verb {
        "predict" => Verb::Predict,
        "update" => Verb::Update,
        _ => return None,
    };
    Some((percent_decode_str(app).decode_utf8().ok()?, verb))
}

async fn dispatch(
    request: HttpRequest,
    payload: Payload,
    frontend: web::Data<Frontend>,
) -> Result<HttpResponse, ApiError> {
    let Some((app, verb)) = endpoint(request.path()) else {
        return Err(ApiError::not_found(
            request.path(),
            "POST /{app}/predict, POST /{app}/update, GET /metrics, GET /livez, GET /readyz",
        ));
    };
    if request.method() != Method::POST {
        return Ok(errors::other_method(request.method(), "POST"));
    }
    let app = match frontend.routes.of(&app) {
        Route::To(app) => app,
        Route::Unknown => return Err(ApiError::unknown_application(&app)),
        Route::Starting => return Err(ApiError::unavailable("The server is starting")),
    };
    let body = body::read(&request, payload, frontend.limits).await?;
    match verb {
        Verb::Predict => predict(&app, body).await,
        Verb::Update => update(&app, body).await,
    }
}

async fn predict(app: &Addr<App>, body: Bytes) -> Result<HttpResponse, ApiError> {
    let arrived = clock::now();
    let prediction = app
        .send(Predict { body: body.clone(), arrived })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?
        .map_err(|refused| explain(refused, &body))?;
    let Answers { first_query_id, answers } = prediction.answers().await;
    if let [QueryAnswer::Error(why)] = answers.as_slice() {
        return Err(ApiError::new(MODEL, &**why));
    }
    let mut json = BytesMut::with_capacity(96 * answers.len().max(1));
    if answers.len() != 1 {
        json.put_slice(b"{\"batch_predictions\":[");
    }
    for (query_id, answer) in (first_query_id..).zip(&answers) {
        if query_id > first_query_id {
            json.put_u8(b',');
        }
        write_answer(&mut json, query_id, answer);
    }
    if answers.len() != 1 {
        json.put_slice(b"]}");
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(json.freeze()))
}

/// One answer object, keys in the original's order.
fn write_answer(json: &mut BytesMut, query_id: u64, answer: &QueryAnswer) {
    if let QueryAnswer::Error(why) = answer {
        return write_model_error(json, query_id, why);
    }
    let mut json = json.writer();
    // Writing to memory does not fail.
    let _ = write!(json, "{{\"query_id\":{query_id},\"output\":");
    let json = json.into_inner();
    match answer {
        QueryAnswer::Output(output) => {
            json.put_slice(output.json());
            json.put_slice(b",\"default\":false}");
        }
        QueryAnswer::Default { output, reason } => {
            json.put_slice(output.json());
            json.put_slice(b",\"default\":true,\"default_explanation\":");
            let mut json = json.writer();
            let _ = serde_json::to_writer(&mut json, &reason.to_string());
            json.into_inner().put_u8(b'}');
        }
        QueryAnswer::Error(_) => {}
    }
}

/// What a query of a batch has in place of an answer object. It has no output, so that nobody
/// takes it for one.
fn write_model_error(json: &mut BytesMut, query_id: u64, why: &str) {
    let mut json = json.writer();
    // Writing to memory does not fail.
    let _ = write!(json, "{{\"query_id\":{query_id},\"error\":\"{}\",\"cause\":", MODEL.error);
    let _ = serde_json::to_writer(&mut json, why);
    json.into_inner().put_u8(b'}');
}

async fn update(app: &Addr<App>, body: Bytes) -> Result<HttpResponse, ApiError> {
    let recorded = app
        .send(Update { body: body.clone() })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?;
    match recorded {
        Ok(Recorded(kept)) => {
            let restarted = |_| ApiError::unavailable("The owner of feedback is being restarted");
            kept.await.map_err(restarted)?;
            Ok(HttpResponse::Ok()
                .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
                .body("Feedback received? 1"))
        }
        Err(QueryRefused::Body(error)) => Ok(HttpResponse::BadRequest()
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body(cause(&error, &body, UPDATE_SCHEMA))),
        Err(refused) => Err(explain(refused, &body)),
    }
}

fn explain(refused: QueryRefused, body: &[u8]) -> ApiError {
    match refused {
        QueryRefused::Body(BodyError::TooManyInputs(max)) => ApiError::new(
            errors::TOO_LARGE,
            format!("More than {max} inputs in one request (serving.request_inputs_max)"),
        ),
        QueryRefused::Body(error) => ApiError::json(cause(&error, body, PREDICT_SCHEMA)),
        QueryRefused::Version(text) => ApiError::query(text),
        QueryRefused::Busy => {
            ApiError::too_many("Too many queries are being answered (serving.inflight_queries_max)")
        }
        QueryRefused::FeedbackFull => {
            ApiError::too_many("Too much feedback waits to be kept (serving.feedback_queue_max)")
        }
    }
}

fn cause(error: &BodyError, body: &[u8], schema: &str) -> String {
    let what = match error {
        BodyError::NotAnObject => return "JSON schema invalid".to_owned(),
        BodyError::Syntax(error) => {
            format!("JSON parse error: {}\n", rapidjson_phrase(error, body))
        }
        BodyError::Semantic(text) => text.clone(),
        BodyError::TooManyInputs(max) => format!("more than {max} inputs"),
    };
    format!("Error parsing JSON: {what}. Expected JSON schema: {schema}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_are_found_with_or_without_a_last_slash() {
        let found = |path| endpoint(path).map(|(app, verb)| (app.into_owned(), verb));
        for path in ["/digits/predict", "/digits/predict/"] {
            assert!(matches!(found(path), Some((app, Verb::Predict)) if app == "digits"), "{path}");
        }
        assert!(matches!(found("/a%20b/update"), Some((app, Verb::Update)) if app == "a b"));
        for path in
            ["/", "//", "/predict", "/a/b/predict", "/digits/predict//", "/a/foo", "/%ff/predict"]
        {
            assert!(found(path).is_none(), "{path}");
        }
        assert!(matches!(found("//predict"), Some((app, _)) if app.is_empty()));
    }
}
