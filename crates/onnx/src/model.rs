//! A model file as a container's model: rows of a batch in, a text for each row out.

use std::path::Path;

use bytes::Bytes;
use clipper_container::{BatchModel, ModelError, ModelOutput};
use clipper_domain::InputType;

use crate::engine::{Engine, EngineInfo, EngineOptions};
use crate::engine_error::EngineError;
use crate::error::OnnxError;
use crate::file::{BatchAxis, InputLayout, ModelFile, choose_input_type};
use crate::open::open;
use crate::output::{render_rows, render_whole};
use crate::tensor::{Element, Elements, Output, Tensor};

/// How far a row's outputs may differ when another row is beside it: matrix products of another
/// size add in another order.
const TOLERANCE: f64 = 1e-3;

/// A loaded model, ready to predict.
pub struct OnnxModel {
    engine: Box<dyn Engine>,
    info: EngineInfo,
    layout: InputLayout,
    input_type: InputType,
    output_name: String,
    rows: RowsPerRun,
}

/// How many rows a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowsPerRun {
    Any,
    Exactly(usize),
}

impl OnnxModel {
    /// Loads `path`, chooses its output (the first one when `output` is none), and runs it on a few
    /// made-up rows.
    ///
    /// `input_type` is what the application sends; none takes what the model's input is made of.
    ///
    /// # Errors
    /// See [`OnnxError`].
    pub fn load(
        path: &Path,
        input_type: Option<InputType>,
        output: Option<&str>,
        options: &EngineOptions,
    ) -> Result<Self, OnnxError> {
        let file = ModelFile::read(path)?;
        let output_name = file.choose_output(output)?;
        let layout = match file.layout() {
            Err(OnnxError::Input(why)) if file.has_tensors()? => {
                return Err(OnnxError::OnlyTensors(why));
            }
            layout => layout?,
        };
        let input_type = choose_input_type(input_type, layout.element)?;
        let mixes_rows = file.mixes_rows();
        let (engine, info) = open(file, &layout, &output_name, options)?;
        let rows = RowsPerRun::Exactly(1);
        let mut loaded = Self { engine, info, layout, input_type, output_name, rows };
        let rows = loaded.find_rows(mixes_rows);
        loaded.rows = rows.map_err(|why| loaded.refusal(&why))?;
        Ok(loaded)
    }

    /// The name of the output that answers.
    #[must_use]
    pub fn output_name(&self) -> &str {
        &self.output_name
    }

    #[must_use]
    pub fn engine(&self) -> &EngineInfo {
        &self.info
    }

    /// Elements of one input.
    #[must_use]
    pub fn input_width(&self) -> usize {
        self.layout.width()
    }

    fn refusal(&self, why: &EngineError) -> OnnxError {
        let why = why.to_string();
        match &self.info {
            EngineInfo::Builtin => OnnxError::Unsupported { output: self.output_name.clone(), why },
            info @ EngineInfo::Ort { .. } => OnnxError::Plan { engine: info.to_string(), why },
        }
    }

    /// Finds out how many rows may share a tensor: any number, if a row's outputs are the same
    /// alone and beside another one.
    fn find_rows(&mut self, mixes_rows: bool) -> Result<RowsPerRun, EngineError> {
        if let BatchAxis::Fixed(rows @ 2..) = self.layout.batch {
            return self.check_fixed(rows, mixes_rows);
        }
        let [one, other] = [0, 1].map(|row| probe_row(self.input_type, self.layout.width(), row));
        let alone = self.run(&[&one], 1).or_else(|_| {
            // Indices, for example, have to be small.
            let zeros = probe_row(self.input_type, self.layout.width(), ZEROS);
            self.run(&[&zeros], 1)
        })?;
        if self.layout.batch != BatchAxis::Open || mixes_rows {
            return Ok(RowsPerRun::Exactly(1));
        }
        let independent = self.run(&[&other], 1).is_ok_and(|other_alone| {
            // Exports with a batch of one baked into them fail here; those run row by row.
            self.run(&[&one, &other], 2).is_ok_and(|both| {
                row_equals(&both, 0, &alone, 0) && row_equals(&both, 1, &other_alone, 0)
            })
        });
        Ok(if independent { RowsPerRun::Any } else { RowsPerRun::Exactly(1) })
    }

