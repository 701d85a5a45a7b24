//! Requests to models of type tensors: rows that are given, or made by chance.

use std::sync::Arc;

use clipper_domain::{Datatype, Signature, TensorSpec};
use clipper_oip::grpc::{InferTensor, ModelInferRequest};
use clipper_tensors::row::{self, RowCheck};
use clipper_tensors::{sample, write};
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::Protocol;

/// Elements at the beginning of each tensor that differ from row to row, where rows are made by
/// chance: enough to tell rows apart, and few enough to cost nothing beside the sending.
const CHANGING: usize = 32;
/// Most bytes of the elements of one request that is made by chance, and of all those that are
/// given.
const BYTES_MAX: usize = 256 << 20;
/// Letters of a text that is made by chance.
const LETTERS: usize = 12;
/// Digits after the point of a number in JSON.
const DIGITS: usize = 7;

/// Rows for a model of this signature.
#[derive(Debug)]
pub struct TensorPlan {
    signature: Signature,
    rows: TensorRows,
}

#[derive(Debug)]
pub enum TensorRows {
    /// Floats are from 0 to 1.
    Random {
        /// Length of the dimensions that the signature leaves open.
        open: u64,
        /// Whole numbers are from 0, and less than this.
        below: u32,
    },
    /// In this order, again and again.
    Given(Vec<Arc<[u8]>>),
}

/// Rows that no requests can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRequests {
    #[error("a request would have more than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("there are no rows")]
    None,
    #[error("row {0} is none of the model")]
    Other(usize),
    #[error(
        "row {0} has another shape than row 0: over v2 the rows of one request share their shapes"
    )]
    Shape(usize),
}

impl TensorPlan {
    /// # Errors
    /// See [`NoRequests`].
    pub fn new(
        signature: Signature,
        rows: TensorRows,
        (protocol, batch): (Protocol, Option<usize>),
    ) -> Result<Self, NoRequests> {
        let inputs = signature.inputs();
        match &rows {
            TensorRows::Random { open, .. } => {
                let all = inputs.iter().try_fold(0_usize, |sum, spec| {
                    let elements = row::elements(dims(spec, *open))?;
                    sum.checked_add(elements.checked_mul(text_bytes(spec.datatype))?)
                });
                let all = all.and_then(|bytes| bytes.checked_mul(batch.unwrap_or(1)));
                all.filter(|bytes| *bytes <= BYTES_MAX).ok_or(NoRequests::TooLarge)?;
            }
            TensorRows::Given(rows) => {
                let mut check = RowCheck::new(inputs);
                if let Some(at) = rows.iter().position(|row| !check.takes(row)) {
                    return Err(NoRequests::Other(at));
                }
                let head = |row: &Arc<[u8]>| row::read(row).map(|(head, _)| head.to_vec());
                let first = rows.first().ok_or(NoRequests::None)?;
                let is_joined = protocol != Protocol::Predict && batch.is_some_and(|n| n > 1);
                let other = |row: &Arc<[u8]>| is_joined && head(row) != head(first);
                if let Some(at) = rows.iter().position(other) {
                    return Err(NoRequests::Shape(at));
                }
                let bytes = rows.iter().map(|row| row.len()).sum::<usize>();
                if bytes.saturating_mul(batch.unwrap_or(1)) > BYTES_MAX {
                    return Err(NoRequests::TooLarge);
                }
            }
        }
        Ok(Self { signature, rows })
    }

    pub(in crate::bench) fn are_given(&self) -> bool {
        matches!(self.rows, TensorRows::Given(_))
    }

    /// The bodies of requests: one whose inputs get new elements, or one for each row that is
    /// given, which begins there.
    pub(in crate::bench) fn bodies(&self, protocol: Protocol, batch: Option<usize>) -> Vec<Body> {
        let count = match &self.rows {
            TensorRows::Random { .. } => 1,
            TensorRows::Given(rows) => rows.len(),
        };
        (0..count).map(|first| self.body(protocol, batch, first)).collect()
    }

    fn body(&self, protocol: Protocol, batch: Option<usize>, first: usize) -> Body {
        let render = Render { plan: self, first, rows: batch.unwrap_or(1) };
        match protocol {
            Protocol::Predict => render.predict(batch.is_some()),
            Protocol::V2 => render.v2(),
            Protocol::V2Binary => render.v2_binary(),
            Protocol::Grpc => render.grpc(),
        }
    }
}

/// Bytes of an element as JSON, at most; of all forms the longest.
fn text_bytes(datatype: Datatype) -> usize {
    if datatype == Datatype::Bytes { LETTERS + 4 } else { 12 }
}

fn dims(spec: &TensorSpec, open: u64) -> impl Iterator<Item = u64> {
    spec.row_shape().iter().map(move |n| u64::try_from(*n).unwrap_or(open))
}

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    /// With commas between them.
    Flat,
    /// In arrays as the shape says.
    Nested,
}

