//! Reads a request body within its limits.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;

use super::errors::{self, ApiError};
use crate::config::HttpConfig;

/// A body over its limit, but by less than this factor, is read and thrown away, so that the
/// client, still busy sending, sees the 413 and not a reset connection. A larger one is cut off.
const DRAIN_TIMES: usize = 2;

/// Limits on one body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Largest body, bytes; above it 413.
    pub max_bytes: usize,
    /// Longest pause between two pieces of it; then 408.
    pub idle: Duration,
}

impl From<&HttpConfig> for BodyLimits {
    fn from(config: &HttpConfig) -> Self {
        Self {
            max_bytes: config.body_max_bytes,
            idle: Duration::from_millis(config.client_request_timeout_ms),
        }
    }
}

/// Reads the whole body.
///
/// # Errors
/// 413 over the limit, 408 when the client stops sending, 400 when the framing is broken.
pub async fn read(
    request: &HttpRequest,
    mut payload: Payload,
    limits: BodyLimits,
) -> Result<Bytes, ApiError> {
    let drain_max = limits.max_bytes.saturating_mul(DRAIN_TIMES);
    if declared_bytes(request).is_some_and(|declared| declared > drain_max) {
        return Err(ApiError::too_large(limits.max_bytes));
    }
    let mut pieces = Pieces::default();
    let mut received: usize = 0;
    loop {
        let next = tokio::time::timeout(limits.idle, payload.next()).await.map_err(|_| {
            let idle_s = limits.idle.as_secs_f64();
            ApiError::new(errors::TIMEOUT, format!("No part of the body came for {idle_s} s"))
        })?;
        let Some(chunk) = next else { break };
        let chunk =
            chunk.map_err(|broken| ApiError::new(errors::BROKEN_BODY, broken.to_string()))?;
        received = received.saturating_add(chunk.len());
        if received <= limits.max_bytes {
            pieces.push(chunk);
        } else {
            pieces = Pieces::default();
            if received > drain_max {
                break;
            }
        }
    }
    if received > limits.max_bytes {
        return Err(ApiError::too_large(limits.max_bytes));
    }
    Ok(pieces.join())
}

/// A body in the making. Most come in one piece, which is then passed on without a copy.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    rest: BytesMut,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&piece);
        }
    }

    fn join(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

fn declared_bytes(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
