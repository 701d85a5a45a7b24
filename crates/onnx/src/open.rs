//! Which engine computes a model: ONNX Runtime where its library is found, else the one in the
//! binary.

use clipper_domain::OnnxEngine;

use crate::builtin::Builtin;
use crate::engine::{Engine, EngineInfo, EngineOptions};
use crate::error::OnnxError;
use crate::file::{InputLayout, ModelFile};
use crate::library::{self, LibraryPlaces};
use crate::ort_engine::OnnxRuntime;

pub(crate) fn open(
    file: ModelFile,
    layout: &InputLayout,
    output: &str,
    options: &EngineOptions,
) -> Result<(Box<dyn Engine>, EngineInfo), OnnxError> {
    let threads = options.threads.unwrap_or(1);
    let loaded = match options.engine {
        OnnxEngine::Builtin => None,
        OnnxEngine::Auto => library::load(&LibraryPlaces::here(options.library.clone()))?,
        OnnxEngine::Ort => Some(library::require(&LibraryPlaces::here(options.library.clone()))?),
    };
    let Some(loaded) = loaded else {
        let engine = Builtin::open(file, layout, output, threads)?;
        return Ok((Box::new(engine), EngineInfo::Builtin));
    };
    let info = EngineInfo::Ort { version: loaded.version, library: loaded.path };
    let engine = OnnxRuntime::open(&loaded.environment, &file.path, layout, output, threads);
    let engine = engine
        .map_err(|error| OnnxError::Plan { engine: info.to_string(), why: error.to_string() })?;
    Ok((Box::new(engine), info))
}
