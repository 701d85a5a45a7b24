//! An answer that was given, as feedback needs it.

use std::sync::Arc;

use clipper_domain::ModelName;

use super::policy::{Members, Picks};
use super::rollout::split::Side;

/// Whose output an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerOf {
    Member(usize),
    /// It was made from several.
    Several,
    /// Nobody's: the default output.
    Nobody,
}

/// The rollout that an answer was given under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenBy {
    pub rollout: u64,
    /// Which version its model answered with.
    pub side: Side,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GivenAnswer {
    pub uid: i64,
    /// What stands for the input; equal inputs have equal ones.
    pub input: u64,
    /// The names behind the picks.
    pub models: Arc<[ModelName]>,
    /// The models that were asked.
    pub picks: Picks,
    pub members: Members,
    /// Whose output went out.
    pub answer: AnswerOf,
    pub by: Option<GivenBy>,
}