/// Where an element stands that changes.
#[derive(Debug, Clone, Copy)]
struct Hole {
    row: usize,
    at: usize,
    datatype: Datatype,
    is_binary: bool,
}

/// A request's body, with holes for the elements that change.
#[derive(Debug, Default)]
pub(in crate::bench) struct Body {
    pub(in crate::bench) bytes: Vec<u8>,
    /// How many of them are JSON, where not all are.
    pub(in crate::bench) json_bytes: Option<usize>,
    holes: Vec<Hole>,
    rows: usize,
    below: u32,
}

impl Body {
    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let moved = other.holes.iter().map(|hole| Hole { at: hole.at + start, ..*hole });
        self.holes.extend(moved);
    }

    /// Writes new elements into `body`, which is a copy of this one. Equal numbers are equal rows.
    pub(in crate::bench) fn fill(&self, body: &mut [u8], mut next: impl FnMut() -> u64) {
        let mut rows: Vec<SmallRng> =
            (0..self.rows).map(|_| SmallRng::seed_from_u64(next())).collect();
        let mut element = Vec::new();
        for hole in &self.holes {
            let Some(rng) = rows.get_mut(hole.row) else { continue };
            element.clear();
            put(hole.datatype, hole.is_binary, self.below, rng, &mut element);
            if let Some(place) = body.get_mut(hole.at..hole.at + element.len()) {
                place.copy_from_slice(&element);
            }
        }
    }
}

/// Appends an element made by chance, of a length that depends on its datatype alone.
fn put(datatype: Datatype, is_binary: bool, below: u32, rng: &mut SmallRng, out: &mut Vec<u8>) {
    if datatype == Datatype::Bytes {
        let letters = (0..LETTERS).map(|_| rng.random_range(b'a'..=b'z'));
        if is_binary {
            out.extend_from_slice(&u32::try_from(LETTERS).unwrap_or(0).to_le_bytes());
            out.extend(letters);
        } else {
            out.push(b'"');
            out.extend(letters);
            out.push(b'"');
        }
        return;
    }
    let is_float =
        matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64);
    let bound = match datatype {
        Datatype::Bool => 2,
        Datatype::Int8 => below.min(1 << 7),
        Datatype::Uint8 => below.min(1 << 8),
        Datatype::Int16 => below.min(1 << 15),
        Datatype::Uint16 => below.min(1 << 16),
        _ => below.min(1 << 31),
    };
    let whole = rng.random_range(0..bound.max(1));
    let number = if is_float { f64::from(rng.random::<f32>()) } else { f64::from(whole) };
    if is_binary {
        sample::put(datatype, number, out);
    } else if is_float {
        out.extend_from_slice(format!("{number:.DIGITS$}").as_bytes());
    } else {
        // White space before a number makes all of them as long as the longest.
        let width = below.max(2).to_string().len();
        out.extend_from_slice(format!("{whole:>width$}").as_bytes());
    }
}

/// The rows of one request.
struct Render<'p> {
    plan: &'p TensorPlan,
    /// The first of those that are given.
    first: usize,
    rows: usize,
}

