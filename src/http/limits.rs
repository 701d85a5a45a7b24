//! The limits of queries, whatever protocol they come by.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;

use super::body::BodyLimits;
use super::errors::ApiError;
use super::gate::{self, Asker};
use super::parsing::Parsing;
use crate::actors::apps::asking::due_within;
use crate::actors::apps::router::Routes;
use crate::actors::plane::data_plane::DataPlane;
use clipper_clock as clock;
use clipper_scheduling::quota::Claim;
use clipper_scheduling::ticket::AnswerBounds;

/// What the handlers of all workers share.
#[derive(Debug, Clone)]
pub struct QueryLimits {
    pub bodies: BodyLimits,
    pub answers: AnswerBounds,
    /// Inputs in one request; above it 413.
    pub inputs_max: usize,
    /// Where long bodies are parsed.
    pub parsing: Parsing,
    /// Whose cache the inputs are looked up in.
    pub plane: Arc<DataPlane>,
}

impl QueryLimits {
    /// How long an answer may take so that it arrives within `objective`.
    #[must_use]
    pub fn due_within(&self, objective: Duration) -> Duration {
        due_within(objective, Duration::from_micros(self.plane.serving.answer_margin_us))
    }
}

/// What a request counts against before it is known which application it is for.
#[must_use]
pub fn claim_by(asker: Asker) -> Claim {
    Claim::of(asker.name, asker.quota)
}

/// Has a request whose body has so many bytes by now count against its application, too.
///
/// # Errors
/// 429 where not even one query would be let through: nothing else has to be done then. Also by
/// the body, or 413 where no wait would help.
pub fn claim_for(
    claim: &mut Claim,
    routes: &Routes,
    app: &str,
    bytes: usize,
) -> Result<(), ApiError> {
    if let Some(quota) = routes.quota(app) {
        claim.also(quota, bytes)?;
    }
    if claim.is_limited() {
        claim.check(clock::now())?;
    }
    Ok(())
}

/// What a request for an application counts against.
///
/// # Errors
/// As [`claim_for`].
pub fn claim_of(asker: Asker, routes: &Routes, app: &str) -> Result<Claim, ApiError> {
    let mut claim = claim_by(asker);
    claim_for(&mut claim, routes, app, 0)?;
    Ok(claim)
}

/// [`claim_of`] a request over HTTP.
///
/// # Errors
/// As there.
pub fn claim(request: &HttpRequest, routes: &Routes, app: &str) -> Result<Claim, ApiError> {
    claim_of(gate::asker(request), routes, app)
}
