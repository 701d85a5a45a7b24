//! The tensors of the server's input types.

use clipper_domain::InputType;
use serde::Serialize;

use crate::datatype::Datatype;

/// The name of the one input.
pub const INPUT: &str = "input";
/// The name of the one output.
pub const OUTPUT: &str = "output";

/// A tensor as the metadata describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    pub name: &'static str,
    /// What its elements are.
    pub datatype: Datatype,
    /// Rows, and elements of a row; -1 is any number.
    pub shape: [i64; 2],
}

impl TensorInfo {
    /// The input of models and applications of this type.
    #[must_use]
    pub fn input(input_type: InputType) -> Self {
        let datatype = Datatype::of(input_type);
        let elements = if datatype == Datatype::Bytes { 1 } else { -1 };
        Self { name: INPUT, datatype, shape: [-1, elements] }
    }

    /// The output of all of them: what the model says of a row.
    #[must_use]
    pub fn output() -> Self {
        Self { name: OUTPUT, datatype: Datatype::Bytes, shape: [-1, 1] }
    }
}
