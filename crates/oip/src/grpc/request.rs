//! A `ModelInferRequest` into inputs.

use std::borrow::Cow;
use std::fmt::{Arguments, Display};
use std::sync::Arc;

use clipper_domain::{InputType, Signature, TensorSpec};
use clipper_tensors::row::elements as elements_of;
use smallvec::SmallVec;

use super::contents;
use super::wire::{Fields, Value, varints};
use crate::bounded::{OUTPUTS_MAX, RANK_MAX, TENSORS_MAX};
use crate::error::{Fault, InferError};
use crate::form::{As, OutputForm, TensorForm, WantedOutput};
use crate::request::{AtField, Infer, described, only_the_input, output_form};
use crate::shape::Rows;
use crate::tensor::{Inputs, from_binary};
use crate::tensors::{self, Given, rows_of, tensor_form};
use crate::wire::{Output, OutputParameters, RequestParameters};
use clipper_domain::Datatype;

/// Parameters of one request, tensor or output.
const PARAMETERS_MAX: usize = 64;
/// Fields of the message itself, those without a meaning here among them.
const FIELDS_MAX: usize = 1_024;

/// What a message asks for, borrowed from its bytes; the elements of its tensors are not yet read.
#[derive(Debug, Default)]
pub struct Request<'m> {
    pub model_name: &'m str,
    /// Empty: the current one.
    pub model_version: &'m str,
    /// Whether an answer in pieces is to have an empty last message.
    pub wants_empty_final: bool,
    id: &'m str,
    parameters: RequestParameters,
    inputs: Vec<RequestTensor<'m>>,
    outputs: Vec<Output<'m>>,
    raw: Vec<&'m [u8]>,
}

#[derive(Debug, Default)]
struct RequestTensor<'m> {
    name: &'m str,
    datatype: &'m str,
    shape: Vec<u64>,
    is_shared_memory: bool,
    contents: Option<&'m [u8]>,
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy)]
enum Parameter<'m> {
    Bool(bool),
    Whole(i128),
    Text(&'m str),
    Other,
}

impl<'m> Request<'m> {
    /// Reads a message.
    ///
    /// # Errors
    /// The first field that is wrong, and how.
    pub fn read(message: &'m [u8]) -> Result<Self, InferError> {
        let mut request = Self::default();
        for field in fields("request", message, FIELDS_MAX) {
            let (number, value) = field?;
            request.take(number, value)?;
        }
        Ok(request)
    }

