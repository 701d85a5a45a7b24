//! Why a model file cannot be served, said so that its owner knows what to do.

use std::path::PathBuf;

/// How every model that the built-in engine refuses can be served.
pub(crate) const WAY_OUT: &str = "Install ONNX Runtime, which computes all of them (pip install \
     onnxruntime; docs/deploy.md says where it is looked for), or serve the model as a Python \
     function";

fn lacks(operators: &[String]) -> String {
    match operators {
        [] => String::new(),
        some => format!(", and it lacks {}", some.join(", ")),
    }
}

/// Why a model file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no ONNX model, or is damaged.
    #[error("{} is not a valid ONNX model: {reason}", path.display())]
    Parse {
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The model's input is not one dense tensor of known width.
    #[error("unsupported model input: {0}")]
    Input(String),
    /// The same of a model that another type can take.
    #[error(
        "unsupported model input: {0}. It can be served as type tensors (--input-type tensors, \
         input_type = \"tensors\"), which needs ONNX Runtime: pip install onnxruntime"
    )]
    OnlyTensors(String),
    #[error("the model has no output '{wanted}'; it has: {available}")]
    Output {
        /// The name asked for.
        wanted: String,
        /// The names there are.
        available: String,
    },
    /// The built-in engine would not compute what the reference engine does.
    #[error("the built-in engine cannot compute the output '{output}': {why}. {WAY_OUT}")]
    Unsupported {
        output: String,
        /// Operators, or what about them.
        why: String,
    },
    /// With the operators that it would lack besides.
    #[error("the built-in engine takes one flat input and no type tensors{}. {WAY_OUT}", lacks(.0))]
    NoTensors(Vec<String>),
    /// ONNX Runtime was asked for, or pointed at, and cannot be used.
    #[error("{0}")]
    Library(#[from] crate::library::LibraryError),
    /// The model does not run.
    #[error("cannot run the model ({engine}): {why}")]
    Plan {
        /// What was to run it.
        engine: String,
        why: String,
    },
}
