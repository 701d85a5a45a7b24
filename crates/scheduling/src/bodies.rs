//! What request bodies say.

use serde_json::Value;
use smallvec::SmallVec;

use clipper_domain::{Input, InputType};

/// Why a body is refused.
#[derive(Debug)]
pub enum BodyError {
    Syntax(serde_json::Error),
    /// JSON, but not an object; holds what it is.
    NotAnObject(&'static str),
    /// An object that does not say what it should; the text names what is wrong.
    Semantic(String),
    /// More inputs than one request may carry.
    TooManyInputs(usize),
}

/// Inputs of one request.
pub type Inputs = SmallVec<[Input; 1]>;

/// What the cache makes of inputs.
pub type Digests = SmallVec<[u64; 1]>;

/// The body of `POST /{app}/predict`.
#[derive(Debug, Default)]
pub struct PredictBody {
    /// `input_batch`, or the one `input`.
    pub inputs: Inputs,
    /// What the cache makes of each input, where that has been computed already; else empty.
    pub digests: Digests,
    /// The model version asked for; `None` = the current one.
    pub version: Option<String>,
    /// The user it comes from; 0 is everybody.
    pub uid: i64,
    /// What it says in the field that the application's policy goes by.
    pub key: Option<String>,
}

/// A query's key, from the JSON value of its field: a text or a number. Of null there is none.
///
/// # Errors
/// It is something else.
pub(crate) fn query_key(field: &str, value: Value) -> Result<Option<String>, BodyError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(BodyError::Semantic(format!(
            "{field}: it must be a string or a number (the application's policy goes by it)"
        ))),
    }
}

/// The body of `POST /{app}/update`.
#[derive(Debug)]
pub struct UpdateBody {
    /// What it is about.
    pub about: FeedbackSubject,
    pub told: FeedbackSays,
}

/// The feedback of one request.
#[derive(Debug)]
pub enum Feedback {
    One(UpdateBody),
    /// `{"feedback": [...]}`, each judged by itself.
    Several(Vec<Result<UpdateBody, BodyError>>),
}

impl Feedback {
    /// How many there are, refused ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(items) => items.len(),
        }
    }
}

/// What feedback is about.
#[derive(Debug)]
pub enum FeedbackSubject {
    /// A user and an input, as the original has it.
    Input(i64, Input),
    /// A query, by the id that its answer had. Only for policies that choose.
    Query(u64),
}

#[derive(Debug)]
pub enum FeedbackSays {
    Label(Value),
    /// How wrong the answer was, 0 to 1. Only for policies that choose.
    Loss(f64),
}

/// The bodies that feedback may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackForm {
    /// The original's: a user, an input, a label that is a number.
    Original,
    /// Also those of policies that choose.
    Any,
}

/// Bytes that the inputs of a body may take in wire form: numbers may need more than their text.
#[must_use]
pub fn input_bytes_max(body: &[u8], input_type: InputType) -> usize {
    let bytes_each = match input_type {
        InputType::Doubles | InputType::Tensors => size_of::<f64>(),
        InputType::Floats | InputType::Integers => size_of::<f32>(),
        InputType::Strings | InputType::Bytes => return body.len(),
    };
    let numbers = memchr::memchr_iter(b',', body).count() + 1;
    numbers.saturating_mul(bytes_each)
}
