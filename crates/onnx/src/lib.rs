//! ONNX models in the box, run by tract: dense numeric inputs, outputs as JSON text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::model::ParseResult;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::{DimLike as _, bail};

mod ops;
mod output;

use clipper_container::{BatchModel, ModelOutput};
use clipper_domain::InputType;
use output::render_rows;

/// Rows of the batch that proves at load time that the model runs.
const PROBE_ROWS: usize = 2;

/// Why a model file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The model file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no ONNX model, or is damaged.
    #[error("{} is not a valid ONNX model: {reason}", path.display())]
    Parse {
        /// The model file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The model's input is not one dense numeric tensor of known width.
    #[error("unsupported model input: {0}")]
    Input(String),
    /// No such output.
    #[error("the model has no output '{wanted}'; it has: {available}")]
    Output {
        /// The name asked for.
        wanted: String,
        /// The names there are.
        available: String,
    },
    /// A `ZipMap` stands before the output.
    #[error(
        "the output '{0}' goes through ZipMap, a list of dictionaries, which is not supported: \
         export with zipmap=False (skl2onnx: options={{'zipmap': False}}) or choose another \
         --output"
    )]
    ZipMap(String),
    /// The model needs operators that tract lacks.
    #[error("the output '{output}' needs ONNX operators that are not supported: {operators}")]
    Operators {
        /// The chosen output.
        output: String,
        /// Their names.
        operators: String,
    },
    /// The model does not run.
    #[error("cannot run the model: {0}")]
    Plan(String),
}

/// A loaded model, ready to predict.
pub struct OnnxModel {
    plan: Arc<TypedRunnableModel>,
    layout: Layout,
    input_type: InputType,
    output_name: String,
    /// The number of rows that the plan takes; none = any.
    plan_rows: Option<usize>,
}

/// What one input of the model looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    datum_type: DatumType,
    /// The batch dimension, where the model fixes it.
    rows: Option<usize>,
    /// All dimensions but the first.
    row_shape: Vec<usize>,
}

impl Layout {
    fn width(&self) -> usize {
        self.row_shape.iter().product()
    }

    fn shape(&self, rows: usize) -> Vec<usize> {
        std::iter::once(rows).chain(self.row_shape.iter().copied()).collect()
    }
}

impl OnnxModel {
    /// Loads `path`, chooses its output (the first one when `output` is none), and runs it once.
    ///
    /// `input_type` is what the application sends; none takes what the model's input is made of.
    ///
    /// # Errors
    /// See [`OnnxError`].
    pub fn load(
        path: &Path,
        input_type: Option<InputType>,
        output: Option<&str>,
    ) -> Result<Self, OnnxError> {
        let mut model = parse(path)?;
        let output_name = select_output(&mut model, output)?;
        let layout = input_layout(&model)?;
        let input_type = choose_input_type(input_type, layout.datum_type)?;
        let (plan, plan_rows) = plan(model, &layout, &output_name)?;
        let loaded = Self { plan, layout, input_type, output_name, plan_rows };
        loaded.probe()?;
        Ok(loaded)
    }

    /// The name of the output that answers.
    #[must_use]
    pub fn output_name(&self) -> &str {
        &self.output_name
    }

    /// Elements of one input.
    #[must_use]
    pub fn input_width(&self) -> usize {
        self.layout.width()
    }

    fn probe(&self) -> Result<(), OnnxError> {
        let row = Bytes::from(vec![0; self.input_bytes()]);
        let rows: Vec<&Bytes> = vec![&row; PROBE_ROWS];
        self.predict_rows(&rows).map(drop).map_err(OnnxError::Plan)
    }

    fn input_bytes(&self) -> usize {
        self.layout.width() * self.input_type.element_bytes()
    }

    /// Runs rows of the right length, in as many calls as a plan of fixed size needs.
    fn predict_rows(&self, rows: &[&Bytes]) -> Result<Vec<String>, String> {
        let per_run = self.plan_rows.unwrap_or(rows.len()).max(1);
        let mut outputs = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(per_run) {
            outputs.extend(self.run_plan(chunk, per_run).map_err(|error| format!("{error:#}"))?);
        }
        Ok(outputs)
    }

