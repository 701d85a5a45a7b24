//! What a body asks for, read within the limits.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::super::body::{self, Body};
use super::super::errors::ApiError;
use super::super::explaining::Explaining;
use super::super::limits::QueryLimits;
use super::super::opening::{self, Opened};
use super::errors;
use clipper_clock::Instant;
use clipper_domain::{InputType, Signature};
use clipper_oip::{Infer, InferError, parse, parse_tensors};
use clipper_scheduling::bodies::Digests;
use clipper_scheduling::budget::Held;
use clipper_scheduling::quota::Claim;

const LENGTH_HEADER: &str = "Inference-Header-Content-Length";

/// What was asked for, and what it holds of the sum of all bodies until it has been answered.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) infer: Infer,
    /// What the cache makes of the inputs, where that has been computed already; else empty.
    pub(crate) digests: Digests,
    /// What the request says in the header that the application's policy goes by.
    pub(crate) key: Option<String>,
    /// What the request takes of limits until it has been asked.
    pub(crate) claim: Claim,
    pub(crate) explaining: Explaining,
    _held: Option<Held>,
}

impl Asked {
    fn of(infer: Infer, digests: Digests, held: Option<Held>) -> Self {
        Self {
            infer,
            digests,
            key: None,
            claim: Claim::default(),
            explaining: Explaining::default(),
            _held: held,
        }
    }
}

/// Reads what the body of `request` asks for, if that takes until `due` at the most; a signature is
/// that of type tensors.
pub(super) async fn read(
    request: &HttpRequest,
    arrived: (Body, Claim),
    (input_type, due): (InputType, Instant),
    signature: Option<Arc<Signature>>,
    limits: &QueryLimits,
) -> Result<Asked, ApiError> {
    let header = request.headers().get(LENGTH_HEADER).map(|value| value.as_bytes().to_vec());
    let rows_max = limits.inputs_max;
    let parse = move |body: &[u8]| match &signature {
        Some(signature) => parse_tensors(body, header.as_deref(), signature, rows_max),
        None => parse(body, header.as_deref(), input_type, rows_max),
    };
    parsed(arrived, due, limits, parse).await
}

/// Reads what a body asks for, by `parse`, if that takes until `due` at the most. The claim has
/// paid for what came.
pub(crate) async fn parsed<P>(
    (body, mut claim): (Body, Claim),
    due: Instant,
    limits: &QueryLimits,
    parse: P,
) -> Result<Asked, ApiError>
where
    P: FnOnce(&[u8]) -> Result<Infer, InferError> + Send + 'static,
{
    let (bodies, plane) = (limits.bodies.clone(), Arc::clone(&limits.plane));
    let then = move |Opened { text, held, is_aside }: Opened| {
        let infer = parse(&text).map_err(|error| errors::refused(&error))?;
        drop(text);
        let Some(mut held) = held else { return Ok(Asked::of(infer, Digests::new(), None)) };
        let inputs: usize = infer.inputs.iter().map(|input| input.0.len()).sum();
        if !held.resize(inputs) {
            return Err(body::too_much_in_sum(&bodies));
        }
        let digest = |input| plane.cache.digest(input);
        let digests =
            if is_aside { infer.inputs.iter().map(digest).collect() } else { Digests::new() };
        Ok(Asked::of(infer, digests, Some(held)))
    };
    let within = (&limits.bodies, &limits.parsing);
    let asked = opening::opened(body, &mut claim, within, Some(due), then).await?;
    Ok(Asked { claim, ..asked })
}
