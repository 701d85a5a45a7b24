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
use clipper_tensors::sample::{self, Sample};
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::engine::{EngineInfo, EngineOptions};
use crate::engine_error::{EngineError, guarded};
use crate::error::OnnxError;
use crate::file::ModelFile;
use crate::library::{self, LibraryPlaces};
use crate::ort_engine;
use crate::tensor_values::{equal, input_value, output_tensor};
use crate::vetted;

/// What open dimensions have in the trial, one after the other, until the model takes it: some want
/// a whole window of a sound, or an image.
const TRIAL_LENGTHS: [u64; 6] = [sample::OPEN_LENGTH, 1, 16, 64, 256, 512];

/// What they have in a second look, the first that the model takes: an axis that follows the length
/// of the input, as the steps of a text that was read, may have had one element by chance.
const LONGER: [u64; 4] = [64, 16, 256, 512];

/// Longest tensor of the trial, bytes: a file that claims more is damaged or hostile.
const TRIAL_BYTES_MAX: usize = 1 << 30;

/// An input or output of the file.
#[derive(Debug, Clone)]
struct FilePort {
    spec: TensorSpec,
    /// Its first axis is the rows.
    has_rows: bool,
    /// What the file calls the first axis; empty where it does not.
    first_axis: String,
}

/// Rows that were made up, and what the model gives for each alone.
struct TrialRows {
    rows: [Vec<JoinedTensor>; 2],
    alone: [Vec<JoinedTensor>; 2],
    /// What open dimensions have where there are rows, and elsewhere.
    lengths: (u64, u64),
}

/// A loaded model, ready to predict.
pub struct TensorModel {
    session: Session,
    info: EngineInfo,
    signature: Arc<Signature>,
    inputs: Vec<FilePort>,
    outputs: Vec<FilePort>,
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
                return Err(OnnxError::NoTensors(vetted::missing(file.graph()?)));
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
        let outputs: Vec<FilePort> = session.outputs().iter().filter_map(output_port).collect();
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

    /// By a trial: of what rank outputs are that the file does not describe, which of them have
    /// rows, and whether rows may share a run. A model that takes nothing that is made up is served
    /// row by row.
    fn learn(&mut self, mixes_rows: bool) -> Result<(), OnnxError> {
        let Some(trial) = self.try_out()? else { return Ok(()) };
        let TrialRows { rows, alone: [one, other], lengths } = trial;
        let longer = self.second_look(&one, lengths);
        let given = one.iter().zip(&other).zip(&longer);
        for (port, ((tensor, other), longer)) in self.outputs.iter_mut().zip(given) {
            let is_row = [tensor, longer].iter().all(|tensor| tensor.shape.first() == Some(&1));
            if port.has_rows && !is_row {
                // Its first axis is open and something else, such as the layers of a state.
                port.has_rows = false;
                port.spec.shape.insert(1, -1);
            }
            let given = tensor.shape.get(usize::from(port.has_rows)..).unwrap_or_default();
            if port.spec.row_shape().len() != given.len() {
                let open = given.iter().map(|_| -1);
                port.spec.shape = std::iter::once(-1).chain(open).collect();
            }
            // What the file says of a length need not be so, if it depends on what the input says.
            for tensor in [tensor, other, longer] {
                let given = tensor.shape.get(usize::from(port.has_rows)..).unwrap_or_default();
                for (said, given) in port.spec.shape.iter_mut().skip(1).zip(given) {
                    *said = if u64::try_from(*said) == Ok(*given) { *said } else { -1 };
                }
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

    /// Two rows that the model takes, of the first lengths that it takes.
    fn try_out(&mut self) -> Result<Option<TrialRows>, OnnxError> {
        for (at, length) in TRIAL_LENGTHS.into_iter().enumerate() {
            // The open axes of what has no rows are often those of the rows, which are one here.
            let elsewhere = if length == 1 { vec![1] } else { vec![length, 1] };
            for other in elsewhere {
                let made_up = |variant| self.made_up(variant, (length, other));
                let rows = match (made_up(1), made_up(3)) {
                    (Ok(one), Ok(other)) => [one, other],
                    // Too large is what the first of them says; longer ones are so much more.
                    (Err(why), _) | (_, Err(why)) if at == 0 => {
                        return Err(OnnxError::Input(why.to_string()));
                    }
                    _ => return Ok(None),
                };
                if let [Ok(one), Ok(two)] = rows.each_ref().map(|row| self.run_plain(row)) {
                    let lengths = (length, other);
                    return Ok(Some(TrialRows { rows, alone: [one, two], lengths }));
                }
            }
        }
        Ok(None)
    }

    /// The outputs of a longer row: those of which the file does not say what was given. The others
    /// are believed, and given again.
    fn second_look(&mut self, given: &[JoinedTensor], lengths: (u64, u64)) -> Vec<JoinedTensor> {
        let mut seen = given.to_vec();
        let doubtful = self.doubtful(given);
        if doubtful.contains(&true)
            && let Some(longer) = self.longer(lengths)
        {
            let doubtful = seen.iter_mut().zip(longer).zip(doubtful).filter(|(_, is)| *is);
            doubtful.for_each(|((seen, longer), _)| *seen = longer);
        }
        seen
    }

    /// Of which outputs the file does not say what was given: another rank, or a first axis that is
    /// called otherwise than the rows of its inputs.
    fn doubtful(&self, given: &[JoinedTensor]) -> Vec<bool> {
        let is_named = |name: &String| {
            self.inputs.iter().any(|port| port.has_rows && port.first_axis == *name)
        };
        let is_doubtful = |(port, given): (&FilePort, &JoinedTensor)| {
            let is_of_rows = port.first_axis.is_empty() || is_named(&port.first_axis);
            port.has_rows && (port.spec.shape.len() != given.shape.len() || !is_of_rows)
        };
        self.outputs.iter().zip(given).map(is_doubtful).collect()
    }

    /// What the model gives for a row that is longer than those of the trial, if it takes one.
    fn longer(&mut self, (length, elsewhere): (u64, u64)) -> Option<Vec<JoinedTensor>> {
        let is_open = |port: &FilePort| port.has_rows && port.spec.row_shape().contains(&-1);
        if !self.inputs.iter().any(is_open) {
            return None;
        }
        LONGER.into_iter().filter(|longer| *longer > length).find_map(|longer| {
            let row = self.made_up(1, (longer, elsewhere)).ok()?;
            self.run_plain(&row).ok()
        })
    }

    /// One row, whose open dimensions are so long where there are rows, and elsewhere.
    fn made_up(
        &self,
        variant: u8,
        (length, elsewhere): (u64, u64),
    ) -> Result<Vec<JoinedTensor>, sample::TooLarge> {
        let tensor = |port: &FilePort| {
            let open = if port.has_rows { length } else { elsewhere };
            let mut numbers = sample::harmless(variant);
            let made = sample::tensor(&port.spec, open, TRIAL_BYTES_MAX, &mut numbers);
            made.map(|Sample { datatype, dims, data }| JoinedTensor {
                datatype,
                shape: std::iter::once(1).chain(dims).collect(),
                data: data.into(),
            })
        };
        self.inputs.iter().map(tensor).collect()
    }

    /// One run, and the outputs as the model gives them.
    fn run_plain(&mut self, tensors: &[JoinedTensor]) -> Result<Vec<JoinedTensor>, EngineError> {
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
                tensors.push(output_tensor(&output, port.spec.datatype)?);
            }
            Ok(tensors)
        })
    }