    /// One run of `plan_rows` rows; the rows missing in `chunk` are zeros, their outputs dropped.
    fn run_plan(&self, chunk: &[&Bytes], plan_rows: usize) -> TractResult<Vec<String>> {
        let mut values = Vec::with_capacity(plan_rows * self.input_bytes());
        for row in chunk {
            values.extend_from_slice(row);
        }
        values.resize(plan_rows * self.input_bytes(), 0);
        let shape = self.layout.shape(plan_rows);
        let tensor = wire_tensor(self.input_type, &shape, &values)?;
        let tensor = tensor.cast_to_dt(self.layout.datum_type)?.into_owned();
        let outputs = self.plan.run(tvec!(tensor.into_tvalue()))?;
        let Some(output) = outputs.first() else {
            bail!("the model gave no output");
        };
        if output.shape().first() != Some(&plan_rows) {
            bail!(
                "the output '{}' has the shape {:?} for {plan_rows} inputs: its first dimension \
                 must be the batch",
                self.output_name,
                output.shape()
            );
        }
        render_rows(output, chunk.len())
    }

    fn wrong_length(&self, input: &Bytes) -> String {
        let element = self.input_type.element_bytes();
        let got = input.len() / element;
        format!(
            "expected {} {}, got {got} ({} bytes)",
            self.layout.width(),
            self.input_type,
            input.len()
        )
    }
}

impl BatchModel for OnnxModel {
    fn input_type(&self) -> InputType {
        self.input_type
    }

    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput> {
        let fits = |input: &&Bytes| input.len() == self.input_bytes();
        let rows: Vec<&Bytes> = inputs.iter().filter(fits).collect();
        match self.predict_rows(&rows) {
            Ok(outputs) => {
                let mut outputs = outputs.into_iter();
                let mut answer = |input| {
                    let output = if fits(&input) { outputs.next() } else { None };
                    output.ok_or_else(|| self.wrong_length(input))
                };
                inputs.iter().map(&mut answer).collect()
            }
            Err(why) => {
                tracing::error!("the model failed on a batch of {}: {why}", inputs.len());
                vec![Err(why); inputs.len()]
            }
        }
    }
}

/// Elements of one input as the file declares them; the model is read and not prepared to run.
///
/// # Errors
/// See [`OnnxError`].
pub fn declared_width(path: &Path) -> Result<usize, OnnxError> {
    input_layout(&parse(path)?).map(|layout| layout.width())
}

fn parse(path: &Path) -> Result<InferenceModel, OnnxError> {
    let invalid = |reason: String| OnnxError::Parse { path: path.to_owned(), reason };
    let bytes =
        std::fs::read(path).map_err(|source| OnnxError::Read { path: path.to_owned(), source })?;
    let mut onnx = tract_onnx::onnx();
    ops::register(&mut onnx.op_register);
    let read = || -> TractResult<ParseResult> {
        let proto = onnx.proto_model_for_read(&mut bytes.as_slice())?;
        onnx.parse(&proto, path.parent().and_then(Path::to_str))
    };
    // The parser indexes by names that a damaged file may lack, so a panic is an answer as well.
    let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .map_err(|_| invalid("the file is damaged".to_owned()))?
        .map_err(|error| invalid(format!("{error:#}")))?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(invalid(format!("it refers to unknown {:?}", parsed.unresolved_inputs)));
    }
    Ok(parsed.model)
}

fn select_output(model: &mut InferenceModel, wanted: Option<&str>) -> Result<String, OnnxError> {
    let named: Vec<(OutletId, String)> = model
        .outputs
        .iter()
        .map(|outlet| (*outlet, model.outlet_label(*outlet).unwrap_or_default().to_owned()))
        .collect();
    let chosen = match wanted {
        Some(wanted) => named.iter().find(|(_, name)| name == wanted),
        None => named.first(),
    };
    let Some((outlet, name)) = chosen else {
        let available: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
        return Err(OnnxError::Output {
            wanted: wanted.unwrap_or("(first)").to_owned(),
            available: available.join(", "),
        });
    };
    // The parts that only other outputs need are not run: a model with a ZipMap on its
    // probabilities still gives its label.
    model.select_output_outlets(&[*outlet]).map_err(|error| OnnxError::Plan(error.to_string()))?;
    Ok(name.clone())
}

