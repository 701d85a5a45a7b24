//! Request bodies into inputs in wire form, in one pass over the JSON text.
//!
//! The application's input type drives the parser, so numbers go straight into the byte layout that
//! the model RPC sends. Messages follow the original's where it has one that helps (golden
//! exchanges): they say which member, what was expected and what was found.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Value};
use smallvec::SmallVec;

use super::bodies::query_key;
pub use super::bodies::{BodyError, Digests, FeedbackForm, Inputs, PredictBody, input_bytes_max};
use super::visitors::{expecting, refuse, seed};
use clipper_domain::{Input, InputType};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// From here on the room for a body's one input is made at once: one that grows is copied each
/// time, and holds up to three times of what it needs.
const LONG_BYTES: usize = 8 << 10;

/// Reads a predict body.
///
/// # Errors
/// See [`BodyError`].
pub fn predict_body(
    body: &[u8],
    input_type: InputType,
    inputs_max: usize,
) -> Result<PredictBody, BodyError> {
    keyed_predict_body(body, input_type, inputs_max, None)
}

/// Reads a predict body that may say in a field of this name what it comes from.
///
/// # Errors
/// See [`BodyError`].
pub fn keyed_predict_body(
    body: &[u8],
    input_type: InputType,
    inputs_max: usize,
    key_field: Option<&Arc<str>>,
) -> Result<PredictBody, BodyError> {
    let mut context = Context::new(input_type, inputs_max, FeedbackForm::Original);
    context.key_field = key_field.cloned();
    let fields = read(body, context)?;
    let inputs = match (fields.batch, fields.input) {
        (Some(batch), _) => batch,
        (None, Some(input)) => SmallVec::from_buf([input]),
        (None, None) => {
            return Err(semantic("JSON object does not have required keys input or input_batch"));
        }
    };
    let uid = fields.uid.unwrap_or(0);
    Ok(PredictBody {
        inputs,
        digests: Digests::new(),
        version: fields.version,
        uid,
        key: fields.key,
    })
}

pub(super) fn semantic(text: impl Into<String>) -> BodyError {
    BodyError::Semantic(text.into())
}

#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) input: Option<Input>,
    pub(super) batch: Option<Inputs>,
    pub(super) version: Option<String>,
    pub(super) uid: Option<i64>,
    pub(super) label: Option<Value>,
    pub(super) query_id: Option<Value>,
    pub(super) loss: Option<Value>,
    pub(super) key: Option<String>,
}

/// What the visitors share: what to expect, and the first thing found wrong. Serde's errors cannot
/// carry it, because `serde_json` appends a position to them.
pub(super) struct Context {
    input_type: InputType,
    inputs_max: usize,
    form: FeedbackForm,
    key_field: Option<Arc<str>>,
    /// The input being read; its position in the batch.
    index: Option<usize>,
    /// The input being read, in wire form.
    wire: Vec<u8>,
    /// Bytes that the inputs may take; 0 where the body is too short for that to matter.
    bytes_max: usize,
    fault: Option<BodyError>,
}

impl Context {
    pub(super) fn new(input_type: InputType, inputs_max: usize, form: FeedbackForm) -> Self {
        let (key_field, index, wire, bytes_max, fault) = (None, None, Vec::new(), 0, None);
        Self { input_type, inputs_max, form, key_field, index, wire, bytes_max, fault }
    }

    fn fail<E: Error>(&mut self, fault: BodyError) -> E {
        self.fault.get_or_insert(fault);
        E::custom("refused")
    }

    fn has_any_form(&self) -> bool {
        self.form == FeedbackForm::Any
    }

    fn place(&self, element: usize) -> String {
        match self.index {
            Some(index) => format!("element {element} of input {index}"),
            None => format!("element {element} of the input"),
        }
    }
}

pub(super) fn read(body: &[u8], mut context: Context) -> Result<Fields, BodyError> {
    if body.len() >= LONG_BYTES {
        context.bytes_max = input_bytes_max(body, context.input_type);
    }
    let mut json = Deserializer::from_slice(body);
    let fields = (&mut json)
        .deserialize_any_with(BodyVisitor { context: &mut context })
        .and_then(|fields| json.end().map(|()| fields));
    match (fields, context.fault) {
        (_, Some(fault)) => Err(fault),
        (Err(error), None) => Err(BodyError::Syntax(error)),
        (Ok(fields), None) => Ok(fields),
    }
}

/// `deserializer.deserialize_any(visitor)`, readable at the call site.
trait DeserializeAnyWith<'de>: serde::Deserializer<'de> + Sized {
    fn deserialize_any_with<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_any(visitor)
    }
}

impl<'de, D: serde::Deserializer<'de>> DeserializeAnyWith<'de> for D {}

struct BodyVisitor<'c> {
    context: &'c mut Context,
}

