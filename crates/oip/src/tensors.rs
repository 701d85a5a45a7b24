//! Requests to models of type tensors: named tensors into rows, by the model's signature.

use std::borrow::Cow;
use std::sync::Arc;

use clipper_domain::{Input, Signature, TensorSpec};
use clipper_tensors::json::{names, read_data};
use clipper_tensors::row::{self, Part};
use smallvec::SmallVec;

use crate::error::{Fault, InferError, shown};
use crate::form::{As, OutputForm, TensorForm, WantedOutput};
use crate::request::{self, AtField, Infer, refuse_unsupported};
use crate::tensor::Inputs;
use crate::wire::{Output, Request, Tensor};
use clipper_domain::Datatype;

/// Reads a whole body, decompressed, as [`crate::parse`] does for other types.
///
/// # Errors
/// The first field that is wrong, and how.
pub fn parse_tensors(
    body: &[u8],
    header: Option<&[u8]>,
    signature: &Arc<Signature>,
    rows_max: usize,
) -> Result<Infer, InferError> {
    request::read(
        body,
        header,
        |bytes| raw(bytes, signature),
        |request, binary, parameters| {
            let outputs = request.outputs.as_ref().map_or(&[][..], |outputs| &outputs.0);
            let is_binary = parameters.binary_data_output == Some(true);
            let form = tensor_form(outputs, signature, is_binary)?;
            let output = OutputForm { binary: is_binary, datatype: As::Texts };
            Ok((inputs(request, binary, signature, rows_max)?, output, Some(form)))
        },
    )
}

/// The whole body is one row of the one input.
fn raw(bytes: &[u8], signature: &Arc<Signature>) -> Result<Infer, InferError> {
    let refuse = |fault| Err(InferError::new("body", fault));
    let [spec] = signature.inputs() else {
        let wanted = names(signature.inputs());
        return refuse(Fault::RawOfSeveral(wanted));
    };
    let wanted = spec.row_shape();
    let open = wanted.iter().filter(|n| **n == -1).count();
    let fixed = row::elements(wanted.iter().filter_map(|n| u64::try_from(*n).ok()));
    let text;
    let (data, elements) = if let Some(element_bytes) = spec.datatype.element_bytes() {
        (bytes, bytes.len() / element_bytes)
    } else {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        text = [&length[..], bytes].concat();
        (&text[..], 1)
    };
    let fixed = fixed.unwrap_or(usize::MAX);
    let each = if open == 0 { 1 } else { elements / fixed.max(1) };
    let dims: SmallVec<[u64; 4]> =
        wanted.iter().map(|n| u64::try_from(*n).unwrap_or(each as u64)).collect();
    let shape: SmallVec<[u64; 4]> = std::iter::once(1).chain(dims.iter().copied()).collect();
    if elements == 0 {
        return refuse(Fault::Empty);
    }
    if open > 1 || !clipper_tensors::batch::is_as_long(spec.datatype, &shape, data) {
        return refuse(Fault::RawShape { found: bytes.len(), wanted: dimensions(&spec.shape) });
    }
    let row = row::build(&[Part { datatype: spec.datatype, dims: &dims, data }]);
    let form = tensor_form(&[], signature, true)?;
    Ok(Infer::of_raw(Inputs::from_iter([Input(row)]), Some(form)))
}