impl Render<'_> {
    fn empty(&self) -> Body {
        let below = match self.plan.rows {
            TensorRows::Random { below, .. } => below,
            TensorRows::Given(_) => 0,
        };
        Body { rows: self.rows, below, ..Body::default() }
    }

    fn specs(&self) -> &[TensorSpec] {
        self.plan.signature.inputs()
    }

    /// The dimensions of a row's tensor.
    fn dims(&self, row: usize, tensor: usize) -> Vec<u64> {
        match &self.plan.rows {
            TensorRows::Random { open, .. } => {
                self.specs().get(tensor).map(|spec| dims(spec, *open).collect()).unwrap_or_default()
            }
            TensorRows::Given(rows) => {
                let tensors = self.given(rows, row).and_then(|row| row::read(row));
                let dims = tensors.and_then(|(_, all)| Some(all.get(tensor)?.dims().collect()));
                dims.unwrap_or_default()
            }
        }
    }

    fn given<'r>(&self, rows: &'r [Arc<[u8]>], row: usize) -> Option<&'r Arc<[u8]>> {
        rows.get((self.first + row) % rows.len().max(1))
    }

    /// The elements of one tensor of one row.
    fn elements(&self, row: usize, tensor: usize, form: Form, body: &mut Body) {
        let Some(spec) = self.specs().get(tensor) else { return };
        let dims = self.dims(row, tensor);
        match &self.plan.rows {
            TensorRows::Given(rows) => {
                let read = self.given(rows, row).and_then(|row| row::read(row));
                let Some(data) = read.and_then(|(_, all)| Some(all.get(tensor)?.data)) else {
                    return;
                };
                match form {
                    Form::Binary => body.bytes.extend_from_slice(data),
                    Form::Flat => write::put_flat(spec.datatype, data, true, &mut body.bytes),
                    Form::Nested => write::put_json(spec.datatype, &dims, data, &mut body.bytes),
                }
            }
            TensorRows::Random { .. } => {
                let mut chance = Chance {
                    row,
                    datatype: spec.datatype,
                    is_binary: form == Form::Binary,
                    rng: SmallRng::seed_from_u64(row as u64),
                    put: 0,
                };
                if form == Form::Nested {
                    return chance.nested(&dims, body);
                }
                for at in 0..row::elements(dims).unwrap_or(0) {
                    if at > 0 && form == Form::Flat {
                        body.text(",");
                    }
                    chance.element(body);
                }
            }
        }
    }

    /// The elements of one tensor of all rows.
    fn joined(&self, tensor: usize, form: Form) -> Body {
        let mut body = self.empty();
        for row in 0..self.rows {
            if row > 0 && form == Form::Flat {
                body.text(",");
            }
            self.elements(row, tensor, form, &mut body);
        }
        body
    }

    fn shape(&self, tensor: usize) -> Vec<u64> {
        std::iter::once(self.rows as u64).chain(self.dims(0, tensor)).collect()
    }

    fn predict(&self, is_batch: bool) -> Body {
        let mut body = self.empty();
        body.text(if is_batch { "{\"input_batch\":[" } else { "{\"input\":" });
        for row in 0..self.rows {
            body.text(if row > 0 { ",{" } else { "{" });
            for (tensor, spec) in self.specs().iter().enumerate() {
                let comma = if tensor > 0 { "," } else { "" };
                body.text(&format!("{comma}{}:", json!(spec.name)));
                self.elements(row, tensor, Form::Nested, &mut body);
            }
            body.text("}");
        }
        body.text(if is_batch { "]}" } else { "}" });
        body
    }

    fn v2(&self) -> Body {
        let mut body = self.empty();
        body.text("{\"inputs\":[");
        for (tensor, TensorSpec { name, datatype, .. }) in self.specs().iter().enumerate() {
            let comma = if tensor > 0 { "," } else { "" };
            body.text(&format!(
                "{comma}{{\"name\":{},\"datatype\":\"{}\",\"shape\":{},\"data\":[",
                json!(name),
                datatype.name(),
                json!(self.shape(tensor)),
            ));
            body.append(&self.joined(tensor, Form::Flat));
            body.text("]}");
        }
        body.text("]}");
        body
    }

    fn v2_binary(&self) -> Body {
        let parts = 0..self.specs().len();
        let parts: Vec<Body> = parts.map(|tensor| self.joined(tensor, Form::Binary)).collect();
        let inputs = self.specs().iter().zip(&parts).enumerate().map(|(tensor, (spec, part))| {
            json!({"name": spec.name, "datatype": spec.datatype, "shape": self.shape(tensor),
                "parameters": {"binary_data_size": part.bytes.len()}})
        });
        let inputs: Vec<serde_json::Value> = inputs.collect();
        let mut body = self.empty();
        let head = json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
        body.text(&head.to_string());
        body.json_bytes = Some(body.bytes.len());
        for part in &parts {
            body.append(part);
        }
        body
    }

    /// All of the message but the name of the model.
    fn grpc(&self) -> Body {
        /// `raw_input_contents`, of known length.
        const RAW: u8 = 7 << 3 | 2;
        let inputs = self.specs().iter().enumerate().map(|(tensor, spec)| InferTensor {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: self.shape(tensor).iter().map(|n| i64::try_from(*n).unwrap_or(0)).collect(),
            ..InferTensor::default()
        });
        let message =
            ModelInferRequest { inputs: inputs.collect(), ..ModelInferRequest::default() };
        let mut body = self.empty();
        body.bytes = message.encode_to_vec();
        for tensor in 0..self.specs().len() {
            let part = self.joined(tensor, Form::Binary);
            body.bytes.push(RAW);
            prost::encoding::encode_varint(part.bytes.len() as u64, &mut body.bytes);
            body.append(&part);
        }
        body
    }
}

/// Writes the elements of a tensor that are made by chance.
struct Chance {
    row: usize,
    datatype: Datatype,
    is_binary: bool,
    rng: SmallRng,
    put: usize,
}

impl Chance {
    fn element(&mut self, body: &mut Body) {
        let Self { row, datatype, is_binary, .. } = *self;
        if self.put < CHANGING {
            body.holes.push(Hole { row, at: body.bytes.len(), datatype, is_binary });
        }
        self.put += 1;
        put(datatype, is_binary, body.below, &mut self.rng, &mut body.bytes);
    }

    fn nested(&mut self, dims: &[u64], body: &mut Body) {
        let Some((count, inner)) = dims.split_first() else { return self.element(body) };
        body.text("[");
        for at in 0..*count {
            if at > 0 {
                body.text(",");
            }
            self.nested(inner, body);
        }
        body.text("]");
    }
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
