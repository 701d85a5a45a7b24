//! Why a model was not computed, or cannot be.

use std::fmt::Display;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// In the words of the library that computes; its errors have a type for each of its calls.
    #[error("{0}")]
    Library(String),
    /// The `ort` crate panics on libraries that lack what it expects.
    #[error("it failed inside")]
    Panicked,
    #[error("cannot read {}: {source}", path.display())]
    Constants { path: PathBuf, source: std::io::Error },
    #[error("its constants are in '{0}', which is not beside the model")]
    ConstantsElsewhere(String),
    #[error("the built-in engine takes no such elements")]
    Elements,
    #[error("the input has integers of more than 32 bits")]
    WideIntegers,
    #[error("it takes {0} texts at once, expected one")]
    Texts(usize),
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("the model gave no output")]
    NoOutput,
    #[error("the output has another type than the model declares")]
    OtherType,
    #[error("an output of {0} cannot be shown")]
    CannotShow(String),
    #[error("the output has a negative dimension")]
    NegativeDimension,
    #[error(
        "the output '{output}' has the shape {shape:?} for {rows} inputs: its first dimension \
         must be the batch"
    )]
    NoBatch { output: String, shape: Vec<usize>, rows: usize },
    #[error("the output '{output}' has the shape {shape:?}, which is not what the model declares")]
    OtherShape { output: String, shape: Vec<u64> },
    #[error(
        "it takes {0} rows at once, and what it gives for one depends on the others: export it \
         with an open batch or a batch of 1"
    )]
    MixesRows(usize),
}

impl EngineError {
    pub(crate) fn library(error: impl Display) -> Self {
        Self::Library(error.to_string())
    }
}

/// Runs what may panic inside.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or(Err(EngineError::Panicked))
}
