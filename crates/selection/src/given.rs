//! An answer that was given, as feedback needs it.

use std::sync::Arc;

use clipper_domain::ModelName;

use super::policy::{Member, Pick};

/// Whose output an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerOf {
    Member(usize),
    /// It was made from several.
    Several,
    /// Nobody's: the default output.
    Nobody,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GivenAnswer {
    pub uid: i64,
    /// What stands for the input; equal inputs have equal ones.
    pub input: u64,
    /// The names behind the picks.
    pub models: Arc<[ModelName]>,
    /// The models that were asked.
    pub picks: Vec<Pick>,
    pub members: Vec<Member>,
    /// Whose output went out.
    pub answer: AnswerOf,
}
