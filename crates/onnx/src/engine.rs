//! What computes a model, and how it is to be done.

use std::fmt;
use std::path::PathBuf;

use clipper_domain::OnnxEngine;

use crate::engine_error::EngineError;
use crate::tensor::{Output, Tensor};

/// How a model is to be computed.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    pub engine: OnnxEngine,
    /// ONNX Runtime's library, instead of looking for it.
    pub library: Option<PathBuf>,
    /// Threads that compute one batch; none = one, since replicas are what uses several cores.
    pub threads: Option<usize>,
}

/// Computes one output of one model.
pub(crate) trait Engine {
    /// Runs the model on a tensor of the type and shape that its input has.
    fn run(&mut self, input: Tensor) -> Result<Output, EngineError>;
}

/// What computes a model, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineInfo {
    Ort {
        /// As the library says, if it does.
        version: String,
        library: PathBuf,
    },
    /// The engine in the binary.
    Builtin,
}

impl fmt::Display for EngineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ort { version, library } => {
                write!(f, "ONNX Runtime {version}, {}", library.display())
            }
            Self::Builtin => f.write_str("built-in engine"),
        }
    }
}
