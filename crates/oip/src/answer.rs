//! Outputs into the body of an answer.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Number;

use crate::form::{As, OutputForm};
use crate::signature::OUTPUT;
use clipper_domain::Datatype;

/// Why outputs cannot be given as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberFault {
    /// Text, or a value that is not a number.
    #[error("it is neither a number nor a list of numbers")]
    NotNumbers,
    /// A list of another length than that of the first row.
    #[error("it has another length than that of the first row")]
    Ragged,
    /// The datatype asked for cannot hold a number.
    #[error("the datatype asked for cannot hold it")]
    Range,
}

/// Why outputs cannot be given as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutputFault {
    /// A number was asked for.
    #[error("the output of row {row} is not {}: {why}", .datatype.name())]
    Number {
        /// Which row, counted from 0.
        row: usize,
        /// Asked for.
        datatype: Datatype,
        /// What is in the way.
        why: NumberFault,
    },
    /// Rows of an output have different shapes, which no tensor can hold.
    #[error("row {row} has another shape than the rows before: ask for one row at a time")]
    Ragged {
        /// Which, counted from 0.
        row: usize,
    },
    /// Bytes that have no form in JSON.
    #[error("row {row} has bytes that are not UTF-8: ask for binary data")]
    NotText {
        /// Which, counted from 0.
        row: usize,
    },
    /// What answered gave no tensors.
    #[error("it is not made of the model's tensors")]
    NoTensors,
    /// The answer would be longer than one may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Rows that have the default output, and why the first of them has.
#[derive(Debug, Clone)]
pub struct Defaults<'a> {
    /// Counted from 0.
    pub rows: Vec<usize>,
    /// Of the first.
    pub explanation: &'a str,
}

impl Defaults<'_> {
    /// The rows as one text: the protocol's parameters are no lists.
    pub(crate) fn listed(&self) -> String {
        self.rows.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

/// The answer to an infer request.
#[derive(Debug)]
pub struct Answer<'a> {
    /// As it was asked for.
    pub model_name: &'a str,
    /// Which version answered.
    pub model_version: Option<&'a str>,
    /// The request's.
    pub id: Option<&'a str>,
    /// What the model said of each row, as JSON values.
    pub rows: &'a [&'a [u8]],
    /// Those of them that are the default output.
    pub defaults: Option<Defaults<'a>>,
    /// How the client wants it.
    pub form: OutputForm,
}

/// A body: JSON, then what is binary.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    /// All of it if there is no binary part.
    pub json: Vec<u8>,
    /// In the order of the outputs.
    pub binary: Option<Vec<u8>>,
}

/// The output in one form.
pub(crate) struct OutputTensor {
    pub(crate) datatype: Datatype,
    /// Elements of a row.
    pub(crate) each: usize,
    /// Binary, or the array of JSON.
    pub(crate) data: Vec<u8>,
}

/// What an answer begins with.
#[derive(Serialize)]
pub(crate) struct Head<'a> {
    pub(crate) model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<HeadParameters<'a>>,
}

#[derive(Serialize)]
pub(crate) struct HeadParameters<'a> {
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    default_rows: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    default_explanation: &'a str,
}

