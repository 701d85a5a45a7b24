//! The body of an infer request into inputs.

use std::time::Duration;

use clipper_domain::InputType;

use crate::error::{Fault, InferError, shown};
use crate::form::{As, OutputForm, TensorForm};
use crate::json_data::from_json;
use crate::shape::Rows;
use crate::signature::{INPUT, OUTPUT};
use crate::split::{Split, split};
use crate::tensor::{Inputs, from_binary, from_raw};
use crate::wire::{self, Output, Request, RequestParameters, Tensor};
use clipper_domain::Datatype;

/// What an infer request asks for.
#[derive(Debug)]
pub struct Infer {
    /// One a row.
    pub inputs: Inputs,
    /// For the answer to repeat.
    pub id: Option<String>,
    /// How long the answer may take, if the client says so.
    pub timeout: Option<Duration>,
    /// As it is said: 1 is the highest, 0 the usual one.
    pub priority: u64,
    /// Whether the default output is an answer.
    pub takes_default: bool,
    /// How the output is given.
    pub output: OutputForm,
    /// Of a model of type tensors: which outputs, and how.
    pub tensors: Option<TensorForm>,
}

/// Reads a whole body, decompressed; `header` is the value of `Inference-Header-Content-Length`.
///
/// # Errors
/// The first field that is wrong, and how.
pub fn parse(
    body: &[u8],
    header: Option<&[u8]>,
    input_type: InputType,
    rows_max: usize,
) -> Result<Infer, InferError> {
    let whole = |bytes: &[u8]| {
        let inputs = from_raw(bytes, input_type).map_err(|fault| InferError::new("body", fault))?;
        Ok(Infer::of_raw(inputs, None))
    };
    read(body, header, whole, |request, binary, parameters| {
        let outputs = request.outputs.as_ref().map_or(&[][..], |outputs| &outputs.0);
        let output = output_form(parameters, outputs)?;
        Ok((inputs(request, binary, input_type, rows_max)?, output, None))
    })
}

/// What of a request depends on the model: its inputs, and the form of its outputs.
type Read = (Inputs, OutputForm, Option<TensorForm>);

/// Reads a body that is raw by `whole`, and one of JSON, with the binary data behind it, by
/// `parts`.
pub(crate) fn read(
    body: &[u8],
    header: Option<&[u8]>,
    whole: impl FnOnce(&[u8]) -> Result<Infer, InferError>,
    parts: impl FnOnce(&Request<'_>, &[u8], &RequestParameters) -> Result<Read, InferError>,
) -> Result<Infer, InferError> {
    match split(body, header)? {
        Split::Raw(bytes) => whole(bytes),
        Split::Json { json, binary } => {
            let mut request = wire::read(json)?;
            let parameters = request.parameters.take().unwrap_or_default();
            let (inputs, output, tensors) = parts(&request, binary, &parameters)?;
            Ok(Infer { tensors, ..Infer::new(inputs, request.id, &parameters, output) })
        }
    }
}

impl Infer {
    pub(crate) fn new(
        inputs: Inputs,
        id: Option<String>,
        parameters: &RequestParameters,
        output: OutputForm,
    ) -> Self {
        Self {
            inputs,
            id,
            timeout: parameters.timeout.filter(|n| *n > 0).map(Duration::from_micros),
            priority: parameters.priority.unwrap_or(0),
            takes_default: parameters.default == Some(true),
            output,
            tensors: None,
        }
    }

    /// Of a request without any JSON.
    pub(crate) fn of_raw(inputs: Inputs, tensors: Option<TensorForm>) -> Self {
        let output = OutputForm { binary: true, datatype: As::Texts };
        Self { tensors, ..Self::new(inputs, None, &RequestParameters::default(), output) }
    }
}

/// All inputs here have one tensor.
fn inputs(
    request: &Request<'_>,
    binary: &[u8],
    input_type: InputType,
    rows_max: usize,
) -> Result<Inputs, InferError> {
    let tensors = &request.inputs.0;
    let Some(tensor) = tensors.first() else {
        return Err(InferError::new("inputs", Fault::Missing));
    };
    only_the_input(tensors.iter().map(|tensor| &*tensor.name))?;
    let inputs = read_tensor(tensor, binary, input_type, rows_max)
        .map_err(|(field, fault)| InferError::new(format!("inputs[0].{field}"), fault))?;
    let used = tensor.parameters.as_ref().and_then(|p| p.binary_data_size).unwrap_or(0);
    // As long as it is there: what is not was an error before.
    match binary.len().saturating_sub(usize::try_from(used).unwrap_or(usize::MAX)) {
        0 => Ok(inputs),
        left => Err(InferError::new("body", Fault::Left(left))),
    }
}

/// Whether these are the names of the inputs of a model.
pub(crate) fn only_the_input<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), InferError> {
    for (index, name) in names.enumerate() {
        let fault = if name != INPUT {
            Fault::UnknownTensor { found: shown(name), wanted: INPUT }
        } else if index > 0 {
            Fault::Twice
        } else {
            continue;
        };
        return Err(InferError::new(format!("inputs[{index}].name"), fault));
    }
    Ok(())
}

