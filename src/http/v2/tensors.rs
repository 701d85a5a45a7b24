//! Requests to models of type tensors, and their answers.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;

use super::super::answer::JSON;
use super::super::errors::ApiError;
use super::super::limits::QueryLimits;
use super::answer::{Sent, Told, Unanswered, Why, written};
use super::errors;
use super::target::Target;
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::plane::data_plane::DataPlane;
use clipper_domain::{InputType, Signature};
use clipper_oip::{TensorAnswer, TensorForm, TensorParts};

/// Of type tensors: what goes into the models that are asked and comes out, if it is known.
pub(crate) fn signature(plane: &DataPlane, target: &Target) -> Option<Arc<Signature>> {
    target.served.iter().find_map(|id| {
        let handle = plane.directory.get(&id.name, &id.version)?;
        handle.signature()
    })
}

/// By which rows of the request are read; `None` for the other types.
pub(crate) fn wanted(
    plane: &DataPlane,
    target: &Target,
    name: &str,
) -> Result<Option<Arc<Signature>>, ApiError> {
    if target.input_type != InputType::Tensors {
        return Ok(None);
    }
    let unknown = || {
        let cause = format!("What model '{name}' takes is not known until a replica connects");
        ApiError::unavailable(cause)
    };
    signature(plane, target).map(Some).ok_or_else(unknown)
}

/// The HTTP answer.
pub(super) async fn respond(told: Told, limits: &QueryLimits) -> Result<HttpResponse, ApiError> {
    let (parts, held) = written(told, limits, write, TensorParts::bytes).await?;
    let TensorParts { mut json, binary, has_binary } = parts;
    let mut response = HttpResponse::Ok();
    if has_binary {
        response.insert_header(("Inference-Header-Content-Length", json.len()));
        response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
    } else {
        response.insert_header((header::CONTENT_TYPE, JSON.clone()));
    }
    if held.is_none() {
        for part in &binary {
            json.extend_from_slice(part);
        }
        return Ok(response.body(json));
    }
    let parts = std::iter::once(Bytes::from(json)).chain(binary);
    Ok(response.body(Sent::new(parts, held)))
}

fn write(told: &Told, max_bytes: usize) -> Result<TensorParts, ApiError> {
    let Some(form) = &told.tensors else { return Err(errors::no_tensors()) };
    let rows = rows(told).map_err(|unanswered| unanswered.error())?;
    answer(told, form, &rows).write(max_bytes).map_err(errors::not_written)
}

/// What the models have said of each row. A default output is a text, and no tensor stands for it.
pub(crate) fn rows(told: &Told) -> Result<Vec<&Arc<[u8]>>, Unanswered<'_>> {
    let count = told.answers.len();
    let mut rows = Vec::with_capacity(count);
    for (row, answer) in told.answers.iter().enumerate() {
        let unanswered = |why| Unanswered { row, rows: count, why };
        match answer {
            QueryAnswer::Output(output) | QueryAnswer::Sure { output, .. } => {
                let tensors = output.tensors().map(|tensors| &tensors.bytes);
                rows.push(tensors.ok_or_else(|| unanswered(Why::NoTensors))?);
            }
            QueryAnswer::Default { reason, .. } => {
                return Err(unanswered(Why::Default(reason)));
            }
            QueryAnswer::Error(why) => return Err(unanswered(Why::Error(why))),
        }
    }
    Ok(rows)
}

/// The answer that these rows make.
pub(crate) fn answer<'a>(
    told: &'a Told,
    form: &'a TensorForm,
    rows: &'a [&'a Arc<[u8]>],
) -> TensorAnswer<'a> {
    TensorAnswer {
        model_name: &told.name,
        model_version: told.version.as_deref(),
        id: told.id.as_deref(),
        rows,
        form,
    }
}
