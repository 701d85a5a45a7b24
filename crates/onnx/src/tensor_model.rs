//! A model file as a container of type tensors: any number of inputs and outputs of any rank, as
//! the file names them, computed by ONNX Runtime.
//!
//! The first axis of an input is the rows where the file leaves it open or says 1. Rows are
//! computed together only if every tensor has such an axis and a trial gives each row the same
//! outputs alone and beside another one. Otherwise each row is a run of its own, and a tensor
//! without such an axis is given whole for each row.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clipper_container::{BatchModel, ModelError, ModelOutput};
use clipper_domain::{Datatype, InputType, OnnxEngine, Signature, TensorSpec};
use clipper_tensors::batch::{Content, Group, JoinedTensor};
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::engine::{EngineInfo, EngineOptions};
use crate::engine_error::{EngineError, guarded};
use crate::error::OnnxError;
use crate::file::ModelFile;
use crate::library::{self, LibraryPlaces};
use crate::ort_engine;
use crate::tensor_values::{equal, input_value, output_tensor};

/// What a dimension that is left open has in the trial.
const TRIAL_LENGTH: i64 = 4;

/// An input or output of the file.
#[derive(Debug, Clone)]
struct Port {
    spec: TensorSpec,
    /// Its first axis is the rows.
    has_rows: bool,
}

/// A loaded model, ready to predict.
pub struct TensorModel {
    session: Session,
    info: EngineInfo,
    signature: Arc<Signature>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Rows may share a run.
    joins: bool,
}

impl TensorModel {
    /// Loads `path` and runs it on a few made-up rows.
    ///
    /// # Errors
    /// See [`OnnxError`].
    pub fn load(path: &Path, options: &EngineOptions) -> Result<Self, OnnxError> {
        let file = ModelFile::read(path)?;
        let mixes_rows = file.mixes_rows();
        let places = LibraryPlaces::here(options.library.clone());
        let loaded = match options.engine {
            OnnxEngine::Auto | OnnxEngine::Ort => library::require(&places)?,
            OnnxEngine::Builtin => {
                let why = "it takes one input, and tensors are for several".to_owned();
                return Err(OnnxError::Unsupported { output: "(all)".to_owned(), why });
            }
        };
        let info = EngineInfo::Ort { version: loaded.version, library: loaded.path };
        let plan = |error: EngineError| OnnxError::Plan {
            engine: info.to_string(),
            why: error.to_string(),
        };
        let threads = options.threads.unwrap_or(1);
        let session = guarded(|| ort_engine::session(&loaded.environment, path, threads));
        let session = session.map_err(plan)?;
        let inputs = ports("input", session.inputs())?;
        let outputs: Vec<Port> = session.outputs().iter().filter_map(output_port).collect();
        if outputs.is_empty() {
            return Err(OnnxError::Input("none of its outputs is a tensor".to_owned()));
        }
        let signature = signature(&inputs, &outputs)?;
        let mut model = Self { session, info, signature, inputs, outputs, joins: false };
        model.learn(mixes_rows)?;
        Ok(model)
    }

    #[must_use]
    pub fn engine(&self) -> &EngineInfo {
        &self.info
    }

    /// Whether rows share runs.
    #[must_use]
    pub fn joins_rows(&self) -> bool {
        self.joins
    }

    /// By a trial: of what rank outputs are that the file does not describe, and whether rows may
    /// share a run. A model that does not take what is made up is served row by row.
    fn learn(&mut self, mixes_rows: bool) -> Result<(), OnnxError> {
        let rows = [self.made_up(1), self.made_up(3)];
        let alone = rows.each_ref().map(|row| self.run(row, 1));
        let [Ok(one), Ok(other)] = alone else { return Ok(()) };
        for (port, tensor) in self.outputs.iter_mut().zip(&one) {
            let given = tensor.shape.get(1..).unwrap_or_default();
            if port.spec.row_shape().len() != given.len() {
                let open = given.iter().map(|_| -1);
                port.spec.shape = std::iter::once(-1).chain(open).collect();
            }
        }
        self.signature = signature(&self.inputs, &self.outputs)?;
        let ports = || self.inputs.iter().chain(&self.outputs);
        if mixes_rows || ports().any(|port| !port.has_rows) {
            return Ok(());
        }
        let [first, second] = &rows;
        let both: Vec<JoinedTensor> = first.iter().zip(second).map(joined).collect();
        let Ok(both) = self.run(&both, 2) else { return Ok(()) };
        self.joins = both.iter().zip(one.iter().zip(&other)).all(|(both, (one, other))| {
            both.shape.first() == Some(&2) && equal(both, [one, other])
        });
        Ok(())
    }

    /// One row, whose open dimensions are small and whose numbers are `value`.
    fn made_up(&self, value: u8) -> Vec<JoinedTensor> {
        let tensor = |port: &Port| {
            let dims = port.spec.row_shape().iter();
            let dims = dims.map(|n| if *n == -1 { TRIAL_LENGTH } else { *n }.unsigned_abs());
            let shape: Vec<u64> = std::iter::once(1).chain(dims).collect();
            let elements = shape.iter().product::<u64>();
            let datatype = port.spec.datatype;
            let data = (0..elements).flat_map(|at| made_up_element(datatype, value, at)).collect();
            JoinedTensor { datatype, shape, data }
        };
        self.inputs.iter().map(tensor).collect()
    }

