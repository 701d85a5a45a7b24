//! Request bodies: a template is rendered once; each request only gets new digits in it.

mod choice;
pub(super) mod grpc;
pub mod tensors;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

pub use self::choice::{Choice, InvalidChoice, ZIPF_KEYS_MAX};
use super::float::float;
use clipper_domain::InputType;
use clipper_oip::Datatype;

/// What requests are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /{app}/predict`
    Predict,
    /// The Open Inference Protocol in JSON.
    V2,
    /// The same with its tensors in binary form, both ways.
    V2Binary,
    /// The same over gRPC.
    Grpc,
}

/// The method of gRPC.
pub(super) const GRPC_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A text that is no [`Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected predict, v2, v2-binary or grpc")]
pub struct InvalidProtocol;

impl Protocol {
    /// Reads `predict`, `v2`, `v2-binary` or `grpc`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidProtocol> {
        match text {
            "predict" => Ok(Self::Predict),
            "v2" => Ok(Self::V2),
            "v2-binary" => Ok(Self::V2Binary),
            "grpc" => Ok(Self::Grpc),
            _ => Err(InvalidProtocol),
        }
    }

    /// Where requests for an application go.
    #[must_use]
    pub fn path(self, app: &str) -> String {
        match self {
            Self::Predict => format!("/{app}/predict"),
            Self::V2 | Self::V2Binary => format!("/v2/models/{app}/infer"),
            Self::Grpc => GRPC_INFER.to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct InputPlan {
    /// What they are written in.
    pub protocol: Protocol,
    /// The application's input type.
    pub input_type: InputType,
    /// Elements of one input.
    pub len: usize,
    /// Inputs of one request; `None` sends `input`, `Some(n)` sends `input_batch`.
    pub batch: Option<usize>,
    /// Which inputs follow each other.
    pub choice: Choice,
}

impl InputPlan {
    /// Queries of one request.
    #[must_use]
    pub fn per_request(&self) -> u64 {
        self.batch.unwrap_or(1) as u64
    }
}

/// A request body with holes for the number that tells its inputs apart.
#[derive(Debug, Clone)]
pub struct Template {
    pub body: Vec<u8>,
    /// Where each input's number starts.
    holes: Vec<usize>,
    /// Decimal digits of a hole.
    digits: usize,
    /// Added to the number, so that an integer never starts with 0.
    base: u64,
    /// What holes hold that are no digits.
    binary: Option<InputType>,
    /// Bytes of the body that are JSON, where not all are.
    pub json_bytes: Option<usize>,
}

impl Template {
    /// The template of a plan.
    #[must_use]
    pub fn new(plan: &InputPlan) -> Self {
        match plan.protocol {
            Protocol::Predict => Self::predict(plan),
            Protocol::V2 => Self::v2(plan),
            Protocol::V2Binary => Self::v2_binary(plan),
            Protocol::Grpc => Self::grpc(plan),
        }
    }

    fn predict(plan: &InputPlan) -> Self {
        let row = JsonRow::new(plan.input_type, plan.len);
        let mut body = Vec::new();
        let mut holes = Vec::new();
        let mut push_row = |body: &mut Vec<u8>| {
            holes.push(body.len() + row.hole);
            body.extend_from_slice(row.text.as_bytes());
        };
        match plan.batch {
            None => {
                body.extend_from_slice(b"{\"input\":");
                push_row(&mut body);
                body.push(b'}');
            }
            Some(rows) => {
                body.extend_from_slice(b"{\"input_batch\":[");
                for row in 0..rows {
                    if row > 0 {
                        body.push(b',');
                    }
                    push_row(&mut body);
                }
                body.extend_from_slice(b"]}");
            }
        }
        Self::of(&row, body, holes)
    }

    /// A body whose holes hold the digits of `row`.
    fn of(row: &JsonRow, body: Vec<u8>, holes: Vec<usize>) -> Self {
        let (digits, base) = (row.digits, row.base);
        Self { body, holes, digits, base, binary: None, json_bytes: None }
    }

    fn v2(plan: &InputPlan) -> Self {
        let (row, tensor) = tensor(plan);
        let mut body = format!("{{\"inputs\":[{{{tensor},\"data\":[").into_bytes();
        let mut holes = Vec::new();
        for index in 0..plan.batch.unwrap_or(1) {
            if index > 0 {
                body.push(b',');
            }
            holes.push(body.len() + row.hole);
            body.extend_from_slice(row.text.as_bytes());
        }
        body.extend_from_slice(b"]}]}");
        Self::of(&row, body, holes)
    }

    fn v2_binary(plan: &InputPlan) -> Self {
        let (row, tensor) = tensor(plan);
        let (len, rows) = (plan.len, plan.batch.unwrap_or(1));
        let (one, hole) = binary_row(plan.input_type, len);
        let size = one.len() * rows;
        let mut body = format!(
            "{{\"inputs\":[{{{tensor},\"parameters\":{{\"binary_data_size\":{size}}}}}],\
             \"parameters\":{{\"binary_data_output\":true}}}}"
        )
        .into_bytes();
        let json_bytes = Some(body.len());
        let mut holes = Vec::new();
        for _ in 0..rows {
            holes.push(body.len() + hole);
            body.extend_from_slice(&one);
        }
        let binary = (!is_text(plan.input_type)).then_some(plan.input_type);
        Self { binary, json_bytes, ..Self::of(&row, body, holes) }
    }

    /// How many different inputs its holes can hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let all = 10_u64.pow(u32::try_from(self.digits).unwrap_or(0));
        // Integers go from 1,000,000,000 to 2,147,483,647.
        if self.base > 0 { u64::from(i32::MAX.unsigned_abs()) - self.base } else { all }
    }

    /// Writes a number into each hole of `body`, which is a copy of the template at `offset`.
    ///
    /// The last digit of the number comes first, so that inputs which follow each other are told
    /// apart by their first digits: an application over floats keeps seven of twelve.
    pub fn fill(&self, body: &mut [u8], mut next: impl FnMut() -> u64) {
        for hole in &self.holes {
            let mut number = self.base + next();
            if let Some(input_type) = self.binary {
                put_binary(input_type, number, body, *hole);
                continue;
            }
            let Some(digits) = body.get_mut(*hole..hole + self.digits) else { continue };
            if self.base > 0 {
                digits.reverse();
            }
            for digit in digits.iter_mut() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
            if self.base > 0 {
                // A whole number must not begin with 0.
                digits.reverse();
            }
        }
    }
}

/// A row in binary form, and where its hole is.
fn binary_row(input_type: InputType, len: usize) -> (Vec<u8>, usize) {
    if !is_text(input_type) {
        return (vec![0; len * input_type.element_bytes()], 0);
    }
    // A text has its length before it.
    let length = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    ([&length[..], &vec![b'0'; len]].concat(), length.len())
}

/// Whether an input is a text to the Open Inference Protocol.
fn is_text(input_type: InputType) -> bool {
    matches!(input_type, InputType::Bytes | InputType::Strings)
}

/// One row, and the tensor of all of them without its data. Bytes are written as text.
fn tensor(plan: &InputPlan) -> (JsonRow, String) {
    let datatype = Datatype::of(plan.input_type).name();
    let (rows, len) = (plan.batch.unwrap_or(1), plan.len);
    let (row, shape) = if is_text(plan.input_type) {
        (JsonRow::new(InputType::Strings, len), format!("[{rows}]"))
    } else {
        (JsonRow::new(plan.input_type, len), format!("[{rows},{len}]"))
    };
    let name = clipper_oip::INPUT;
    let tensor = format!("\"name\":\"{name}\",\"shape\":{shape},\"datatype\":\"{datatype}\"");
    (row, tensor)
}

/// Writes the number as the first element of a row. All that holes can hold are exact.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as above")]
fn put_binary(input_type: InputType, number: u64, body: &mut [u8], hole: usize) {
    let element: &[u8] = match input_type {
        InputType::Doubles => &(number as f64).to_le_bytes(),
        InputType::Floats => &(number as f32).to_le_bytes(),
        _ => &(number as i32).to_le_bytes(),
    };
    if let Some(place) = body.get_mut(hole..hole + element.len()) {
        place.copy_from_slice(element);
    }
}

/// One input as JSON.
struct JsonRow {
    text: String,
    hole: usize,
    digits: usize,
    base: u64,
}

impl JsonRow {
    fn new(input_type: InputType, len: usize) -> Self {
        let numbers = |first: String, other: &str| {
            let rest = format!(",{other}").repeat(len.saturating_sub(1));
            if len == 0 { "[]".to_owned() } else { format!("[{first}{rest}]") }
        };
        let zeros = |digits: usize| "0".repeat(digits);
        let (text, hole, digits, base) = match input_type {
            // 12 digits are apart from each other as f64, 7 as f32, 10 without a leading 0 as i32.
            InputType::Doubles => (numbers(format!("0.{}", zeros(12)), "0.5"), 3, 12, 0),
            InputType::Floats => (numbers(format!("0.{}", zeros(7)), "0.5"), 3, 7, 0),
            InputType::Integers => (numbers(zeros(10), "7"), 1, 10, 1_000_000_000),
            InputType::Strings => (format!("\"{}\"", "0".repeat(len)), 1, len.min(12), 0),
            // Tensors have bodies of their own.
            InputType::Bytes | InputType::Tensors => {
                // Digits are letters of base64 too: four of them are three bytes.
                let text = zeros(len / 3 * 4);
                let tail = match len % 3 {
                    1 => "AA==",
                    2 => "AAA=",
                    _ => "",
                };
                (format!("\"{text}{tail}\""), 1, (len / 3 * 4).min(12), 0)
            }
        };
        let digits = if len == 0 { 0 } else { digits };
        Self { text, hole, digits, base: if len == 0 { 0 } else { base } }
    }
}

/// Where the numbers come from; shared by all threads, so that unique inputs are unique.
#[derive(Debug)]
pub struct InputSource {
    kind: InputOrder,
    capacity: u64,
}

#[derive(Debug)]
enum InputOrder {
    Unique(AtomicU64),
    Same(u64),
    Zipf(Arc<[f64]>),
}

impl InputSource {
    /// A source; `seed` decides where unique inputs start, so that two runs do not share any.
    #[must_use]
    pub fn new(plan: &InputPlan, seed: u64) -> Self {
        let start = SmallRng::seed_from_u64(seed).random();
        let kind = match plan.choice {
            Choice::Unique => InputOrder::Unique(AtomicU64::new(start)),
            Choice::Same => InputOrder::Same(start),
            Choice::Zipf { exponent, keys } => InputOrder::Zipf(zipf_table(exponent, keys)),
        };
        // Of tensors any number is a row of its own.
        let is_flat = plan.input_type != InputType::Tensors;
        Self { kind, capacity: if is_flat { Template::new(plan).capacity() } else { u64::MAX } }
    }

    /// The next input's number.
    pub fn next(&self, rng: &mut SmallRng) -> u64 {
        let number = match &self.kind {
            InputOrder::Unique(counter) => counter.fetch_add(1, Ordering::Relaxed),
            InputOrder::Same(number) => *number,
            InputOrder::Zipf(table) => {
                let draw: f64 = rng.random();
                table.partition_point(|bound| *bound <= draw) as u64
            }
        };
        number % self.capacity
    }
}

/// The share of each key and all before it.
fn zipf_table(exponent: f64, keys: u64) -> Arc<[f64]> {
    let mut sum = 0.0;
    let mut table: Vec<f64> = (1..=keys)
        .map(|key| {
            sum += float(key).powf(-exponent);
            sum
        })
        .collect();
    for bound in &mut table {
        *bound /= sum;
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_same_input_stays_the_same_and_zipf_prefers_the_first_keys() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut plan = InputPlan {
            protocol: Protocol::Predict,
            input_type: InputType::Doubles,
            len: 3,
            batch: None,
            choice: Choice::Same,
        };
        let source = InputSource::new(&plan, 9);
        assert_eq!(source.next(&mut rng), source.next(&mut rng));

        plan.choice = Choice::parse("zipf:1:100").unwrap();
        let source = InputSource::new(&plan, 9);
        let mut counts = HashMap::new();
        for _ in 0..10_000 {
            *counts.entry(source.next(&mut rng)).or_insert(0) += 1;
        }
        // The harmonic number of 100 is 5.187.
        assert!((1_700..2_200).contains(&counts[&0]), "{counts:?}");
        assert!((800..1_150).contains(&counts[&1]), "{counts:?}");
        assert!(counts.keys().all(|key| *key < 100));
    }

    #[test]
    fn unique_inputs_are_unique_to_an_application_of_every_type() {
        for (input_type, is_float) in [(InputType::Doubles, true), (InputType::Integers, false)] {
            let plan = InputPlan {
                protocol: Protocol::Predict,
                input_type,
                len: 3,
                batch: None,
                choice: Choice::Unique,
            };
            let (template, source) = (Template::new(&plan), InputSource::new(&plan, 5));
            let mut rng = SmallRng::seed_from_u64(1);
            let mut seen = std::collections::HashSet::new();
            for _ in 0..10_000 {
                let mut body = template.body.clone();
                template.fill(&mut body, || source.next(&mut rng));
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let first = &body["input"][0];
                let key = if is_float {
                    // What an application over floats makes of doubles.
                    u64::from(first.to_string().parse::<f32>().unwrap().to_bits())
                } else {
                    first.as_u64().unwrap()
                };
                assert!(seen.insert(key), "{body} came twice");
            }
        }
    }

    #[test]
    fn the_open_inference_protocol_reads_what_is_written_in_it() {
        for (protocol, input_type) in [Protocol::V2, Protocol::V2Binary]
            .into_iter()
            .flat_map(|protocol| InputType::FLAT.map(|input_type| (protocol, input_type)))
        {
            let choice = Choice::Unique;
            let plan = InputPlan { protocol, input_type, len: 12, batch: Some(3), choice };
            let (template, source) = (Template::new(&plan), InputSource::new(&plan, 5));
            let mut rng = SmallRng::seed_from_u64(1);
            let mut body = template.body.clone();
            template.fill(&mut body, || source.next(&mut rng));
            let header = template.json_bytes.map(|bytes| bytes.to_string());
            let header = header.as_ref().map(String::as_bytes);
            let read = clipper_oip::parse(&body, header, input_type, 100).unwrap();
            assert_eq!(read.output.binary, protocol == Protocol::V2Binary);
            let [a, b, c] = &read.inputs[..] else { panic!("three rows") };
            assert!(a != b && b != c && a.0.len() == 12 * input_type.element_bytes());
        }
    }
}
