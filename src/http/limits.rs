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

/// What a request for an application counts against.
///
/// # Errors
/// 429 where not even one query would be let through: nothing else has to be done then.
pub fn claim_of(asker: Asker, routes: &Routes, app: &str) -> Result<Claim, ApiError> {
    let claim = Claim::of(asker.name, asker.quota.into_iter().chain(routes.quota(app)));
    if claim.is_limited() {
        claim.check(clock::now())?;
    }
    Ok(claim)
}

/// [`claim_of`] a request over HTTP.
///
/// # Errors
/// As there.
pub fn claim(request: &HttpRequest, routes: &Routes, app: &str) -> Result<Claim, ApiError> {
    claim_of(gate::asker(request), routes, app)
}
