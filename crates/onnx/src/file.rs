//! An ONNX file as it describes itself: its input, its outputs, what it is made of.

use std::path::{Path, PathBuf};

use clipper_domain::InputType;
use rten_onnx::onnx::{GraphProto, ModelProto, ValueInfoProto};

use crate::error::OnnxError;
use crate::tensor::Element;

/// Longest input that is accepted, elements: a file that claims more is damaged or hostile.
const INPUT_ELEMENTS_MAX: usize = 1 << 28;

/// A model file that has been read and found to be one.
pub(crate) struct ModelFile {
    pub(crate) path: PathBuf,
    pub(crate) model: ModelProto,
}

/// What one input of the model looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputLayout {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) batch: BatchAxis,
    /// The dimensions of one input, without the batch.
    pub(crate) row_shape: Vec<usize>,
}

/// Where the inputs of a batch stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchAxis {
    /// The first dimension, which is open.
    Open,
    /// The first dimension, which the model fixes.
    Fixed(usize),
    /// Nowhere: the tensor has one dimension of fixed length, which is one input. Taking its
    /// elements for queries of different callers would let them share a vector.
    None,
}

impl InputLayout {
    pub(crate) fn width(&self) -> usize {
        self.row_shape.iter().product()
    }

    pub(crate) fn is_text(&self) -> bool {
        self.element == Element::Text
    }

    pub(crate) fn shape(&self, rows: usize) -> Vec<usize> {
        match self.batch {
            BatchAxis::None => self.row_shape.clone(),
            _ => std::iter::once(rows).chain(self.row_shape.iter().copied()).collect(),
        }
    }
}

