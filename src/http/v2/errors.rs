//! Errors in the protocol's form, `{"error": text}`, with Triton's statuses.

use actix_web::HttpResponse;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::http::{Method, StatusCode};
use serde::Serialize;

use super::super::errors::{self, ApiError, ErrorLabel, shown};
use crate::actors::apps::messages::QueryRefused;
use clipper_oip::{Class, InferError, OutputFault};
use clipper_scheduling::ticket::DefaultReason;

#[derive(Serialize)]
struct WrittenOipError<'a> {
    error: &'a str,
}

pub(super) fn response(error: &ApiError) -> HttpResponse {
    let mut response = error.answer().json(WrittenOipError { error: &error.cause });
    response.extensions_mut().insert(ErrorLabel(error.label));
    response
}

/// 405, or 204 to OPTIONS.
pub(super) fn other_method(method: &Method, allow: &'static str) -> HttpResponse {
    let mut answer = if method == Method::OPTIONS {
        HttpResponse::NoContent().finish()
    } else {
        let cause = format!("{} is not one of: {allow}", shown(method.as_str()));
        response(&ApiError::new(errors::METHOD_NOT_ALLOWED, cause))
    };
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

pub(super) fn no_endpoint(path: &str) -> ApiError {
    ApiError::not_found(
        path,
        "GET /v2, /v2/health/live, /v2/health/ready, /v2/models, /v2/models/stats, \
         /v2/models/{name}[/versions/{version}][/ready | /config | /stats], POST .../infer, \
         .../generate, .../generate_stream, \
         /v2/repository/index",
    )
}

pub(crate) fn unknown_model(name: &str, version: Option<&str>) -> ApiError {
    let name = shown(name);
    let version = version.map(|version| format!(" version '{}'", shown(version)));
    let version = version.unwrap_or_default();
    let text = format!("Request for unknown model: '{name}'{version} is not found");
    ApiError::new(errors::UNKNOWN_APPLICATION, text)
}

/// The version of which model?
pub(super) fn version_of_several(name: &str) -> ApiError {
    let name = shown(name);
    ApiError::query(format!("Application '{name}' asks several models: leave the version out"))
}

/// The query port changes nothing.
pub(crate) fn no_repository() -> ApiError {
    ApiError::new(
        errors::UNSUPPORTED,
        "Models are not loaded and unloaded here, but by `clipper deploy` or POST /admin/... on \
         the management port",
    )
}

pub(crate) fn refused(error: &InferError) -> ApiError {
    let kind = match error.class() {
        Class::Invalid => errors::JSON,
        Class::TooLarge => errors::TOO_LARGE,
        Class::Unsupported => errors::UNSUPPORTED,
    };
    ApiError::new(kind, error.to_string())
}

pub(crate) fn not_written(fault: OutputFault) -> ApiError {
    match fault {
        OutputFault::Number { .. } | OutputFault::Ragged { .. } | OutputFault::NotText { .. } => {
            ApiError::json(format!("output: {fault}"))
        }
        OutputFault::NoTensors => no_tensors(),
        OutputFault::TooLong(max) => ApiError::new(
            errors::TOO_LARGE,
            format!("The answer is over http.answer_max_bytes = {max}: ask for fewer rows"),
        ),
    }
}

/// An answer that is not made of tensors, where a policy has made it of several.
pub(crate) fn no_tensors() -> ApiError {
    ApiError::unavailable(
        "The output is not made of the model's tensors: a policy that combines outputs makes a \
         text of them, which POST /{app}/predict answers",
    )
}

pub(crate) fn not_asked(refused: &QueryRefused, name: &str, version: Option<&str>) -> ApiError {
    match refused {
        QueryRefused::Version(_) => unknown_model(name, version),
        QueryRefused::Busy | QueryRefused::FeedbackFull => {
            ApiError::too_many("Too many queries are being answered (serving.inflight_queries_max)")
        }
        QueryRefused::Limited(exceeded) => (**exceeded).clone().into(),
        QueryRefused::NotStreamed(why) => ApiError::query(*why),
        // It was parsed before.
        QueryRefused::Body(..) | QueryRefused::Label(_) => {
            ApiError::json("The request cannot be read")
        }
    }
}

/// A row without an output of the model.
pub(crate) fn no_prediction(row: usize, rows: usize, reason: &DefaultReason) -> ApiError {
    let place = if rows > 1 { format!("row {row} of {rows}: ") } else { String::new() };
    let mut error = ApiError::new(errors::NO_PREDICTION, format!("{place}{reason}"));
    match reason {
        DefaultReason::Failed(_) => internal(error),
        DefaultReason::Model(_) => {
            error.label = errors::MODEL.label;
            internal(error)
        }
        // Nobody was there in time.
        _ => error,
    }
}

/// The model's error, which the application passes on.
pub(super) fn model_error(row: usize, rows: usize, why: &str) -> ApiError {
    no_prediction(row, rows, &DefaultReason::Model(why.into()))
}

/// Triton answers so what failed behind it; trying again is not said to help.
fn internal(mut error: ApiError) -> ApiError {
    error.status = StatusCode::INTERNAL_SERVER_ERROR;
    error.retry_after_s = None;
    error
}