pub(crate) type AtField<T> = Result<T, (&'static str, Fault)>;

fn read_tensor(
    tensor: &Tensor<'_>,
    binary: &[u8],
    input_type: InputType,
    rows_max: usize,
) -> AtField<Inputs> {
    let parameters = tensor.parameters.as_ref();
    if parameters.is_some_and(|p| p.shared_memory_region.is_some()) {
        return Err(("parameters.shared_memory_region", Fault::Unsupported));
    }
    let shape = &tensor.shape.0;
    let (datatype, rows) = described(&tensor.datatype, shape, input_type, rows_max)?;
    let size = parameters.and_then(|p| p.binary_data_size);
    match (tensor.data, size) {
        (Some(data), None) => from_json(data.get(), datatype, input_type, shape, rows)
            .map_err(|fault| ("data", fault)),
        (None, Some(said)) => {
            let bytes = part(binary, said, datatype, rows)
                .map_err(|fault| ("parameters.binary_data_size", fault))?;
            from_binary(bytes, datatype, input_type, rows).map_err(|fault| ("data", fault))
        }
        _ => Err(("data", Fault::EitherOr)),
    }
}

/// What a tensor's datatype and shape say of its rows.
pub(crate) fn described(
    datatype: &str,
    shape: &[u64],
    input_type: InputType,
    rows_max: usize,
) -> AtField<(Datatype, Rows)> {
    let datatype = datatype_of(datatype, input_type)?;
    let rows = if datatype == Datatype::Bytes {
        Rows::of_texts(shape, rows_max)
    } else {
        Rows::of_numbers(shape, rows_max)
    };
    Ok((datatype, rows.map_err(|fault| ("shape", fault))?))
}

fn datatype_of(name: &str, input_type: InputType) -> AtField<Datatype> {
    let Some(datatype) = Datatype::parse(name) else {
        return Err(("datatype", Fault::UnknownDatatype(shown(name))));
    };
    if datatype.fits(input_type) {
        return Ok(datatype);
    }
    let wanted = input_type.long_name();
    let fault = Fault::Datatype {
        found: datatype.name(),
        wanted,
        datatype: Datatype::of(input_type).name(),
    };
    Err(("datatype", fault))
}

/// The tensor's part of the binary data, as long as it says and as long as it has to be.
fn part(binary: &[u8], said: u64, datatype: Datatype, rows: Rows) -> Result<&[u8], Fault> {
    let longer = || Fault::Longer { said, found: binary.len() };
    let length = usize::try_from(said).map_err(|_| longer())?;
    let bytes = binary.get(..length).ok_or_else(longer)?;
    let Some(element_bytes) = datatype.element_bytes() else { return Ok(bytes) };
    match rows.all.checked_mul(element_bytes) {
        Some(needed) if needed == length => Ok(bytes),
        Some(needed) => Err(Fault::NotAsNeeded { said, needed }),
        None => Err(Fault::Overflow),
    }
}

pub(crate) fn output_form(
    parameters: &RequestParameters,
    outputs: &[Output<'_>],
) -> Result<OutputForm, InferError> {
    let mut form =
        OutputForm { binary: parameters.binary_data_output == Some(true), datatype: As::Texts };
    if let Some(name) = parameters.output_datatype.as_deref() {
        form.datatype = output_datatype("parameters.output_datatype", name)?;
    }
    for (index, output) in outputs.iter().enumerate() {
        let field = |field: &str| format!("outputs[{index}].{field}");
        if output.name != OUTPUT {
            let fault = Fault::UnknownTensor { found: shown(&output.name), wanted: OUTPUT };
            return Err(InferError::new(field("name"), fault));
        }
        if index > 0 {
            return Err(InferError::new(field("name"), Fault::Twice));
        }
        refuse_unsupported(output, field)?;
        let Some(parameters) = &output.parameters else { continue };
        form.binary = parameters.binary_data.unwrap_or(form.binary);
        if let Some(name) = &parameters.datatype {
            form.datatype = output_datatype(&field("parameters.datatype"), name)?;
        }
    }
    Ok(form)
}

pub(crate) fn refuse_unsupported(
    output: &Output<'_>,
    field: impl Fn(&str) -> String,
) -> Result<(), InferError> {
    let Some(parameters) = &output.parameters else { return Ok(()) };
    let unsupported = [
        ("parameters.classification", parameters.classification.is_some_and(|n| n > 0)),
        ("parameters.shared_memory_region", parameters.shared_memory_region.is_some()),
    ];
    match unsupported.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((name, _)) => Err(InferError::new(field(name), Fault::Unsupported)),
        None => Ok(()),
    }
}

fn output_datatype(field: &str, name: &str) -> Result<As, InferError> {
    As::parse(name).ok_or_else(|| InferError::new(field, Fault::UnknownDatatype(shown(name))))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
