//! What goes into a model of type tensors and comes out of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;
use crate::printable::is_deceptive;

/// Tensors on each side of a signature.
pub const TENSORS_MAX: usize = 64;
/// Dimensions of a tensor, rows included.
pub const RANK_MAX: usize = 32;
/// Longest signature, bytes of JSON.
pub const SIGNATURE_MAX_BYTES: usize = 32 << 10;
/// Longest name of a tensor, bytes.
const NAME_MAX_BYTES: usize = 256;

/// One tensor of a signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    /// The first dimension is the rows of a batch, always -1; of the others -1 is any number.
    pub shape: Vec<i64>,
    /// What the places of the last dimension stand for; information only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl TensorSpec {
    /// The dimensions of one row; -1 is any number.
    #[must_use]
    pub fn row_shape(&self) -> &[i64] {
        self.shape.get(1..).unwrap_or_default()
    }

    /// Whether a row of these dimensions is one of this tensor.
    pub fn takes(&self, datatype: Datatype, dims: impl ExactSizeIterator<Item = u64>) -> bool {
        let wanted = self.row_shape();
        datatype == self.datatype
            && dims.len() == wanted.len()
            && dims.zip(wanted).all(|(n, wanted)| *wanted == -1 || i64::try_from(n) == Ok(*wanted))
    }
}

/// The named inputs and outputs of a model. Only valid ones can be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

/// Why a signature cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    #[error("{0}: a model has 1 to {TENSORS_MAX} of them")]
    Count(&'static str),
    #[error("{side}[{at}].name: it must be 1 to {NAME_MAX_BYTES} bytes that can be printed")]
    Name { side: &'static str, at: usize },
    #[error("{side}[{at}].name: the tensor is there twice")]
    Twice { side: &'static str, at: usize },
    #[error(
        "{side}[{at}].shape: it has 1 to {RANK_MAX} dimensions, the rows (-1) first, then -1 or \
         more than 0"
    )]
    Shape { side: &'static str, at: usize },
    #[error("{side}[{at}].shape: a row of it has more elements than any request can carry")]
    TooLarge { side: &'static str, at: usize },
    #[error("it is longer than {SIGNATURE_MAX_BYTES} bytes")]
    TooLong,
    /// Not JSON, or not of this form.
    #[error("{0}")]
    Json(String),
}

impl TryFrom<Unchecked> for Signature {
    type Error = InvalidSignature;

    fn try_from(Unchecked { inputs, outputs }: Unchecked) -> Result<Self, InvalidSignature> {
        Self::new(inputs, outputs)
    }
}

impl Signature {
    /// # Errors
    /// See [`InvalidSignature`].
    pub fn new(
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> Result<Self, InvalidSignature> {
        check("inputs", &inputs)?;
        check("outputs", &outputs)?;
        Ok(Self { inputs, outputs })
    }

    /// Reads the JSON of a signature.
    ///
    /// # Errors
    /// See [`InvalidSignature`].
    pub fn parse(json: &[u8]) -> Result<Self, InvalidSignature> {
        if json.len() > SIGNATURE_MAX_BYTES {
            return Err(InvalidSignature::TooLong);
        }
        serde_json::from_slice(json).map_err(|error| InvalidSignature::Json(error.to_string()))
    }

    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the tensors are the same, whatever their labels.
    #[must_use]
    pub fn serves_as(&self, other: &Self) -> bool {
        let same = |ours: &[TensorSpec], theirs: &[TensorSpec]| {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(one, other)| {
                    one.name == other.name
                        && one.datatype == other.datatype
                        && one.shape == other.shape
                })
        };
        same(&self.inputs, &other.inputs) && same(&self.outputs, &other.outputs)
    }

    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }
}

/// `ids INT64 [-1,-1], image FP32 [-1,3] -> scores FP32 [-1,2]`
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        put(&self.inputs, f)?;
        f.write_str(" -> ")?;
        put(&self.outputs, f)
    }
}

fn put(tensors: &[TensorSpec], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, TensorSpec { name, datatype, shape, .. }) in tensors.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        write!(f, "{comma}{name} {} [{}]", datatype.name(), dims.join(","))?;
    }
    Ok(())
}

