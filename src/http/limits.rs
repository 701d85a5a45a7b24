//! The limits of queries, whatever protocol they come by.

use std::sync::Arc;
use std::time::Duration;

use super::body::BodyLimits;
use super::parsing::Parsing;
use crate::actors::apps::asking::due_within;
use crate::actors::plane::data_plane::DataPlane;
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
