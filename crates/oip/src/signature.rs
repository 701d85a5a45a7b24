//! The tensors of the server's input types.

use clipper_domain::{Datatype, InputType, Signature, TensorSpec};
use serde::Serialize;

/// The name of the one input of all types but tensors.
pub const INPUT: &str = "input";
/// The name of their one output.
pub const OUTPUT: &str = "output";

/// A tensor as the metadata describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo<'a> {
    pub name: &'a str,
    /// What its elements are.
    pub datatype: Datatype,
    /// Rows, and the dimensions of a row; -1 is any number.
    pub shape: Vec<i64>,
    /// What the places of the last dimension stand for.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub labels: &'a [String],
}

impl<'a> TensorInfo<'a> {
    /// The inputs of models and applications of this type; `signature` is that of type tensors.
    #[must_use]
    pub fn inputs(input_type: InputType, signature: Option<&'a Signature>) -> Vec<Self> {
        if input_type == InputType::Tensors {
            return Self::of(signature.map(Signature::inputs));
        }
        let datatype = Datatype::of(input_type);
        let elements = if datatype == Datatype::Bytes { 1 } else { -1 };
        vec![Self { name: INPUT, datatype, shape: vec![-1, elements], labels: &[] }]
    }

    /// Their outputs; but for tensors one: what the model says of a row.
    #[must_use]
    pub fn outputs(input_type: InputType, signature: Option<&'a Signature>) -> Vec<Self> {
        if input_type == InputType::Tensors {
            return Self::of(signature.map(Signature::outputs));
        }
        vec![Self { name: OUTPUT, datatype: Datatype::Bytes, shape: vec![-1, 1], labels: &[] }]
    }

    /// The dimensions of a row, of which Triton's configurations have one at least.
    #[must_use]
    pub fn dims(&self) -> &[i64] {
        match self.shape.get(1..) {
            None | Some([]) => &[1],
            Some(dims) => dims,
        }
    }

    fn of(specs: Option<&'a [TensorSpec]>) -> Vec<Self> {
        let info = |spec: &'a TensorSpec| Self {
            name: &spec.name,
            datatype: spec.datatype,
            shape: spec.shape.clone(),
            labels: &spec.labels,
        };
        specs.unwrap_or_default().iter().map(info).collect()
    }
}