impl BodyVisitor<'_> {
    fn refuse<E: Error>(self, found: &'static str) -> E {
        self.context.fail(BodyError::NotAnObject(found))
    }
}

impl<'de> Visitor<'de> for BodyVisitor<'_> {
    type Value = Fields;
    expecting!("an object");
    refuse!(BodyVisitor::refuse; null, bool, number, string, array);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let context = self.context;
        let mut fields = Fields::default();
        // Of a repeated key the first counts, as in the original.
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "input" if fields.input.is_none() => {
                    context.index = None;
                    let one = OneInput { key: Some("input"), context: &mut *context };
                    fields.input = Some(map.next_value_seed(one)?);
                }
                "input_batch" if fields.batch.is_none() => {
                    fields.batch = Some(map.next_value_seed(BatchSeed { context: &mut *context })?);
                }
                "version" if fields.version.is_none() => {
                    let text = TextSeed { key: "version", context: &mut *context };
                    fields.version = Some(map.next_value_seed(text)?);
                }
                "uid" if fields.uid.is_none() => {
                    fields.uid = Some(map.next_value_seed(Uid { context: &mut *context })?);
                }
                "label" if fields.label.is_none() => {
                    fields.label = Some(map.next_value_seed(Label { context: &mut *context })?);
                }
                "query_id" if context.has_any_form() => fields.query_id = Some(map.next_value()?),
                "loss" if context.has_any_form() => fields.loss = Some(map.next_value()?),
                name if context.key_field.as_deref() == Some(name) && fields.key.is_none() => {
                    let read = query_key(name, map.next_value()?);
                    fields.key = read.map_err(|fault| context.fail(fault))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

fn mismatch(key: &str, expected: &str, found: &str) -> BodyError {
    semantic(format!(
        "Type mismatch! JSON key {key} expected type {expected} but found type {found}"
    ))
}

struct BatchSeed<'c> {
    context: &'c mut Context,
}

seed!(BatchSeed => Inputs);

impl BatchSeed<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        self.context.fail(mismatch("input_batch", "Array of inputs", found))
    }
}

impl<'de> Visitor<'de> for BatchSeed<'_> {
    type Value = Inputs;
    expecting!("an array of inputs");
    refuse!(BatchSeed::refuse; null, bool, number, string, object);

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
        let mut inputs = Inputs::new();
        loop {
            self.context.index = Some(inputs.len());
            let one = OneInput { key: None, context: &mut *self.context };
            let Some(input) = seq.next_element_seed(one)? else {
                return Ok(inputs);
            };
            if inputs.len() == self.context.inputs_max {
                return Err(self.context.fail(BodyError::TooManyInputs(inputs.len())));
            }
            inputs.push(input);
        }
    }
}

struct OneInput<'c> {
    /// The member it stands in; `None` inside a batch.
    key: Option<&'static str>,
    context: &'c mut Context,
}

seed!(OneInput => Input);

impl OneInput<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        let expected = match self.context.input_type {
            InputType::Strings => "String",
            InputType::Bytes => "String (base64-encoded)",
            InputType::Integers => "Array of integers",
            InputType::Floats => "Array of floats",
            InputType::Doubles => "Array of doubles",
            InputType::Tensors => "Object of tensors",
        };
        let index = self.context.index.unwrap_or_default();
        let place = self.key.map_or_else(|| format!("input_batch, input {index},"), str::to_owned);
        self.context.fail(mismatch(&place, expected, found))
    }

    fn empty<E: Error>(self) -> E {
        let place = match self.context.index {
            Some(index) => format!("Input {index} is empty"),
            None => "The input is empty".to_owned(),
        };
        self.context.fail(semantic(format!("{place}: give at least one element")))
    }
}

impl<'de> Visitor<'de> for OneInput<'_> {
    type Value = Input;
    expecting!("an input");
    refuse!(OneInput::refuse; null, bool, number, object);

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        match self.context.input_type {
            InputType::Strings => Ok(Input(Arc::from(text.as_bytes()))),
            InputType::Bytes if text.is_empty() => Err(self.empty()),
            InputType::Bytes => match BASE64.decode(text) {
                Ok(bytes) => Ok(Input(Arc::from(bytes))),
                Err(error) => {
                    let fault = format!("The input is not base64-encoded: {error}");
                    Err(self.context.fail(semantic(fault)))
                }
            },
            _ => Err(self.refuse("String")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Input, A::Error> {
        if matches!(self.context.input_type, InputType::Strings | InputType::Bytes) {
            return Err(self.refuse("Array"));
        }
        self.context.wire.clear();
        if self.key.is_some() {
            self.context.wire.reserve_exact(self.context.bytes_max);
        }
        let mut position = 0;
        loop {
            let element = NumberSeed { position, context: &mut *self.context };
            if seq.next_element_seed(element)?.is_none() {
                break;
            }
            position += 1;
        }
        if self.context.wire.is_empty() {
            return Err(self.empty());
        }
        Ok(Input(Arc::from(self.context.wire.as_slice())))
    }
}

/// One number of an input, appended to the context's `wire`.
struct NumberSeed<'c> {
    position: usize,
    context: &'c mut Context,
}

