//! The limits of queries, whatever protocol they come by.

use super::answer::AnswerLimits;
use super::body::BodyLimits;
use super::parsing::Parsing;

/// What the handlers of all workers share.
#[derive(Debug, Clone)]
pub struct QueryLimits {
    /// On bodies.
    pub bodies: BodyLimits,
    /// On answers.
    pub answers: AnswerLimits,
    /// Inputs in one request; above it 413.
    pub inputs_max: usize,
    /// Where long bodies are parsed.
    pub parsing: Parsing,
}