    /// One run of `rows` rows; the outputs have as many.
    fn run(
        &mut self,
        tensors: &[JoinedTensor],
        rows: usize,
    ) -> Result<Vec<JoinedTensor>, EngineError> {
        let mut given = self.run_plain(tensors)?;
        for (port, tensor) in self.outputs.iter().zip(&mut given) {
            if !port.has_rows {
                tensor.shape.insert(0, 1);
            }
            if tensor.shape.first() != Some(&(rows as u64)) {
                let shape = tensor.shape.iter().filter_map(|n| usize::try_from(*n).ok());
                let (output, shape) = (port.spec.name.clone(), shape.collect());
                return Err(EngineError::NoBatch { output, shape, rows });
            }
            let dims = tensor.shape.get(1..).unwrap_or_default();
            if !port.spec.takes(tensor.datatype, dims.iter().copied()) {
                let (output, shape) = (port.spec.name.clone(), tensor.shape.clone());
                return Err(EngineError::OtherShape { output, shape });
            }
        }
        Ok(given)
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

fn ports(side: &str, outlets: &[Outlet]) -> Result<Vec<FilePort>, OnnxError> {
    let refuse = |outlet: &Outlet| {
        let (name, kind) = (outlet.name(), outlet.dtype());
        OnnxError::Input(format!("the {side} '{name}' is of type {kind}, which no tensor has"))
    };
    outlets.iter().map(|outlet| port(outlet).ok_or_else(|| refuse(outlet))).collect()
}

/// Maps and sequences have no tensor: they are left out.
fn output_port(outlet: &Outlet) -> Option<FilePort> {
    let port = port(outlet);
    if port.is_none() {
        tracing::info!(output = outlet.name(), kind = %outlet.dtype(), "left out: it is no tensor");
    }
    port
}

fn port(outlet: &Outlet) -> Option<FilePort> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else { return None };
    // How some exporters write an open dimension.
    let dims: Vec<i64> = shape.iter().map(|n| if *n > 0 { *n } else { -1 }).collect();
    let has_rows = matches!(dims.first(), Some(-1 | 1));
    let row = dims.get(usize::from(has_rows)..).unwrap_or_default();
    let shape = std::iter::once(-1).chain(row.iter().copied()).collect();
    let name = outlet.name().to_owned();
    let spec = TensorSpec { name, datatype: datatype(*ty)?, shape, labels: Vec::new() };
    let first_axis = dimension_symbols.first().cloned().unwrap_or_default();
    Some(FilePort { spec, has_rows, first_axis })
}

fn signature(inputs: &[FilePort], outputs: &[FilePort]) -> Result<Arc<Signature>, OnnxError> {
    let specs = |ports: &[FilePort]| ports.iter().map(|port| port.spec.clone()).collect();
    let signature = Signature::new(specs(inputs), specs(outputs));
    signature.map(Arc::new).map_err(|why| OnnxError::Input(why.to_string()))
}