fn dimensions<N: ToString>(shape: &[N]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The outputs that are asked for; all where none is.
pub(crate) fn tensor_form(
    outputs: &[Output<'_>],
    signature: &Arc<Signature>,
    is_binary: bool,
) -> Result<TensorForm, InferError> {
    let specs = signature.outputs();
    let mut wanted: Vec<WantedOutput> = Vec::new();
    for (index, output) in outputs.iter().enumerate() {
        let field = |field: &str| format!("outputs[{index}].{field}");
        let Some(at) = specs.iter().position(|spec| spec.name == output.name) else {
            let fault = Fault::NotAmong { found: shown(&output.name), wanted: names(specs) };
            return Err(InferError::new(field("name"), fault));
        };
        if wanted.iter().any(|other| other.at == at) {
            return Err(InferError::new(field("name"), Fault::Twice));
        }
        refuse_unsupported(output, field)?;
        let own = output.parameters.as_ref().and_then(|parameters| parameters.binary_data);
        wanted.push(WantedOutput { at, binary: own.unwrap_or(is_binary) });
    }
    if wanted.is_empty() {
        wanted.extend((0..specs.len()).map(|at| WantedOutput { at, binary: is_binary }));
    }
    Ok(TensorForm { signature: Arc::clone(signature), outputs: wanted })
}

/// One tensor of a request.
#[derive(Debug)]
pub(crate) struct Given<'r> {
    /// Its place in the signature.
    pub(crate) at: usize,
    pub(crate) rows: usize,
    /// The rows first.
    pub(crate) shape: SmallVec<[u64; 4]>,
    /// As long as the shape says.
    pub(crate) data: Cow<'r, [u8]>,
}

/// What the request says of a tensor before its elements, checked: its place in the signature and
/// its rows.
pub(crate) fn described(
    (name, datatype, shape): (&str, &str, &[u64]),
    specs: &[TensorSpec],
    rows_max: usize,
) -> AtField<(usize, usize)> {
    let at = specs.iter().position(|spec| spec.name == name);
    let Some((at, spec)) = at.and_then(|at| Some((at, specs.get(at)?))) else {
        return Err(("name", Fault::NotAmong { found: shown(name), wanted: names(specs) }));
    };
    if Datatype::parse(datatype).is_none() {
        return Err(("datatype", Fault::UnknownDatatype(shown(datatype))));
    }
    if datatype != spec.datatype.name() {
        let found = shown(datatype);
        return Err(("datatype", Fault::OtherDatatype { found, wanted: spec.datatype.name() }));
    }
    let misfit = |n: u64, wanted: i64| wanted != -1 && i64::try_from(n) != Ok(wanted);
    let is_other = shape.len() != spec.shape.len()
        || shape.iter().zip(&spec.shape).any(|(n, wanted)| misfit(*n, *wanted));
    if is_other {
        let (found, wanted) = (dimensions(shape), dimensions(&spec.shape));
        return Err(("shape", Fault::OtherShape { found, wanted }));
    }
    if shape.contains(&0) {
        return Err(("shape", Fault::Empty));
    }
    if row::elements(shape.iter().copied()).is_none() {
        return Err(("shape", Fault::Overflow));
    }
    let rows = shape.first().copied().unwrap_or(0);
    match usize::try_from(rows) {
        Ok(count) if count <= rows_max => Ok((at, count)),
        _ => Err(("shape", Fault::TooManyRows { rows, max: rows_max })),
    }
}

/// Checks that binary data are as long as a shape says.
pub(crate) fn checked(datatype: Datatype, shape: &[u64], data: &[u8]) -> Result<(), Fault> {
    let elements = row::elements(shape.iter().copied()).ok_or(Fault::Overflow)?;
    if let Some(element_bytes) = datatype.element_bytes() {
        let needed = elements.checked_mul(element_bytes).ok_or(Fault::Overflow)?;
        let found = data.len();
        return if found == needed { Ok(()) } else { Err(Fault::RawLength { found, needed }) };
    }
    let mut left = data;
    for at in 0..elements {
        let short = |said, found| Fault::ShortText { at, said, found };
        let (length, rest) = left.split_first_chunk().ok_or_else(|| short(4, left.len()))?;
        let length = u32::from_le_bytes(*length);
        let rest = usize::try_from(length)
            .ok()
            .and_then(|n| rest.get(n..))
            .ok_or_else(|| short(length.into(), rest.len()))?;
        left = rest;
    }
    if left.is_empty() { Ok(()) } else { Err(Fault::Left(left.len())) }
}

fn inputs(
    request: &Request<'_>,
    mut binary: &[u8],
    signature: &Signature,
    rows_max: usize,
) -> Result<Inputs, InferError> {
    let specs = signature.inputs();
    let mut given = Vec::with_capacity(specs.len());
    for (index, tensor) in request.inputs.0.iter().enumerate() {
        let read = read_tensor(tensor, &mut binary, specs, rows_max);
        given.push(read.map_err(|(field, fault)| {
            InferError::new(format!("inputs[{index}].{field}"), fault)
        })?);
    }
    if !binary.is_empty() {
        return Err(InferError::new("body", Fault::Left(binary.len())));
    }
    rows_of(&given, signature)
}

fn read_tensor<'r>(
    tensor: &Tensor<'_>,
    binary: &mut &'r [u8],
    specs: &[TensorSpec],
    rows_max: usize,
) -> AtField<Given<'r>> {
    let parameters = tensor.parameters.as_ref();
    if parameters.is_some_and(|p| p.shared_memory_region.is_some()) {
        return Err(("parameters.shared_memory_region", Fault::Unsupported));
    }
    let shape = SmallVec::from_slice(&tensor.shape.0);
    let (at, rows) = described((&tensor.name, &tensor.datatype, &shape), specs, rows_max)?;
    let datatype = specs.get(at).map_or(Datatype::Bytes, |spec| spec.datatype);
    let data = match (tensor.data, parameters.and_then(|p| p.binary_data_size)) {
        (Some(data), None) => {
            // That each is in range was checked with the number of elements.
            let wanted: SmallVec<[i64; 4]> =
                shape.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
            let read = read_data(data.get(), datatype, &wanted);
            Cow::Owned(read.map_err(|fault| ("data", Fault::Tensor(fault)))?)
        }
        (None, Some(said)) => {
            let longer = Fault::Longer { said, found: binary.len() };
            let part = usize::try_from(said).ok().and_then(|n| binary.split_at_checked(n));
            let (part, rest) = part.ok_or(("parameters.binary_data_size", longer))?;
            *binary = rest;
            let field = match datatype {
                Datatype::Bytes => "data",
                _ => "parameters.binary_data_size",
            };
            checked(datatype, &shape, part).map_err(|fault| (field, fault))?;
            Cow::Borrowed(part)
        }
        _ => return Err(("data", Fault::EitherOr)),
    };
    Ok(Given { at, rows, shape, data })
}