fn check(side: &'static str, tensors: &[TensorSpec]) -> Result<(), InvalidSignature> {
    if tensors.is_empty() || tensors.len() > TENSORS_MAX {
        return Err(InvalidSignature::Count(side));
    }
    for (at, tensor) in tensors.iter().enumerate() {
        let name = &tensor.name;
        let fits = (1..=NAME_MAX_BYTES).contains(&name.len());
        if !fits || name.chars().any(is_deceptive) {
            return Err(InvalidSignature::Name { side, at });
        }
        if tensors.iter().take(at).any(|other| other.name == *name) {
            return Err(InvalidSignature::Twice { side, at });
        }
        let is_shape = tensor.shape.first() == Some(&-1)
            && tensor.shape.len() <= RANK_MAX
            && tensor.row_shape().iter().all(|n| *n == -1 || *n > 0);
        if !is_shape {
            return Err(InvalidSignature::Shape { side, at });
        }
        let fixed = tensor.row_shape().iter().filter(|n| **n > 0);
        let elements = fixed.copied().try_fold(8_i64, i64::checked_mul);
        if elements.is_none_or(|elements| isize::try_from(elements).is_err()) {
            return Err(InvalidSignature::TooLarge { side, at });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(tensor: &str) -> Result<Signature, InvalidSignature> {
        let good = r#"{"name":"y","datatype":"FP32","shape":[-1]}"#;
        Signature::parse(format!(r#"{{"inputs":[{tensor}],"outputs":[{good}]}}"#).as_bytes())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = r#"{"inputs":[{"name":"x","datatype":"FP16","shape":[-1,3,-1]}],"#.to_owned()
            + r#""outputs":[{"name":"p","datatype":"INT64","shape":[-1,2],"labels":["a","b"]}]}"#;
        let read = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(read.json(), text);
        assert_eq!(read.to_string(), "x FP16 [-1,3,-1] -> p INT64 [-1,2]");
        assert!(read.inputs()[0].takes(Datatype::Fp16, [3, 7].into_iter()));
        assert!(!read.inputs()[0].takes(Datatype::Fp16, [2, 7].into_iter()));
        assert!(!read.inputs()[0].takes(Datatype::Fp32, [3, 7].into_iter()));
        assert!(!read.inputs()[0].takes(Datatype::Fp16, [3].into_iter()));
        assert!(!read.inputs()[0].takes(Datatype::Fp16, [3, 7, 1].into_iter()));
    }

    #[test]
    fn what_cannot_be_a_signature_is_refused_by_the_field() {
        for (tensor, part) in [
            (r#"{"name":"","datatype":"FP32","shape":[-1]}"#, "inputs[0].name"),
            (r#"{"name":"a\u202e","datatype":"FP32","shape":[-1]}"#, "inputs[0].name"),
            (r#"{"name":"x","datatype":"FP7","shape":[-1]}"#, "FP7"),
            (r#"{"name":"x","datatype":"FP32","shape":[]}"#, "inputs[0].shape"),
            (r#"{"name":"x","datatype":"FP32","shape":[3,2]}"#, "inputs[0].shape"),
            (r#"{"name":"x","datatype":"FP32","shape":[-1,0]}"#, "inputs[0].shape"),
            (r#"{"name":"x","datatype":"FP32","shape":[-1,-2]}"#, "inputs[0].shape"),
            (r#"{"name":"x","datatype":"FP32","shape":[-1,9223372036854775807]}"#, "elements"),
            (r#"{"name":"x","datatype":"FP32","shape":[-1,4294967296,4294967296]}"#, "elements"),
            (r#"{"name":"x","datatype":"FP32","shape":[-1],"dims":[]}"#, "dims"),
        ] {
            let error = one(tensor).unwrap_err().to_string();
            assert!(error.contains(part), "{tensor}: {error}");
        }
        let tensor = r#"{"name":"x","datatype":"FP32","shape":[-1]}"#;
        assert!(one(tensor).is_ok());
        let twice = one(&format!("{tensor},{tensor}")).unwrap_err().to_string();
        assert!(twice.contains("inputs[1].name"), "{twice}");
        let many = vec![tensor; TENSORS_MAX + 1].join(",");
        assert!(one(&many).unwrap_err().to_string().contains("inputs"));
        assert_eq!(Signature::parse(&vec![b' '; 40_000]), Err(InvalidSignature::TooLong));
    }
}
