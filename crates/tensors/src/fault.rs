//! Why something is no row of a model's tensors.

use clipper_domain::Datatype;

/// A field that is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct RowError {
    /// Such as `input.x`.
    pub field: String,
    pub fault: Fault,
}

impl RowError {
    #[must_use]
    pub fn new(field: impl Into<String>, fault: Fault) -> Self {
        Self { field: field.into(), fault }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not what the parser expected, in the parser's words.
    #[error("{0}")]
    Json(String),
    /// Something else than an object of tensors.
    #[error("it must be an object with a member for each tensor")]
    NotAnObject,
    #[error("the tensor is missing")]
    Missing,
    #[error("the tensor is there twice")]
    Twice,
    #[error("the model has no such tensor; it takes {0}")]
    Unknown(String),
    #[error("a dimension is 0")]
    Empty,
    #[error("its shape is [{found}], but the model takes [{wanted}]")]
    Shape { found: String, wanted: String },
    #[error("its arrays have different lengths (element {0})")]
    Ragged(usize),
    #[error("a flat array of {0} elements does not fit the shape [{1}]: nest the arrays")]
    Flat(usize, String),
    #[error("it has more elements than any request can carry")]
    Overflow,
    #[error("element {at} is not of datatype {}", .datatype.name())]
    Element { at: usize, datatype: Datatype },
}