fn input_layout(model: &InferenceModel) -> Result<Layout, OnnxError> {
    let [input] = model.inputs.as_slice() else {
        return Err(OnnxError::Input(format!("{} inputs, expected one", model.inputs.len())));
    };
    let fact = model.outlet_fact(*input).map_err(|error| OnnxError::Input(error.to_string()))?;
    let Some(datum_type) = fact.datum_type.concretize() else {
        return Err(OnnxError::Input("its element type is unknown".to_owned()));
    };
    let numeric = datum_type.is_float() || datum_type.is_integer();
    if !numeric {
        return Err(OnnxError::Input(format!("{datum_type:?} elements, expected numbers")));
    }
    let mut dims = fact.shape.dims().map(|dim| dim.concretize().and_then(|d| d.to_usize().ok()));
    let rows = match dims.next() {
        Some(rows) => rows.filter(|rows| *rows > 0),
        None => return Err(OnnxError::Input("a scalar, expected a batch".to_owned())),
    };
    let Some(row_shape) = dims.collect::<Option<Vec<usize>>>() else {
        return Err(OnnxError::Input(
            "only its first dimension, the batch, may be left open: export with a fixed width"
                .to_owned(),
        ));
    };
    Ok(Layout { datum_type, rows, row_shape })
}

fn choose_input_type(
    wanted: Option<InputType>,
    datum_type: DatumType,
) -> Result<InputType, OnnxError> {
    match wanted {
        Some(InputType::Bytes | InputType::Strings) => {
            Err(OnnxError::Input("an ONNX container takes integers, floats or doubles".to_owned()))
        }
        Some(numeric) => Ok(numeric),
        None if datum_type == DatumType::F64 => Ok(InputType::Doubles),
        None if datum_type.is_float() => Ok(InputType::Floats),
        None => Ok(InputType::Integers),
    }
}

/// One plan for every batch size where the model allows it; else one of the size that it fixes, or
/// of one row. The number of rows is none for the first.
fn plan(
    model: InferenceModel,
    layout: &Layout,
    output: &str,
) -> Result<(Arc<TypedRunnableModel>, Option<usize>), OnnxError> {
    if let Some(error) = unsupported(&model, output) {
        return Err(error);
    }
    let refuse = |error: TractError| OnnxError::Plan(format!("{error:#}"));
    if let Some(rows) = layout.rows {
        let plan = plan_for(model, layout, rows.to_dim()).map_err(refuse)?;
        return Ok((plan, Some(rows)));
    }
    let any = model.symbols.new_with_prefix("batch").to_dim();
    match plan_for(model.clone(), layout, any) {
        Ok(plan) => Ok((plan, None)),
        // Some exports bake the batch of one into a Reshape; those run row by row.
        Err(error) => match plan_for(model, layout, 1.to_dim()) {
            Ok(plan) => Ok((plan, Some(1))),
            Err(_) => Err(refuse(error)),
        },
    }
}

fn plan_for(
    mut model: InferenceModel,
    layout: &Layout,
    rows: TDim,
) -> TractResult<Arc<TypedRunnableModel>> {
    let dims = layout.row_shape.iter().map(ToDim::to_dim);
    let shape: TVec<TDim> = std::iter::once(rows).chain(dims).collect();
    model.set_input_fact(0, InferenceFact::dt_shape(layout.datum_type, shape))?;
    model.into_optimized()?.into_runnable()
}

/// What stands between the input and the output and cannot be run, if anything.
fn unsupported(model: &InferenceModel, output: &str) -> Option<OnnxError> {
    let mut operators: Vec<String> = model
        .eval_order()
        .ok()?
        .into_iter()
        .filter_map(|id| {
            // How tract names what it has parsed but does not know.
            let name = model.nodes.get(id)?.op.name();
            Some(name.strip_prefix("Unimplemented(")?.trim_end_matches(')').to_owned())
        })
        .collect();
    operators.sort();
    operators.dedup();
    if operators.is_empty() {
        return None;
    }
    let output = output.to_owned();
    if operators.iter().any(|operator| operator == "ZipMap") {
        return Some(OnnxError::ZipMap(output));
    }
    Some(OnnxError::Operators { output, operators: operators.join(", ") })
}

fn wire_tensor(input_type: InputType, shape: &[usize], values: &[u8]) -> TractResult<Tensor> {
    fn elements<const N: usize, T>(values: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
        values.as_chunks::<N>().0.iter().map(|element| read(*element)).collect()
    }
    match input_type {
        InputType::Integers => Tensor::from_shape(shape, &elements(values, i32::from_le_bytes)),
        InputType::Floats => Tensor::from_shape(shape, &elements(values, f32::from_le_bytes)),
        InputType::Doubles => Tensor::from_shape(shape, &elements(values, f64::from_le_bytes)),
        InputType::Bytes | InputType::Strings => bail!("{input_type} are not numbers"),
    }
}
