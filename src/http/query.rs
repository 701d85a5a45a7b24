//! The query frontend: `POST /{app}/predict` and `POST /{app}/update` (protocol page, section 4).

use std::io::Write as _;

use actix_web::http::{Method, header};
use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{BufMut, BytesMut};
use tracing::{Instrument as _, debug, debug_span};

use super::body::{self, BodyLimits};
use super::errors::{self, ApiError};
use super::schema::rapidjson_phrase;
use crate::actors::messages::{Predict, Progress, QueryRefused, Started, Update};
use crate::actors::router::{Route, Routes};
use crate::clock;
use crate::metrics::Outcome;
use crate::serving::parse::BodyError;
use crate::serving::ticket::Answer;

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
pub fn configure(routes: Routes, limits: BodyLimits) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.app_data(web::Data::new(Frontend { routes, limits }));
        for path in ["/{app}/predict", "/{app}/predict/"] {
            app.service(
                web::resource(path).route(web::post().to(predict)).default_service(web::to(other)),
            );
        }
        for path in ["/{app}/update", "/{app}/update/"] {
            app.service(
                web::resource(path).route(web::post().to(update)).default_service(web::to(other)),
            );
        }
        app.default_service(web::to(unknown_path));
    }
}

async fn predict(
    request: HttpRequest,
    payload: Payload,
    frontend: web::Data<Frontend>,
) -> Result<HttpResponse, ApiError> {
    let app = route(&request, &frontend)?;
    let body = body::read(&request, payload, frontend.limits).await?;
    let arrived = clock::now();
    let started = app
        .send(Predict { body: body.clone(), arrived })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?
        .map_err(|refused| explain(refused, &body))?;
    let Started { first_query_id, app, progress, permit } = started;
    let span = debug_span!("query", app = %app.spec.name, query_id = first_query_id);
    let answers = match progress {
        Progress::Ready(answers) => answers,
        Progress::Waiting { ticket, deadline } => {
            // At the deadline the ticket is closed with what it has (invariant P1).
            let filled = ticket.filled().instrument(span.clone());
            let _ = tokio::time::timeout_at(deadline, filled).await;
            ticket.close()
        }
    };
    drop(permit);
    let _span = span.entered();
    let latency = clock::now() - arrived;
    let mut json = BytesMut::with_capacity(96 * answers.len().max(1));
    if answers.len() != 1 {
        json.put_slice(b"{\"batch_predictions\":[");
    }
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            json.put_u8(b',');
        }
        let query_id = first_query_id + index as u64;
        let outcome = match answer {
            Answer::Output(_) => Outcome::Prediction,
            Answer::Default(reason) => reason.outcome(),
        };
        app.metrics.answered(outcome, latency);
        debug!(query_id, ?outcome, ?latency, "answered");
        write_answer(&mut json, query_id, answer, app.default_output.json());
    }
    if answers.len() != 1 {
        json.put_slice(b"]}");
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(json.freeze()))
}

/// One answer object, keys in the original's order.
fn write_answer(json: &mut BytesMut, query_id: u64, answer: &Answer, default_output: &[u8]) {
    let mut json = json.writer();
    // Writing to memory does not fail.
    let _ = write!(json, "{{\"query_id\":{query_id},\"output\":");
    let json = json.into_inner();
    match answer {
        Answer::Output(output) => {
            json.put_slice(output.json());
            json.put_slice(b",\"default\":false}");
        }
        Answer::Default(reason) => {
            json.put_slice(default_output);
            json.put_slice(b",\"default\":true,\"default_explanation\":");
            let mut json = json.writer();
            let _ = serde_json::to_writer(&mut json, &reason.to_string());
            json.into_inner().put_u8(b'}');
        }
    }
}

async fn update(
    request: HttpRequest,
    payload: Payload,
    frontend: web::Data<Frontend>,
) -> Result<HttpResponse, ApiError> {
    let app = route(&request, &frontend)?;
    let body = body::read(&request, payload, frontend.limits).await?;
    let recorded = app
        .send(Update { body: body.clone() })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?;
    match recorded {
        Ok(()) => Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body("Feedback received? 1")),
        Err(QueryRefused::Body(error)) => Ok(HttpResponse::BadRequest()
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body(cause(&error, &body, UPDATE_SCHEMA))),
        Err(refused) => Err(explain(refused, &body)),
    }
}

fn route(
    request: &HttpRequest,
    frontend: &Frontend,
) -> Result<actix::Addr<crate::actors::app::App>, ApiError> {
    let name = request.match_info().get("app").unwrap_or_default();
    match frontend.routes.of(name) {
        Route::To(app) => Ok(app),
        Route::Unknown => Err(ApiError::unknown_application(name)),
        Route::Starting => Err(ApiError::unavailable("The server is starting")),
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

async fn other(method: Method) -> HttpResponse {
    errors::other_method(&method, "POST")
}

async fn unknown_path(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found(
        request.path(),
        "POST /{app}/predict, POST /{app}/update, GET /metrics, GET /livez, GET /readyz",
    ))
}
