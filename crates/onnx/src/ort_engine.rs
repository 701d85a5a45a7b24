//! ONNX Runtime, from a shared library.

use std::path::Path;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{DynSequenceValueType, DynValue, MapValueType, TensorElementType, ValueType};

use crate::engine::Engine;
use crate::engine_error::{EngineError, guarded};
use crate::file::InputLayout;
use crate::tensor::{Elements, Output, Tensor};

/// A session of ONNX Runtime.
pub(crate) struct OnnxRuntime {
    session: Session,
    input: String,
    output: String,
    /// Computes the chosen output and no other.
    options: RunOptions<HasSelectedOutputs>,
}

impl OnnxRuntime {
    pub(crate) fn open(
        environment: &Environment,
        path: &Path,
        layout: &InputLayout,
        output: &str,
        threads: usize,
    ) -> Result<Self, EngineError> {
        guarded(|| {
            let session = session(environment, path, threads)?;
            let options = RunOptions::new().map_err(EngineError::library)?;
            let options = options.with_outputs(OutputSelector::no_default().with(output));
            let (input, output) = (layout.name.clone(), output.to_owned());
            Ok(Self { session, input, output, options })
        })
    }
}

pub(crate) fn session(
    environment: &Environment,
    path: &Path,
    threads: usize,
) -> Result<Session, EngineError> {
    let builder = Session::builder(environment).map_err(EngineError::library)?;
    let builder = builder.with_intra_threads(threads).map_err(EngineError::library)?;
    // Threads that spin would take the cores from other replicas and from the server.
    let builder = builder.with_intra_op_spinning(false).map_err(EngineError::library)?;
    // What it says of a failure is in the error as well.
    let builder = builder.with_log_level(LogLevel::Fatal);
    let mut builder = builder.map_err(EngineError::library)?;
    builder.commit_from_file(path).map_err(EngineError::library)
}

impl Engine for OnnxRuntime {
    fn run(&mut self, input: Tensor) -> Result<Output, EngineError> {
        guarded(|| {
            let input = session_value(input).map_err(EngineError::library)?;
            let inputs = vec![(self.input.as_str(), input)];
            let mut outputs = self
                .session
                .run_with_options(inputs, &self.options)
                .map_err(EngineError::library)?;
            let output = outputs.remove(&self.output).ok_or(EngineError::NoOutput)?;
            read(output)
        })
    }
}

fn session_value(tensor: Tensor) -> ort::Result<DynValue> {
    let shape = tensor.shape;
    Ok(match tensor.elements {
        Elements::Bool(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::I8(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::I16(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::I32(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::I64(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::U8(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::U16(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::U32(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::U64(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::F16(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::F32(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::F64(values) => ort::value::Tensor::from_array((shape, values))?.into_dyn(),
        Elements::Text(values) => {
            ort::value::Tensor::from_string_array((shape, values.as_slice()))?.into_dyn()
        }
    })
}

fn read(output: DynValue) -> Result<Output, EngineError> {
    match output.dtype() {
        ValueType::Tensor { ty, .. } => read_tensor(&output, *ty),
        ValueType::Sequence(_) => read_maps(output),
        other => Err(EngineError::CannotShow(format!("type {other}"))),
    }
}

fn read_tensor(output: &DynValue, element: TensorElementType) -> Result<Output, EngineError> {
    macro_rules! elements {
        ($variant:ident, $primitive:ty) => {{
            let extracted = output.try_extract_tensor::<$primitive>();
            let (shape, values) = extracted.map_err(EngineError::library)?;
            (shape.to_vec(), Elements::$variant(values.to_vec()))
        }};
    }
    let (shape, elements) = match element {
        TensorElementType::Bool => elements!(Bool, bool),
        TensorElementType::Int8 => elements!(I8, i8),
        TensorElementType::Int16 => elements!(I16, i16),
        TensorElementType::Int32 => elements!(I32, i32),
        TensorElementType::Int64 => elements!(I64, i64),
        TensorElementType::Uint8 => elements!(U8, u8),
        TensorElementType::Uint16 => elements!(U16, u16),
        TensorElementType::Uint32 => elements!(U32, u32),
        TensorElementType::Uint64 => elements!(U64, u64),
        TensorElementType::Float16 => elements!(F16, half::f16),
        TensorElementType::Float32 => elements!(F32, f32),
        TensorElementType::Float64 => elements!(F64, f64),
        TensorElementType::String => {
            let extracted = output.try_extract_strings();
            let (shape, texts) = extracted.map_err(EngineError::library)?;
            (shape.to_vec(), Elements::Text(texts))
        }
        other => return Err(EngineError::CannotShow(other.to_string())),
    };
    let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
    let shape = shape.map_err(|_| EngineError::NegativeDimension)?;
    Ok(Output::Tensor(Tensor { shape, elements }))
}

/// What `ZipMap` gives: a map for each row, from the class, a number or a text, to its probability.
fn read_maps(output: DynValue) -> Result<Output, EngineError> {
    type ByNumber = MapValueType<i64, f32>;
    type ByText = MapValueType<String, f32>;
    let sequence = output.downcast::<DynSequenceValueType>();
    let sequence = sequence.map_err(EngineError::library)?;
    let mut maps = Vec::new();
    if let Ok(rows) = sequence.try_extract_sequence::<ByNumber>() {
        for row in rows {
            let mut map = row.try_extract_key_values::<i64, f32>().map_err(EngineError::library)?;
            map.sort_by_key(|(label, _)| *label);
            maps.push(map.into_iter().map(|(label, p)| (label.to_string(), p)).collect());
        }
    } else {
        let rows = sequence.try_extract_sequence::<ByText>();
        for row in
            rows.map_err(|_| EngineError::CannotShow("other sequences than maps".to_owned()))?
        {
            let mut map =
                row.try_extract_key_values::<String, f32>().map_err(EngineError::library)?;
            map.sort_by(|(one, _), (other, _)| one.cmp(other));
            maps.push(map);
        }
    }
    Ok(Output::Maps(maps))
}
