//! A body on its way to what it asks for: decompressed and parsed within the limits, long ones
//! away from the threads that answer queries.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_ENCODING;
use bytes::Bytes;

use super::super::body::Body;
use super::super::budget::{Budget, Held};
use super::super::errors::ApiError;
use super::super::limits::QueryLimits;
use super::errors;
use clipper_domain::InputType;
use clipper_oip::{Encoding, Infer, inflate, parse};

const LENGTH_HEADER: &str = "Inference-Header-Content-Length";

/// What was asked for, and what it holds of the sum of all bodies until it has been answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) infer: Infer,
    _held: Option<Held>,
}

/// A body that has not been looked at.
struct Arrived {
    text: Bytes,
    encoding: Encoding,
    header: Option<Vec<u8>>,
    input_type: InputType,
    rows_max: usize,
    body_max_bytes: usize,
    all: Arc<Budget>,
}

/// Reads what `body` asks for.
pub(super) async fn read(
    request: &HttpRequest,
    body: &Body,
    input_type: InputType,
    limits: &QueryLimits,
) -> Result<Asked, ApiError> {
    let encoding = encoding(request)?;
    let text = body.bytes();
    let bytes = text.len();
    let arrived = Arrived {
        text,
        encoding,
        header: request.headers().get(LENGTH_HEADER).map(|value| value.as_bytes().to_vec()),
        input_type,
        rows_max: limits.inputs_max,
        body_max_bytes: limits.bodies.max_bytes,
        all: Arc::clone(&limits.bodies.all),
    };
    let parsing = &limits.parsing;
    let read = if encoding != Encoding::Identity {
        // How long that takes is not known from the length.
        parsing.aside(move || arrived.read()).await
    } else if parsing.is_long(bytes) {
        parsing.run(bytes, move || arrived.read()).await
    } else {
        return arrived.read();
    };
    read.unwrap_or_else(|| Err(ApiError::unavailable("The body could not be parsed")))
}

fn encoding(request: &HttpRequest) -> Result<Encoding, ApiError> {
    let Some(value) = request.headers().get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    Encoding::parse(value.as_bytes())
        .ok_or_else(|| ApiError::json("Content-Encoding: only gzip and deflate are read"))
}

impl Arrived {
    fn read(self) -> Result<Asked, ApiError> {
        let header = self.header.as_deref();
        let parse = |body: &[u8]| {
            parse(body, header, self.input_type, self.rows_max)
                .map_err(|error| errors::refused(&error))
        };
        if self.encoding == Encoding::Identity {
            return Ok(Asked { infer: parse(&self.text)?, _held: None });
        }
        let mut held = self.all.hold();
        let room_for = |bytes| held.grow(bytes);
        let whole = inflate(&self.text, self.encoding, self.body_max_bytes, room_for)
            .map_err(|error| errors::not_inflated(&error, self.all.max_bytes()))?;
        Ok(Asked { infer: parse(&whole)?, _held: Some(held) })
    }
}