    /// A batch of fixed size is filled up with zeros, which must not show in anybody's output.
    fn check_fixed(&mut self, rows: usize, mixes_rows: bool) -> Result<RowsPerRun, EngineError> {
        let [one, other] = [0, 1].map(|row| probe_row(self.input_type, self.layout.width(), row));
        let zeros = probe_row(self.input_type, self.layout.width(), ZEROS);
        self.run(&[&zeros], rows)?;
        let beside_zeros = self.run(&[&one], rows)?;
        let beside_other = self.run(&[&one, &other], rows)?;
        if mixes_rows || !row_equals(&beside_zeros, 0, &beside_other, 0) {
            return Err(EngineError::MixesRows(rows));
        }
        Ok(RowsPerRun::Exactly(rows))
    }

    fn input_bytes(&self) -> usize {
        self.layout.width() * element_bytes(self.input_type)
    }

    /// Whether `input` is one input of this model.
    fn fits(&self, input: &Bytes) -> bool {
        self.input_type == InputType::Strings || input.len() == self.input_bytes()
    }

    /// Runs rows that fit, in as many calls as the model needs, and gives each its output.
    fn predict_rows(&mut self, rows: &[&Bytes]) -> Vec<ModelOutput> {
        let (chunk, pad) = match self.rows {
            RowsPerRun::Any => (rows.len().max(1), None),
            RowsPerRun::Exactly(rows) => (rows, Some(rows)),
        };
        let mut outputs = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(chunk) {
            match self.answers(chunk, pad.unwrap_or(chunk.len())) {
                Ok(texts) => outputs.extend(texts.into_iter().map(Ok)),
                Err(why) if chunk.len() == 1 => {
                    tracing::warn!("the model failed on an input: {why}");
                    outputs.push(Err(ModelError(why.to_string())));
                }
                // One of them is at fault, and its neighbours must not pay for it.
                Err(_) => outputs.extend(chunk.iter().map(|row| self.answer_alone(row, pad))),
            }
        }
        outputs
    }

    fn answer_alone(&mut self, row: &Bytes, pad: Option<usize>) -> ModelOutput {
        let texts = self.answers(&[row], pad.unwrap_or(1));
        let text = texts.and_then(|mut texts| texts.pop().ok_or(EngineError::NoOutput));
        text.map_err(|error| ModelError(error.to_string()))
    }

    fn answers(&mut self, chunk: &[&Bytes], rows: usize) -> Result<Vec<String>, EngineError> {
        let output = self.run(chunk, rows)?;
        if rows == 1 {
            return Ok(vec![render_whole(&output)]);
        }
        Ok(render_rows(&output, chunk.len()))
    }

    /// One run of `rows` rows; those missing in `chunk` are zeros.
    fn run(&mut self, chunk: &[&Bytes], rows: usize) -> Result<Output, EngineError> {
        let elements = self.elements(chunk, rows)?;
        let shape = self.layout.shape(rows);
        let output = self.engine.run(Tensor { shape, elements })?;
        let (given, shape) = match &output {
            Output::Tensor(tensor) => (tensor.shape.first().copied(), tensor.shape.as_slice()),
            Output::Maps(maps) => (Some(maps.len()), [].as_slice()),
        };
        if rows > 1 && given != Some(rows) {
            let (output, shape) = (self.output_name.clone(), shape.to_vec());
            return Err(EngineError::NoBatch { output, shape, rows });
        }
        Ok(output)
    }

    fn elements(&self, chunk: &[&Bytes], rows: usize) -> Result<Elements, EngineError> {
        let element = self.layout.element;
        let missing = (rows - chunk.len().min(rows)) * self.layout.width();
        if self.input_type == InputType::Strings {
            return self.texts(chunk, missing);
        }
        let mut bytes = Vec::with_capacity(rows * self.input_bytes());
        for row in chunk {
            bytes.extend_from_slice(row);
        }
        bytes.resize(rows * self.input_bytes(), 0);
        Ok(match self.input_type {
            InputType::Integers => {
                let values = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
                Elements::from_integers(values, element)
            }
            InputType::Floats => {
                let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                Elements::from_floats(values, element)
            }
            InputType::Doubles => {
                let values = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
                Elements::from_doubles(values, element)
            }
            InputType::Bytes | InputType::Strings | InputType::Tensors => Elements::U8(bytes),
        })
    }

