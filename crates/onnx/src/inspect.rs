//! What a model file is, and how it can be served.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clipper_container::BatchModel as _;
use clipper_domain::{InputType, OnnxEngine, Signature};
use rten_onnx::onnx::{Dimension, ValueInfoProto};
use serde::Serialize;

use crate::engine::EngineOptions;
use crate::error::OnnxError;
use crate::file::ModelFile;
use crate::model::OnnxModel;
use crate::tensor::Element;
use crate::tensor_model::TensorModel;
use crate::vetted;

/// What goes into a model as its file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// One input, so that it is of one of the flat types.
    Flat {
        /// Elements of a row.
        width: usize,
        is_text: bool,
    },
    /// Type tensors takes it, and no other type, for this reason.
    Tensors(String),
}

/// Reads a file and does not prepare it to run.
///
/// # Errors
/// See [`OnnxError`].
pub fn declared(path: &Path) -> Result<Declared, OnnxError> {
    let file = ModelFile::read(path)?;
    match file.layout() {
        Ok(layout) => Ok(Declared::Flat { width: layout.width(), is_text: layout.is_text() }),
        Err(OnnxError::Input(why)) if file.has_tensors()? => Ok(Declared::Tensors(why)),
        Err(why) => Err(why),
    }
}

/// A dimension: its length, or the name by which it is left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Dim {
    Fixed(i64),
    Open(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Open(name) => f.write_str(name),
        }
    }
}

/// An input or output, in ONNX's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    pub name: String,
    /// `float`, `int64`, ..., or what it is instead of a tensor.
    pub kind: String,
    /// None where it is not declared.
    pub shape: Option<Vec<Dim>>,
}

/// One way in which the file could be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    pub engine: &'static str,
    pub input_type: &'static str,
    /// The engine with its version and how rows are computed, or why this is no way.
    pub how: String,
    pub works: bool,
    /// Of type tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What a file says of itself, and what trying to load it has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The program that wrote it.
    pub producer: String,
    /// Its sets of operators and their versions.
    pub opsets: BTreeMap<String, i64>,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    /// How often each operator is used.
    pub operators: BTreeMap<String, usize>,
    /// Those that the engine in the binary does not have.
    pub not_built_in: Vec<String>,
    pub ways: Vec<Way>,
}

/// Reads a file and loads it in each way there is. `options` say where ONNX Runtime is; the engine
/// is each.
///
/// # Errors
/// It is no ONNX file.
pub fn inspect(path: &Path, options: &EngineOptions) -> Result<Inspection, OnnxError> {
    let file = ModelFile::read(path)?;
    let graph = file.graph()?;
    let mut operators = BTreeMap::new();
    for name in graph.node.iter().filter_map(|node| node.op_type.clone()) {
        *operators.entry(name).or_insert(0) += 1;
    }
    let model = &file.model;
    let words = [&model.producer_name, &model.producer_version];
    let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
    let opsets = model.opset_import.iter().map(|opset| {
        let domain = opset.domain.as_deref().filter(|domain| !domain.is_empty());
        (domain.unwrap_or("ai.onnx").to_owned(), opset.version.unwrap_or(0))
    });
    Ok(Inspection {
        producer: words.join(" ").trim().to_owned(),
        opsets: opsets.collect(),
        inputs: file.inputs()?.into_iter().map(value).collect(),
        outputs: graph.output.iter().map(value).collect(),
        operators,
        not_built_in: vetted::missing(graph),
        ways: ways(path, options),
    })
}

fn value(info: &ValueInfoProto) -> Value {
    let name = info.name.clone().unwrap_or_default();
    let kind = info.r#type.as_ref();
    let Some(tensor) = kind.and_then(|kind| kind.tensor_type.as_ref()) else {
        let is_sequence = kind.is_some_and(|kind| kind.sequence.is_some());
        let kind = if is_sequence { "a sequence" } else { "no tensor" };
        return Value { name, kind: kind.to_owned(), shape: None };
    };
    let kind = tensor.elem_type.map(|kind| match Element::of_onnx(kind.0) {
        Some(element) => element.name().to_owned(),
        None => kind.to_string(),
    });
    let kind = kind.unwrap_or_else(|| "unknown".to_owned());
    let dim = |dim: &Dimension| match (dim.dim_value, &dim.dim_param) {
        (Some(length), _) if length > 0 => Dim::Fixed(length),
        (_, Some(name)) if !name.is_empty() => Dim::Open(name.clone()),
        _ => Dim::Open("?".to_owned()),
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect());
    Value { name, kind, shape }
}

fn ways(path: &Path, options: &EngineOptions) -> Vec<Way> {
    let mut ways: Vec<Way> = [OnnxEngine::Ort, OnnxEngine::Builtin]
        .into_iter()
        .map(|engine| flat(path, &EngineOptions { engine, ..options.clone() }))
        .collect();
    let ort = EngineOptions { engine: OnnxEngine::Ort, ..options.clone() };
    ways.push(tensors(path, &ort));
    ways
}

fn flat(path: &Path, options: &EngineOptions) -> Way {
    let engine = options.engine.name();
    match OnnxModel::load(path, None, None, options) {
        Ok(model) => Way {
            engine,
            input_type: model.input_type().long_name(),
            how: format!("{}: output '{}'", model.engine(), model.output_name()),
            works: true,
            signature: None,
        },
        Err(why) => {
            Way { engine, input_type: "flat", how: why.to_string(), works: false, signature: None }
        }
    }
}

fn tensors(path: &Path, options: &EngineOptions) -> Way {
    let (engine, input_type) = (options.engine.name(), InputType::Tensors.long_name());
    match TensorModel::load(path, options) {
        Ok(model) => {
            let rows = if model.joins_rows() { "together" } else { "one by one" };
            let how = format!("{}: rows {rows}", model.engine());
            let signature = model.signature().map(|signature| (*signature).clone());
            Way { engine, input_type, how, works: true, signature }
        }
        Err(why) => Way { engine, input_type, how: why.to_string(), works: false, signature: None },
    }
}