    #[must_use]
    pub fn id(&self) -> &'m str {
        self.id
    }

    fn take(&mut self, number: u64, value: Value<'m>) -> Result<(), InferError> {
        match number {
            1 => self.model_name = text("model_name", value)?,
            2 => self.model_version = text("model_version", value)?,
            3 => self.id = text("id", value)?,
            4 => {
                let (name, value) = entry("parameters", value)?;
                self.set(name, value)
                    .map_err(|fault| InferError::new(format!("parameters.{name}"), fault))?;
            }
            5 => {
                let at = self.inputs.len();
                room("inputs", at, TENSORS_MAX)?;
                self.inputs.push(tensor(format_args!("inputs[{at}]"), value)?);
            }
            6 => {
                let at = self.outputs.len();
                room("outputs", at, OUTPUTS_MAX)?;
                self.outputs.push(output(format_args!("outputs[{at}]"), value)?);
            }
            7 => {
                room("raw_input_contents", self.raw.len(), TENSORS_MAX)?;
                self.raw.push(bytes("raw_input_contents", value)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Parameter<'m>) -> Result<(), Fault> {
        match (name, value) {
            ("timeout", Parameter::Whole(micros)) => {
                let micros = u64::try_from(micros);
                self.parameters.timeout =
                    Some(micros.map_err(|_| Fault::Parameter("a number of microseconds"))?);
            }
            ("timeout", _) => return Err(Fault::Parameter("a number of microseconds")),
            ("priority", Parameter::Whole(priority)) => {
                let priority = u64::try_from(priority);
                self.parameters.priority =
                    Some(priority.map_err(|_| Fault::Parameter("a number, 0 or more"))?);
            }
            ("priority", _) => return Err(Fault::Parameter("a number, 0 or more")),
            ("default", Parameter::Bool(takes)) => self.parameters.default = Some(takes),
            ("default", _) => return Err(Fault::Parameter("true or false")),
            ("triton_enable_empty_final_response", Parameter::Bool(wants)) => {
                self.wants_empty_final = wants;
            }
            ("output_datatype", Parameter::Text(name)) => {
                self.parameters.output_datatype = Some(name.to_owned());
            }
            ("output_datatype", _) => return Err(Fault::Parameter("a text")),
            _ => {}
        }
        Ok(())
    }

    /// The inputs, and what else the request says.
    ///
    /// # Errors
    /// The first field that is wrong, and how.
    pub fn infer(&self, input_type: InputType, rows_max: usize) -> Result<Infer, InferError> {
        let mut output = output_form(&self.parameters, &self.outputs)?;
        // Elements are given as they were taken.
        output.binary = !self.raw.is_empty();
        let inputs = self.read_inputs(input_type, rows_max)?;
        let id = (!self.id.is_empty()).then(|| self.id.to_owned());
        Ok(Infer::new(inputs, id, &self.parameters, output))
    }

    /// Likewise, of a model of type tensors.
    ///
    /// # Errors
    /// The first field that is wrong, and how.
    pub fn infer_tensors(
        &self,
        signature: &Arc<Signature>,
        rows_max: usize,
    ) -> Result<Infer, InferError> {
        // Elements are given as they were taken.
        let binary = !self.raw.is_empty();
        let form = tensor_form(&self.outputs, signature, binary)?;
        let outputs = form.outputs.iter().map(|output| WantedOutput { binary, ..*output });
        let form = TensorForm { outputs: outputs.collect(), ..form };
        self.count_raw()?;
        let specs = signature.inputs();
        let mut given = Vec::with_capacity(specs.len());
        for (index, tensor) in self.inputs.iter().enumerate() {
            let read = tensor.read(self.raw.get(index).copied(), specs, rows_max);
            given.push(read.map_err(|(field, fault)| match field {
                "" => InferError::new(format!("raw_input_contents[{index}]"), fault),
                field => InferError::new(format!("inputs[{index}].{field}"), fault),
            })?);
        }
        let inputs = rows_of(&given, signature)?;
        let id = (!self.id.is_empty()).then(|| self.id.to_owned());
        let output = OutputForm { binary, datatype: As::Texts };
        let infer = Infer::new(inputs, id, &self.parameters, output);
        Ok(Infer { tensors: Some(form), ..infer })
    }

    /// Raw data are there for all inputs, or for none.
    fn count_raw(&self) -> Result<(), InferError> {
        let (found, tensors) = (self.raw.len(), self.inputs.len());
        if found > 0 && found != tensors {
            let fault = Fault::RawParts { found, tensors };
            return Err(InferError::new("raw_input_contents", fault));
        }
        Ok(())
    }

    fn read_inputs(&self, input_type: InputType, rows_max: usize) -> Result<Inputs, InferError> {
        let Some(tensor) = self.inputs.first() else {
            return Err(InferError::new("inputs", Fault::Missing));
        };
        only_the_input(self.inputs.iter().map(|tensor| tensor.name))?;
        self.count_raw()?;
        let at = |(field, fault)| InferError::new(format!("inputs[0].{field}"), fault);
        let (datatype, rows) = tensor.described(input_type, rows_max).map_err(at)?;
        match (tensor.contents, self.raw.first()) {
            (Some(elements), None) => contents::read(elements, datatype, input_type, rows)
                .map_err(|fault| at(("contents", fault))),
            (None, Some(bytes)) => {
                from_raw_part(bytes, datatype, input_type, rows).map_err(|fault| match fault {
                    Fault::Overflow => at(("shape", fault)),
                    _ => InferError::new("raw_input_contents[0]", fault),
                })
            }
            _ => Err(at(("contents", Fault::ContentsOrRaw))),
        }
    }
}

impl<'m> RequestTensor<'m> {
    /// Its elements, as a model of type tensors takes them; no field is its raw data.
    fn read(
        &self,
        raw: Option<&'m [u8]>,
        specs: &[TensorSpec],
        rows_max: usize,
    ) -> AtField<Given<'m>> {
        if self.is_shared_memory {
            return Err(("parameters.shared_memory_region", Fault::Unsupported));
        }
        let shape: SmallVec<[u64; 4]> = SmallVec::from_slice(&self.shape);
        let (at, rows) = tensors::described((self.name, self.datatype, &shape), specs, rows_max)?;
        let datatype = specs.get(at).map_or(Datatype::Bytes, |spec| spec.datatype);
        let data = match (self.contents, raw) {
            (Some(elements), None) => {
                let count = elements_of(shape.iter().copied()).ok_or(("shape", Fault::Overflow))?;
                contents::bytes(elements, datatype, count).map_err(|fault| ("contents", fault))?
            }
            (None, Some(raw)) => {
                tensors::checked(datatype, &shape, raw).map_err(|fault| ("", fault))?;
                Cow::Borrowed(raw)
            }
            _ => return Err(("contents", Fault::ContentsOrRaw)),
        };
        Ok(Given { at, rows, shape, data })
    }

    fn described(&self, input_type: InputType, rows_max: usize) -> AtField<(Datatype, Rows)> {
        if self.is_shared_memory {
            return Err(("parameters.shared_memory_region", Fault::Unsupported));
        }
        described(self.datatype, &self.shape, input_type, rows_max)
    }
}

fn from_raw_part(
    bytes: &[u8],
    datatype: Datatype,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    if let Some(element_bytes) = datatype.element_bytes() {
        let needed = rows.all.checked_mul(element_bytes).ok_or(Fault::Overflow)?;
        if needed != bytes.len() {
            return Err(Fault::RawLength { found: bytes.len(), needed });
        }
    }
    from_binary(bytes, datatype, input_type, rows)
}

fn tensor<'m>(field: Arguments<'_>, value: Value<'m>) -> Result<RequestTensor<'m>, InferError> {
    let mut tensor = RequestTensor::default();
    let mut parameters = 0;
    // Of those that may be there often, each has a bound of its own.
    for read in fields(field, bytes(field, value)?, FIELDS_MAX) {
        let (number, value) = read?;
        match number {
            1 => tensor.name = text(format_args!("{field}.name"), value)?,
            2 => tensor.datatype = text(format_args!("{field}.datatype"), value)?,
            3 => dimensions(value, &mut tensor.shape)
                .map_err(|fault| InferError::new(format!("{field}.shape"), fault))?,
            4 => {
                let inner = format_args!("{field}.parameters");
                room(inner, parameters, PARAMETERS_MAX)?;
                parameters += 1;
                let (name, _) = entry(inner, value)?;
                tensor.is_shared_memory |= name == "shared_memory_region";
            }
            // Writers of protobuf do not split a message.
            5 if tensor.contents.is_some() => {
                return Err(InferError::new(format!("{field}.contents"), Fault::Twice));
            }
            5 => tensor.contents = Some(bytes(format_args!("{field}.contents"), value)?),
            _ => {}
        }
    }
    Ok(tensor)
}

fn dimensions(value: Value<'_>, shape: &mut Vec<u64>) -> Result<(), Fault> {
    varints(value, |dimension| {
        let at = shape.len();
        if at == RANK_MAX {
            return Err(Fault::TooMany(RANK_MAX));
        }
        // So protobuf writes a negative number.
        if let Ok(found) = i64::try_from(i128::from(dimension) - (1_i128 << 64)) {
            return Err(Fault::Negative { at, found });
        }
        shape.push(dimension);
        Ok(())
    })
}

fn output<'m>(field: Arguments<'_>, value: Value<'m>) -> Result<Output<'m>, InferError> {
    let mut output = Output { name: Cow::Borrowed(""), parameters: None };
    for read in fields(field, bytes(field, value)?, PARAMETERS_MAX) {
        let (number, value) = read?;
        match number {
            1 => output.name = Cow::Borrowed(text(format_args!("{field}.name"), value)?),
            2 => {
                let inner = format_args!("{field}.parameters");
                let (name, value) = entry(inner, value)?;
                let parameters = output.parameters.get_or_insert_with(OutputParameters::default);
                set_of_output(parameters, name, value)
                    .map_err(|fault| InferError::new(format!("{inner}.{name}"), fault))?;
            }
            _ => {}
        }
    }
    Ok(output)
}

fn set_of_output(
    parameters: &mut OutputParameters,
    name: &str,
    value: Parameter<'_>,
) -> Result<(), Fault> {
    match (name, value) {
        ("classification", Parameter::Whole(classes)) => {
            parameters.classification = Some(u64::try_from(classes).unwrap_or(1));
        }
        ("shared_memory_region" | "classification", _) => return Err(Fault::Unsupported),
        ("datatype", Parameter::Text(name)) => parameters.datatype = Some(name.to_owned()),
        ("datatype", _) => return Err(Fault::Parameter("a text")),
        _ => {}
    }
    Ok(())
}

/// The fields of the message that is in `field`, of which it may have `max`.
fn fields(
    field: impl Display + Copy,
    message: &[u8],
    max: usize,
) -> impl Iterator<Item = Result<(u64, Value<'_>), InferError>> {
    Fields::of(message).enumerate().map(move |(count, read)| {
        let read = read.map_err(|_| malformed(field))?;
        room(field, count, max)?;
        Ok(read)
    })
}

fn malformed(field: impl Display) -> InferError {
    InferError::new(field.to_string(), Fault::NotProtobuf)
}

fn room(field: impl Display, count: usize, max: usize) -> Result<(), InferError> {
    if count < max { Ok(()) } else { Err(InferError::new(field.to_string(), Fault::TooMany(max))) }
}

fn bytes(field: impl Display, value: Value<'_>) -> Result<&[u8], InferError> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(malformed(field)),
    }
}

