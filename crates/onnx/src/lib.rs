//! ONNX models in the box: one dense input, outputs as JSON text, computed by ONNX Runtime or by
//! the engine in the binary.
//!
//! [`OnnxModel`] reads the file (`file`), opens an engine (`open`) and finds out by trying how
//! many rows may share a tensor (`model`). There are two engines: `ort_engine` loads ONNX Runtime's
//! shared library, which `library` looks for when the process starts; `builtin` needs nothing and
//! computes what `vetted` lets through.
//!
//! Architecture invariant: no engine gives an output that ONNX Runtime would not give (W1). What
//! the built-in engine was not compared for it refuses, naming the operator and the way out.

mod builtin;
mod engine;
mod engine_error;
mod error;
mod file;
mod inspect;
mod library;
mod model;
mod open;
mod ort_engine;
mod output;
mod tensor;
mod tensor_model;
mod tensor_values;
mod vetted;

pub use engine::{EngineInfo, EngineOptions};
pub use error::OnnxError;
pub use inspect::{Declared, Dim, Inspection, Value, Way, declared, inspect};
pub use library::{LibraryError, library_of_environment};
pub use model::OnnxModel;
pub use tensor_model::TensorModel;