seed!(NumberSeed => ());

impl NumberSeed<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        let wanted = match self.context.input_type {
            InputType::Integers => "int",
            InputType::Floats => "float",
            _ => "double",
        };
        let place = self.context.place(self.position);
        self.context.fail(semantic(format!(
            "Array input of type {found} is not of type {wanted} ({place})"
        )))
    }

    fn out_of_range<E: Error>(self, number: impl fmt::Display) -> E {
        let kind = match self.context.input_type {
            InputType::Integers => "a 32-bit integer",
            _ => "a 32-bit float",
        };
        let place = self.context.place(self.position);
        self.context.fail(semantic(format!("{place}, {number}, is outside the range of {kind}")))
    }

    fn integer<E: Error, N: fmt::Display + Copy + TryInto<i32>>(
        self,
        number: N,
        as_f64: f64,
    ) -> Result<(), E> {
        if self.context.input_type != InputType::Integers {
            return self.real(as_f64);
        }
        match number.try_into() {
            Ok(number) => {
                self.context.wire.extend_from_slice(&i32::to_le_bytes(number));
                Ok(())
            }
            Err(_) => Err(self.out_of_range(number)),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "f64 to f32 rounds; overflow is checked")]
    fn real<E: Error>(self, number: f64) -> Result<(), E> {
        match self.context.input_type {
            InputType::Doubles => self.context.wire.extend_from_slice(&number.to_le_bytes()),
            InputType::Floats => {
                let single = number as f32;
                if single.is_infinite() {
                    return Err(self.out_of_range(number));
                }
                self.context.wire.extend_from_slice(&single.to_le_bytes());
            }
            _ => return Err(self.refuse("Number")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for NumberSeed<'_> {
    type Value = ();
    expecting!("a number");
    refuse!(NumberSeed::refuse; null, bool, string, array, object);

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.integer(number, number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.integer(number, number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.real(number)
    }
}

struct TextSeed<'c> {
    key: &'static str,
    context: &'c mut Context,
}

seed!(TextSeed => String);

impl TextSeed<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        self.context.fail(mismatch(self.key, "String", found))
    }
}

impl<'de> Visitor<'de> for TextSeed<'_> {
    type Value = String;
    expecting!("a string");
    refuse!(TextSeed::refuse; null, bool, number, array, object);

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

struct Uid<'c> {
    context: &'c mut Context,
}

seed!(Uid => i64);

impl Uid<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        self.context.fail(mismatch("uid", "Number", found))
    }
}

impl<'de> Visitor<'de> for Uid<'_> {
    type Value = i64;
    expecting!("an integer");
    refuse!(Uid::refuse; null, bool, string, array, object);

    fn visit_i64<E: Error>(self, uid: i64) -> Result<i64, E> {
        Ok(uid)
    }

    fn visit_u64<E: Error>(self, uid: u64) -> Result<i64, E> {
        let fault = mismatch("uid", "whole Number of 64 bits", &uid.to_string());
        i64::try_from(uid).map_err(|_| self.context.fail(fault))
    }

    fn visit_f64<E: Error>(self, uid: f64) -> Result<i64, E> {
        Err(self.context.fail(mismatch("uid", "whole Number of 64 bits", &uid.to_string())))
    }
}

struct Label<'c> {
    context: &'c mut Context,
}

seed!(Label => Value);

impl Label<'_> {
    fn refuse<E: Error>(self, found: &str) -> E {
        let any = self.context.has_any_form();
        let expected = if any { "Number, String or Bool" } else { "Number" };
        self.context.fail(mismatch("label", expected, found))
    }
}

impl<'de> Visitor<'de> for Label<'_> {
    type Value = Value;
    expecting!("a number");
    refuse!(Label::refuse; null, array, object);

    fn visit_bool<E: Error>(self, label: bool) -> Result<Value, E> {
        if self.context.has_any_form() { Ok(label.into()) } else { Err(self.refuse("Bool")) }
    }

    fn visit_str<E: Error>(self, label: &str) -> Result<Value, E> {
        if self.context.has_any_form() { Ok(label.into()) } else { Err(self.refuse("String")) }
    }

    fn visit_i64<E: Error>(self, label: i64) -> Result<Value, E> {
        Ok(label.into())
    }

    fn visit_u64<E: Error>(self, label: u64) -> Result<Value, E> {
        Ok(label.into())
    }

    fn visit_f64<E: Error>(self, label: f64) -> Result<Value, E> {
        Ok(label.into())
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