fn text(field: impl Display + Copy, value: Value<'_>) -> Result<&str, InferError> {
    std::str::from_utf8(bytes(field, value)?).map_err(|_| malformed(field))
}

/// A parameter: its name and its value.
fn entry(
    field: impl Display + Copy,
    value: Value<'_>,
) -> Result<(&str, Parameter<'_>), InferError> {
    let (mut name, mut parameter) = ("", Parameter::Other);
    for read in fields(field, bytes(field, value)?, PARAMETERS_MAX) {
        match read? {
            (1, key) => name = text(field, key)?,
            (2, value) => parameter = choice(field, bytes(field, value)?)?,
            _ => {}
        }
    }
    Ok((name, parameter))
}

#[allow(clippy::cast_possible_wrap, reason = "so protobuf writes negative numbers")]
fn choice(field: impl Display + Copy, message: &[u8]) -> Result<Parameter<'_>, InferError> {
    let mut parameter = Parameter::Other;
    for read in fields(field, message, PARAMETERS_MAX) {
        parameter = match read? {
            (1, Value::Varint(value)) => Parameter::Bool(value != 0),
            (2, Value::Varint(value)) => Parameter::Whole((value as i64).into()),
            (3, value) => Parameter::Text(text(field, value)?),
            (5, Value::Varint(value)) => Parameter::Whole(value.into()),
            _ => Parameter::Other,
        };
    }
    Ok(parameter)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