/// The rows of whole tensors. Each byte is copied once, into its row.
pub(crate) fn rows_of(given: &[Given<'_>], signature: &Signature) -> Result<Inputs, InferError> {
    let specs = signature.inputs();
    let field = |index: usize, field: &str| format!("inputs[{index}].{field}");
    let rows = given.first().map_or(0, |tensor| tensor.rows);
    let mut placed: Vec<Option<&Given<'_>>> = vec![None; specs.len()];
    for (index, tensor) in given.iter().enumerate() {
        if tensor.rows != rows {
            let fault = Fault::OtherRows { found: tensor.rows, wanted: rows };
            return Err(InferError::new(field(index, "shape"), fault));
        }
        match placed.get_mut(tensor.at) {
            Some(place @ None) => *place = Some(tensor),
            _ => return Err(InferError::new(field(index, "name"), Fault::Twice)),
        }
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for (spec, tensor) in specs.iter().zip(placed) {
        let missing = || InferError::new("inputs", Fault::MissingTensor(spec.name.clone()));
        let tensor = tensor.ok_or_else(missing)?;
        tensors.push((spec.datatype, tensor, &tensor.data[..]));
    }
    let mut inputs = Inputs::with_capacity(rows);
    for _ in 0..rows {
        let mut parts = SmallVec::<[Part<'_>; 4]>::new();
        for (datatype, tensor, left) in &mut tensors {
            let dims = tensor.shape.get(1..).unwrap_or_default();
            let bytes = row::row_bytes(*datatype, dims, (tensor.data.len(), rows), left);
            let (data, rest) = left.split_at_checked(bytes).unwrap_or_default();
            *left = rest;
            parts.push(Part { datatype: *datatype, dims, data });
        }
        inputs.push(Input(row::build(&parts)));
    }
    Ok(inputs)
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