    fn texts(&self, chunk: &[&Bytes], missing: usize) -> Result<Elements, EngineError> {
        if self.layout.width() != 1 || self.layout.element != Element::Text {
            return Err(EngineError::Texts(self.layout.width()));
        }
        let mut texts = Vec::with_capacity(chunk.len() + missing);
        for row in chunk {
            let text = std::str::from_utf8(row).map_err(|_| EngineError::NotUtf8)?;
            texts.push(text.to_owned());
        }
        texts.resize(chunk.len() + missing, String::new());
        Ok(Elements::Text(texts))
    }

    fn wrong_length(&self, input: &Bytes) -> ModelError {
        let (width, input_type, bytes) = (self.layout.width(), self.input_type, input.len());
        let got = bytes / element_bytes(input_type);
        ModelError(format!("expected {width} {input_type}, got {got} ({bytes} bytes)"))
    }
}

impl BatchModel for OnnxModel {
    fn input_type(&self) -> InputType {
        self.input_type
    }

    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput> {
        let fitting: Vec<&Bytes> = inputs.iter().filter(|input| self.fits(input)).collect();
        let mut outputs = self.predict_rows(&fitting).into_iter();
        let mut answer = |input: &Bytes| {
            let output = if self.fits(input) { outputs.next() } else { None };
            output.unwrap_or_else(|| Err(self.wrong_length(input)))
        };
        let answers: Vec<ModelOutput> = inputs.iter().map(&mut answer).collect();
        answers
    }
}

fn element_bytes(input_type: InputType) -> usize {
    input_type.element_bytes().max(1)
}

/// A probe of nothing but zeros or an empty text.
const ZEROS: usize = usize::MAX;

/// Rows that differ from each other in all their elements, with numbers that every model can take.
fn probe_row(input_type: InputType, width: usize, row: usize) -> Bytes {
    if row == ZEROS {
        let bytes = if input_type == InputType::Strings { 0 } else { element_bytes(input_type) };
        return Bytes::from(vec![0; width * bytes]);
    }
    let integer = |_: usize| i32::try_from(row).unwrap_or(0);
    // Between -1 and 1 in one row, between -3 and 3 in the other.
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let real = |column: usize| {
        let phase = (column * 7 + row * 3) % 19;
        (phase as f64 / 9.0 - 1.0) * if row == 0 { 1.0 } else { 3.0 }
    };
    let columns = 0..width;
    match input_type {
        InputType::Integers => columns.flat_map(|c| integer(c).to_le_bytes()).collect(),
        #[allow(clippy::cast_possible_truncation, reason = "no digit of a probe matters")]
        InputType::Floats => columns.flat_map(|c| (real(c) as f32).to_le_bytes()).collect(),
        InputType::Doubles => columns.flat_map(|c| real(c).to_le_bytes()).collect(),
        InputType::Bytes | InputType::Tensors => {
            columns.map(|_| u8::try_from(row).unwrap_or(0)).collect()
        }
        InputType::Strings => Bytes::from(vec![b"ab"[row % 2]]),
    }
}

/// Whether two rows of outputs are the same but for rounding.
fn row_equals(one: &Output, row: usize, other: &Output, other_row: usize) -> bool {
    match (one, other) {
        (Output::Maps(one), Output::Maps(other)) => {
            let pair = one.get(row).zip(other.get(other_row));
            pair.is_some_and(|(one, other)| {
                one.len() == other.len()
                    && one.iter().zip(other).all(|((label, p), (other_label, q))| {
                        label == other_label && close(f64::from(*p), f64::from(*q))
                    })
            })
        }
        (Output::Tensor(one), Output::Tensor(other)) => {
            one.shape.get(1..) == other.shape.get(1..)
                && elements_equal(one.row(row), other.row(other_row))
        }
        _ => false,
    }
}

fn elements_equal(one: Option<Elements>, other: Option<Elements>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let (Some(numbers), Some(others)) = (one.to_doubles(), other.to_doubles()) else {
        return one == other;
    };
    numbers.len() == others.len() && numbers.iter().zip(&others).all(|(a, b)| close(*a, *b))
}

fn close(one: f64, other: f64) -> bool {
    let same = one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan());
    same || (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()).max(1e-2)
}
