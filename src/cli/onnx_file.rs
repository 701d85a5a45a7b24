//! What `clipper deploy` reads in an ONNX file, which the server's container reads again; nothing
//! in a program without the engine.

#[cfg(feature = "onnx")]
use std::path::Path;

use clipper_domain::{InputType, OnnxEngine, Runtime};
use serde_json::{Value, json};

/// What goes into a model.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "no file is read there"))]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnnxFile {
    /// One input.
    Flat {
        /// Elements of a row.
        width: usize,
        is_text: bool,
    },
    /// What only type tensors takes, and why.
    Tensors(String),
    /// It is no ONNX file, or cannot be read: its container says what is wrong with it.
    Unknown,
}

impl OnnxFile {
    /// Where nobody has said another.
    pub(super) fn usual_type(&self) -> InputType {
        match self {
            Self::Flat { is_text: true, .. } => InputType::Strings,
            Self::Tensors(_) => InputType::Tensors,
            Self::Flat { .. } | Self::Unknown => InputType::Doubles,
        }
    }

    /// Zeros of the width that the file declares, where the server could not know it.
    pub(super) fn input(&self, input_type: InputType) -> Option<Value> {
        let Self::Flat { width, .. } = self else { return None };
        let zero = match input_type {
            InputType::Integers => json!(0),
            InputType::Floats | InputType::Doubles => json!(0.0),
            InputType::Bytes | InputType::Strings | InputType::Tensors => return None,
        };
        Some(Value::Array(vec![zero; *width]))
    }
}

#[cfg(feature = "onnx")]
pub(super) fn read(runtime: &Runtime) -> OnnxFile {
    use clipper_onnx::{Declared, declared};

    let Runtime::Onnx { path, .. } = runtime else { return OnnxFile::Unknown };
    match declared(Path::new(path)) {
        Ok(Declared::Flat { width, is_text }) => OnnxFile::Flat { width, is_text },
        Ok(Declared::Tensors(why)) => OnnxFile::Tensors(why),
        Err(_) => OnnxFile::Unknown,
    }
}

#[cfg(not(feature = "onnx"))]
pub(super) fn read(_: &Runtime) -> OnnxFile {
    OnnxFile::Unknown
}

/// ONNX Runtime of the virtual environment that is active here: the server may not know of it.
#[cfg(feature = "onnx")]
pub(super) fn environments_library(engine: OnnxEngine) -> Option<String> {
    if engine == OnnxEngine::Builtin {
        return None;
    }
    let prefix = std::env::var_os("VIRTUAL_ENV")?;
    clipper_onnx::library_of_environment(Path::new(&prefix))?.into_os_string().into_string().ok()
}

#[cfg(not(feature = "onnx"))]
pub(super) fn environments_library(_: OnnxEngine) -> Option<String> {
    None
}