impl ModelFile {
    pub(crate) fn read(path: &Path) -> Result<Self, OnnxError> {
        let invalid =
            |reason: &str| OnnxError::Parse { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = std::fs::read(path)
            .map_err(|source| OnnxError::Read { path: path.to_owned(), source })?;
        let model = ModelProto::parse_buf(&bytes).map_err(|error| invalid(&error.to_string()))?;
        let Some(graph) = &model.graph else {
            return Err(invalid("it holds no graph"));
        };
        // Any bytes may happen to be a message of protocol buffers.
        if model.ir_version.is_none() || graph.output.is_empty() {
            return Err(invalid("it declares no version or no output"));
        }
        Ok(Self { path: path.to_owned(), model })
    }

    pub(crate) fn graph(&self) -> Result<&GraphProto, OnnxError> {
        self.model.graph.as_ref().ok_or_else(|| OnnxError::Parse {
            path: self.path.clone(),
            reason: "it holds no graph".to_owned(),
        })
    }

    /// The output of this name, or the first one.
    pub(crate) fn choose_output(&self, wanted: Option<&str>) -> Result<String, OnnxError> {
        let outputs = &self.graph()?.output;
        let names = || outputs.iter().filter_map(|output| output.name.as_deref());
        let chosen = match wanted {
            Some(wanted) => names().find(|name| *name == wanted),
            None => names().next(),
        };
        chosen.map(str::to_owned).ok_or_else(|| OnnxError::Output {
            wanted: wanted.unwrap_or("(first)").to_owned(),
            available: names().collect::<Vec<_>>().join(", "),
        })
    }

    /// The inputs that a caller gives: those that no initializer fills.
    pub(crate) fn inputs(&self) -> Result<Vec<&ValueInfoProto>, OnnxError> {
        let graph = self.graph()?;
        let filled = |name: &Option<String>| graph.initializer.iter().any(|one| one.name == *name);
        Ok(graph.input.iter().filter(|input| !filled(&input.name)).collect())
    }

    /// Whether a model of type tensors could take what goes into it.
    pub(crate) fn has_tensors(&self) -> Result<bool, OnnxError> {
        let inputs = self.inputs()?;
        let is_tensor = |input: &ValueInfoProto| {
            let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
            tensor.is_some_and(|tensor| {
                let element = tensor.elem_type.and_then(|kind| Element::of_onnx(kind.0));
                element.is_some() && tensor.shape.is_some()
            })
        };
        Ok(!inputs.is_empty() && inputs.into_iter().all(is_tensor))
    }

    /// Of its one input.
    ///
    /// # Errors
    /// It has another number of them, or one of another kind.
    pub(crate) fn layout(&self) -> Result<InputLayout, OnnxError> {
        let inputs = self.inputs()?;
        let [input] = inputs.as_slice() else {
            return Err(OnnxError::Input(format!("{} inputs, expected one", inputs.len())));
        };
        let refuse = |why: &str| OnnxError::Input(why.to_owned());
        let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        let Some(tensor) = tensor else {
            return Err(refuse("it is no tensor"));
        };
        let number = tensor.elem_type.map_or(0, |kind| kind.0);
        let Some(element) = Element::of_onnx(number) else {
            return Err(OnnxError::Input(format!("elements of ONNX type {number}")));
        };
        let Some(shape) = &tensor.shape else {
            return Err(refuse("its shape is unknown: export with a fixed width"));
        };
        // Zero and negative lengths are how some exporters write an open dimension.
        let length =
            |value: Option<i64>| value.and_then(|v| usize::try_from(v).ok().filter(|v| *v > 0));
        let dims: Vec<Option<usize>> = shape.dim.iter().map(|dim| length(dim.dim_value)).collect();
        let (batch, row_shape) = split_batch(&dims)?;
        let width = row_shape.iter().try_fold(1, |width: usize, dim| width.checked_mul(*dim));
        let rows = if let BatchAxis::Fixed(rows) = batch { rows } else { 1 };
        let elements = width.and_then(|width| width.checked_mul(rows));
        if elements.is_none_or(|elements| elements > INPUT_ELEMENTS_MAX) {
            return Err(OnnxError::Input(format!("more than {INPUT_ELEMENTS_MAX} elements")));
        }
        let name = input.name.clone().unwrap_or_default();
        Ok(InputLayout { name, element, batch, row_shape })
    }

    /// Whether the rows of a batch meet inside the model by its very operators: a quantisation that
    /// takes its scale from the whole tensor gives a row other values beside other rows.
    pub(crate) fn mixes_rows(&self) -> bool {
        let nodes = self.model.graph.iter().flat_map(|graph| &graph.node);
        let mut names = nodes.filter_map(|node| node.op_type.as_deref());
        names.any(|name| name.starts_with("DynamicQuantize"))
    }
}

fn split_batch(dims: &[Option<usize>]) -> Result<(BatchAxis, Vec<usize>), OnnxError> {
    let refuse = |why: &str| Err(OnnxError::Input(why.to_owned()));
    let open = "only its first dimension, the batch, may be left open: export with a fixed width";
    match dims {
        [] => refuse("a scalar, expected a batch"),
        [None] => Ok((BatchAxis::Open, Vec::new())),
        [Some(length)] => Ok((BatchAxis::None, vec![*length])),
        [first, rest @ ..] => {
            let Some(row_shape) = rest.iter().copied().collect::<Option<Vec<usize>>>() else {
                return refuse(open);
            };
            Ok((first.map_or(BatchAxis::Open, BatchAxis::Fixed), row_shape))
        }
    }
}

/// What the application sends: as asked for where the model can take it, else what fits it best.
pub(crate) fn choose_input_type(
    wanted: Option<InputType>,
    element: Element,
) -> Result<InputType, OnnxError> {
    let refuse = |takes: &str, wanted| {
        Err(OnnxError::Input(format!(
            "{} elements: it takes {takes}, not {wanted}",
            element.name()
        )))
    };
    match (wanted, element) {
        (None | Some(InputType::Strings), Element::Text) => Ok(InputType::Strings),
        (Some(wanted), Element::Text) => refuse("strings", wanted),
        (Some(InputType::Strings), _) => refuse("integers, floats or doubles", InputType::Strings),
        (Some(InputType::Tensors), element) => refuse(
            if element.is_float() { "floats or doubles" } else { "integers" },
            InputType::Tensors,
        ),
        (Some(InputType::Bytes), Element::U8) => Ok(InputType::Bytes),
        (Some(InputType::Bytes), _) => refuse("integers, floats or doubles", InputType::Bytes),
        (Some(numeric), _) => Ok(numeric),
        (None, Element::F64) => Ok(InputType::Doubles),
        (None, element) if element.is_float() => Ok(InputType::Floats),
        (None, _) => Ok(InputType::Integers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_dimensions_is_the_batch() {
        let split = |dims: &[Option<usize>]| split_batch(dims).map_err(|error| error.to_string());
        assert_eq!(split(&[None, Some(4)]), Ok((BatchAxis::Open, vec![4])));
        assert_eq!(split(&[Some(8), Some(4)]), Ok((BatchAxis::Fixed(8), vec![4])));
        assert_eq!(split(&[None]), Ok((BatchAxis::Open, vec![])));
        assert_eq!(split(&[Some(5)]), Ok((BatchAxis::None, vec![5])));
        assert!(split(&[]).unwrap_err().contains("a scalar"));
        assert!(split(&[None, None]).unwrap_err().contains("fixed width"));
    }

    #[test]
    fn a_model_takes_what_its_elements_can_be_made_of() {
        let choose = |wanted, element| choose_input_type(wanted, element).ok();
        assert_eq!(choose(None, Element::F64), Some(InputType::Doubles));
        assert_eq!(choose(None, Element::F16), Some(InputType::Floats));
        assert_eq!(choose(None, Element::Bool), Some(InputType::Integers));
        assert_eq!(choose(None, Element::Text), Some(InputType::Strings));
        assert_eq!(choose(Some(InputType::Doubles), Element::I64), Some(InputType::Doubles));
        assert_eq!(choose(Some(InputType::Bytes), Element::U8), Some(InputType::Bytes));
        assert_eq!(choose(Some(InputType::Bytes), Element::F32), None);
        assert_eq!(choose(Some(InputType::Strings), Element::F32), None);
        assert_eq!(choose(Some(InputType::Doubles), Element::Text), None);
    }
}