impl Answer<'_> {
    /// The body, of at most `max_bytes`.
    ///
    /// # Errors
    /// See [`OutputFault`].
    pub fn write(&self, max_bytes: usize) -> Result<Parts, OutputFault> {
        let tensor = self.tensor(self.form.binary, max_bytes)?;
        let mut json = serde_json::to_vec(&self.head()).unwrap_or_default();
        // The head is an object that goes on.
        json.pop();
        let OutputTensor { datatype, each, data } = tensor;
        let (rows, name) = (self.rows.len(), datatype.name());
        let output = format!(
            ",\"outputs\":[{{\"name\":\"{OUTPUT}\",\"datatype\":\"{name}\",\
             \"shape\":[{rows},{each}],"
        );
        json.extend_from_slice(output.as_bytes());
        let parts = if self.form.binary {
            let size = format!("\"parameters\":{{\"binary_data_size\":{}}}}}]}}", data.len());
            json.extend_from_slice(size.as_bytes());
            Parts { json, binary: Some(data) }
        } else {
            json.extend_from_slice(b"\"data\":");
            json.extend_from_slice(&data);
            json.extend_from_slice(b"}]}");
            Parts { json, binary: None }
        };
        within(parts.json.len() + parts.binary.as_ref().map_or(0, Vec::len), max_bytes)?;
        Ok(parts)
    }

    /// The output, binary or as JSON.
    pub(crate) fn tensor(
        &self,
        is_binary: bool,
        max_bytes: usize,
    ) -> Result<OutputTensor, OutputFault> {
        match self.form.datatype {
            As::Texts => self.texts(is_binary, max_bytes),
            As::Numbers(datatype) => self.numbers(is_binary, Some(datatype), max_bytes),
            As::Auto => match self.numbers(is_binary, None, max_bytes) {
                Err(OutputFault::Number { .. }) => self.texts(is_binary, max_bytes),
                other => other,
            },
        }
    }

    fn head(&self) -> Head<'_> {
        let parameters = self.defaults.as_ref().map(|defaults| HeadParameters {
            default: !defaults.rows.is_empty(),
            default_rows: defaults.listed(),
            default_explanation: defaults.explanation,
        });
        Head {
            model_name: self.model_name,
            model_version: self.model_version,
            id: self.id,
            parameters,
        }
    }

    fn texts(&self, is_binary: bool, max_bytes: usize) -> Result<OutputTensor, OutputFault> {
        let mut data = opening(is_binary);
        for (index, row) in self.rows.iter().enumerate() {
            if is_binary {
                let text = text_bytes(row);
                let length =
                    u32::try_from(text.len()).map_err(|_| OutputFault::TooLong(max_bytes))?;
                data.extend_from_slice(&length.to_le_bytes());
                data.extend_from_slice(&text);
            } else {
                if index > 0 {
                    data.push(b',');
                }
                put_json_text(row, &mut data);
            }
            within(data.len(), max_bytes)?;
        }
        if !is_binary {
            data.push(b']');
        }
        Ok(OutputTensor { datatype: Datatype::Bytes, each: 1, data })
    }

    fn numbers(
        &self,
        is_binary: bool,
        wanted: Option<Datatype>,
        max_bytes: usize,
    ) -> Result<OutputTensor, OutputFault> {
        let mut values: Vec<Number> = Vec::new();
        let mut each = None;
        let mut is_whole = true;
        for (row, text) in self.rows.iter().enumerate() {
            let datatype = wanted.unwrap_or(Datatype::Fp64);
            let fault = |why| OutputFault::Number { row, datatype, why };
            let numbers = numbers_of(text).ok_or_else(|| fault(NumberFault::NotNumbers))?;
            if *each.get_or_insert(numbers.len()) != numbers.len() {
                return Err(fault(NumberFault::Ragged));
            }
            is_whole &= numbers.iter().all(Number::is_i64);
            values.extend(numbers);
            within(values.len().saturating_mul(4), max_bytes)?;
        }
        let auto = if is_whole { Datatype::Int64 } else { Datatype::Fp64 };
        let (datatype, each) = (wanted.unwrap_or(auto), each.unwrap_or(1));
        let mut data = opening(is_binary);
        for (index, number) in values.iter().enumerate() {
            if index > 0 && !is_binary {
                data.push(b',');
            }
            let fault =
                OutputFault::Number { row: index / each, datatype, why: NumberFault::Range };
            HeldNumber::of(number, datatype).ok_or(fault)?.put(is_binary, &mut data);
            within(data.len(), max_bytes)?;
        }
        if !is_binary {
            data.push(b']');
        }
        Ok(OutputTensor { datatype, each, data })
    }
}

fn opening(is_binary: bool) -> Vec<u8> {
    if is_binary { Vec::new() } else { b"[".to_vec() }
}

fn within(bytes: usize, max_bytes: usize) -> Result<(), OutputFault> {
    if bytes > max_bytes { Err(OutputFault::TooLong(max_bytes)) } else { Ok(()) }
}

/// The text behind a JSON value: of a string what it says, of everything else the JSON itself.
#[must_use]
pub fn text_bytes(json: &[u8]) -> Cow<'_, [u8]> {
    let inner = json.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    match inner {
        None => Cow::Borrowed(json),
        Some(inner) if !inner.contains(&b'\\') => Cow::Borrowed(inner),
        Some(_) => match serde_json::from_slice::<String>(json) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(json),
        },
    }
}

fn put_json_text(json: &[u8], data: &mut Vec<u8>) {
    if json.first() == Some(&b'"') {
        data.extend_from_slice(json);
        return;
    }
    let text = String::from_utf8_lossy(json);
    // Writing to memory does not fail.
    drop(serde_json::to_writer(data, &*text));
}

fn numbers_of(json: &[u8]) -> Option<Vec<Number>> {
    if json.first() == Some(&b'[') {
        let numbers: Vec<Number> = serde_json::from_slice(json).ok()?;
        return (!numbers.is_empty()).then_some(numbers);
    }
    Some(vec![serde_json::from_slice(json).ok()?])
}

/// A number as its datatype holds it.
enum HeldNumber {
    Int32(i32),
    Int64(i64),
    Fp32(f32),
    Fp64(f64),
}

impl HeldNumber {
    #[allow(clippy::cast_possible_truncation, reason = "f64 to f32 rounds; overflow is checked")]
    fn of(number: &Number, datatype: Datatype) -> Option<Self> {
        Some(match datatype {
            Datatype::Int32 => Self::Int32(i32::try_from(number.as_i64()?).ok()?),
            Datatype::Int64 => Self::Int64(number.as_i64()?),
            Datatype::Fp32 => {
                let single = number.as_f64()? as f32;
                Self::Fp32(Some(single).filter(|single| single.is_finite())?)
            }
            _ => Self::Fp64(number.as_f64()?),
        })
    }

    fn put(&self, is_binary: bool, data: &mut Vec<u8>) {
        // Writing to memory does not fail.
        match self {
            Self::Int32(n) if is_binary => data.extend_from_slice(&n.to_le_bytes()),
            Self::Int64(n) if is_binary => data.extend_from_slice(&n.to_le_bytes()),
            Self::Fp32(n) if is_binary => data.extend_from_slice(&n.to_le_bytes()),
            Self::Fp64(n) if is_binary => data.extend_from_slice(&n.to_le_bytes()),
            Self::Int32(n) => drop(serde_json::to_writer(data, n)),
            Self::Int64(n) => drop(serde_json::to_writer(data, n)),
            Self::Fp32(n) => drop(serde_json::to_writer(data, n)),
            Self::Fp64(n) => drop(serde_json::to_writer(data, n)),
        }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
