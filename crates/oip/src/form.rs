//! In which form outputs are asked for and given.

use std::sync::Arc;

use clipper_domain::{Datatype, Signature};

/// In which form the client wants the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputForm {
    /// Behind the JSON, and not in it.
    pub binary: bool,
    /// As texts or as numbers.
    pub datatype: As,
}

/// What a model's texts are given as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// BYTES: JSON strings without their quotes, everything else as it is.
    Texts,
    /// Numbers where the text of every row is a number or a list of numbers, all of one length:
    /// INT64 if all are whole, else FP64. Texts otherwise.
    Auto,
    /// Numbers of this datatype, or an error.
    Numbers(Datatype),
}

impl As {
    /// Reads what a request says.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == "auto" {
            return Some(Self::Auto);
        }
        Some(match Datatype::parse(name)? {
            Datatype::Bytes => Self::Texts,
            number @ (Datatype::Int32 | Datatype::Int64 | Datatype::Fp32 | Datatype::Fp64) => {
                Self::Numbers(number)
            }
            _ => return None,
        })
    }
}

/// Which outputs of a model of type tensors are wanted, and how.
#[derive(Debug, Clone)]
pub struct TensorForm {
    pub signature: Arc<Signature>,
    /// In the order in which they are answered.
    pub outputs: Vec<WantedOutput>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedOutput {
    /// Its place in the signature.
    pub at: usize,
    pub binary: bool,
}
