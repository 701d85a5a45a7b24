//! Which engine computes a model: ONNX Runtime where its library is found, else the one in the
//! binary.

use std::fmt;
use std::path::PathBuf;

use clipper_domain::OnnxEngine;

use crate::OnnxError;
use crate::builtin::Builtin;
use crate::file::{InputLayout, ModelFile};
use crate::library::{self, Places};
use crate::ort_engine::OnnxRuntime;
use crate::tensor::{Output, Tensor};

/// How a model is to be computed.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// By what.
    pub engine: OnnxEngine,
    /// ONNX Runtime's library, instead of looking for it.
    pub library: Option<PathBuf>,
    /// Threads that compute one batch; none = one, since replicas are what uses several cores.
    pub threads: Option<usize>,
}

/// Computes one output of one model.
pub(crate) trait Engine {
    /// Runs the model on a tensor of the type and shape that its input has.
    fn run(&mut self, input: Tensor) -> Result<Output, String>;
}

/// What computes a model, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineInfo {
    /// ONNX Runtime.
    Ort {
        /// As the library says, if it does.
        version: String,
        /// The library.
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

pub(crate) fn open(
    file: ModelFile,
    layout: &InputLayout,
    output: &str,
    options: &EngineOptions,
) -> Result<(Box<dyn Engine>, EngineInfo), OnnxError> {
    let threads = options.threads.unwrap_or(1);
    let loaded = match options.engine {
        OnnxEngine::Builtin => None,
        OnnxEngine::Auto => library::load(&Places::here(options.library.clone()))?,
        OnnxEngine::Ort => Some(library::require(&Places::here(options.library.clone()))?),
    };
    let Some(loaded) = loaded else {
        let engine = Builtin::open(file, layout, output, threads)?;
        return Ok((Box::new(engine), EngineInfo::Builtin));
    };
    let info = EngineInfo::Ort { version: loaded.version, library: loaded.path };
    let engine = OnnxRuntime::open(&loaded.environment, &file.path, layout, output, threads);
    let engine = engine.map_err(|why| OnnxError::Plan { engine: info.to_string(), why })?;
    Ok((Box::new(engine), info))
}