    /// One run of `rows` rows; the outputs have as many.
    fn run(
        &mut self,
        tensors: &[JoinedTensor],
        rows: usize,
    ) -> Result<Vec<JoinedTensor>, EngineError> {
        let Self { session, inputs, outputs, .. } = self;
        guarded(|| {
            let mut values = Vec::with_capacity(inputs.len());
            for (port, tensor) in inputs.iter().zip(tensors) {
                // Of a tensor without rows there is one, and its axis is this server's.
                let shape = tensor.shape.get(usize::from(!port.has_rows)..).unwrap_or_default();
                values.push((port.spec.name.as_str(), input_value(tensor, shape)?));
            }
            let mut given = session.run(values).map_err(EngineError::library)?;
            let mut tensors = Vec::with_capacity(outputs.len());
            for port in outputs.iter() {
                let output = given.remove(&port.spec.name).ok_or(EngineError::NoOutput)?;
                let mut tensor = output_tensor(&output, port.spec.datatype)?;
                if !port.has_rows {
                    tensor.shape.insert(0, 1);
                }
                if tensor.shape.first() != Some(&(rows as u64)) {
                    let shape = tensor.shape.iter().filter_map(|n| usize::try_from(*n).ok());
                    let (output, shape) = (port.spec.name.clone(), shape.collect());
                    return Err(EngineError::NoBatch { output, shape, rows });
                }
                tensors.push(tensor);
            }
            Ok(tensors)
        })
    }

    fn answer(&mut self, rows: &Group) -> Result<Group, ModelError> {
        let Content::Tensors(tensors) = &rows.content else {
            return Err(ModelError("an error is no input".to_owned()));
        };
        let outputs = self.run(tensors, rows.rows).map_err(|why| ModelError(why.to_string()))?;
        Ok(Group { rows: rows.rows, content: Content::Tensors(outputs) })
    }
}

impl BatchModel for TensorModel {
    fn input_type(&self) -> InputType {
        InputType::Tensors
    }

    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput> {
        let why = ModelError("this container takes tensors".to_owned());
        vec![Err(why); inputs.len()]
    }

    fn signature(&self) -> Option<Arc<Signature>> {
        Some(Arc::clone(&self.signature))
    }

    fn predict_tensors(&mut self, rows: &Group) -> Result<Vec<Group>, ModelError> {
        if self.joins || rows.rows == 1 {
            match self.answer(rows) {
                Ok(answer) => return Ok(vec![answer]),
                Err(why) if rows.rows == 1 => return Err(why),
                // One of them is at fault, and its neighbours must not pay for it.
                Err(_) => {}
            }
        }
        let alone = (0..rows.rows).map(|row| {
            let row = rows.part(row..row + 1);
            self.answer(&row).unwrap_or_else(|ModelError(why)| {
                let why = Bytes::from(if why.is_empty() { "it failed".to_owned() } else { why });
                Group { rows: 1, content: Content::Error(why) }
            })
        });
        Ok(alone.collect())
    }
}

fn joined((one, other): (&JoinedTensor, &JoinedTensor)) -> JoinedTensor {
    let mut both = one.clone();
    if let Some(rows) = both.shape.first_mut() {
        *rows = 2;
    }
    both.data = [&one.data[..], &other.data[..]].concat().into();
    both
}

/// Numbers that every model can take; those of one row differ where they can.
fn made_up_element(datatype: Datatype, value: u8, at: u64) -> Vec<u8> {
    let real = f32::from(value) * f32::from(u8::try_from(at % 7).unwrap_or(0)) / 8.0;
    match datatype {
        Datatype::Fp16 => half::f16::from_f32(real).to_le_bytes().to_vec(),
        Datatype::Bf16 => half::bf16::from_f32(real).to_le_bytes().to_vec(),
        Datatype::Fp32 => real.to_le_bytes().to_vec(),
        Datatype::Fp64 => f64::from(real).to_le_bytes().to_vec(),
        Datatype::Bytes => [&1_u32.to_le_bytes()[..], &[b'a' + value]].concat(),
        whole => {
            // Indices have to be small, masks and booleans 0 or 1.
            let mut bytes = vec![0; whole.element_bytes().unwrap_or(1)];
            if let Some(first) = bytes.first_mut() {
                *first = u8::from(value == 1 || at == 0);
            }
            bytes
        }
    }
}

fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

fn ports(side: &str, outlets: &[Outlet]) -> Result<Vec<Port>, OnnxError> {
    let refuse = |outlet: &Outlet| {
        let (name, kind) = (outlet.name(), outlet.dtype());
        OnnxError::Input(format!("the {side} '{name}' is of type {kind}, which no tensor has"))
    };
    outlets.iter().map(|outlet| port(outlet).ok_or_else(|| refuse(outlet))).collect()
}

/// Maps and sequences have no tensor: they are left out.
fn output_port(outlet: &Outlet) -> Option<Port> {
    let port = port(outlet);
    if port.is_none() {
        tracing::info!(output = outlet.name(), kind = %outlet.dtype(), "left out: it is no tensor");
    }
    port
}

fn port(outlet: &Outlet) -> Option<Port> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return None };
    // How some exporters write an open dimension.
    let dims: Vec<i64> = shape.iter().map(|n| if *n > 0 { *n } else { -1 }).collect();
    let has_rows = matches!(dims.first(), Some(-1 | 1));
    let row = dims.get(usize::from(has_rows)..).unwrap_or_default();
    let shape = std::iter::once(-1).chain(row.iter().copied()).collect();
    let name = outlet.name().to_owned();
    let spec = TensorSpec { name, datatype: datatype(*ty)?, shape, labels: Vec::new() };
    Some(Port { spec, has_rows })
}

fn signature(inputs: &[Port], outputs: &[Port]) -> Result<Arc<Signature>, OnnxError> {
    let specs = |ports: &[Port]| ports.iter().map(|port| port.spec.clone()).collect();
    let signature = Signature::new(specs(inputs), specs(outputs));
    signature.map(Arc::new).map_err(|why| OnnxError::Input(why.to_string()))
}
