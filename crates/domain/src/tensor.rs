//! Inputs in the byte layout of the model RPC (docs/container-protocol.md).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The element type of an application's and a model's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// Raw bytes; base64 text in JSON.
    Bytes,
    /// `i32` elements.
    Integers,
    /// `f32` elements.
    Floats,
    /// `f64` elements.
    Doubles,
    /// UTF-8 text.
    Strings,
    /// A row of named tensors, as a model's [`crate::Signature`] says.
    Tensors,
}

impl InputType {
    /// Every type, in wire-code order.
    pub const ALL: [Self; 6] =
        [Self::Bytes, Self::Integers, Self::Floats, Self::Doubles, Self::Strings, Self::Tensors];

    /// Those of the original: flat lists and texts.
    pub const FLAT: [Self; 5] =
        [Self::Bytes, Self::Integers, Self::Floats, Self::Doubles, Self::Strings];

    /// Reads any spelling that the original accepts, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "bytes" | "byte" | "b" => Self::Bytes,
            "integers" | "ints" | "integer" | "int" | "i" => Self::Integers,
            "floats" | "float" | "f" => Self::Floats,
            "doubles" | "double" | "d" => Self::Doubles,
            "strings" | "string" | "strs" | "str" | "s" => Self::Strings,
            "tensors" => Self::Tensors,
            _ => return None,
        })
    }

    /// The long spelling, as stored in Redis and shown to users.
    #[must_use]
    pub fn long_name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Integers => "integers",
            Self::Floats => "floats",
            Self::Doubles => "doubles",
            Self::Strings => "strings",
            Self::Tensors => "tensors",
        }
    }

    /// The number in RPC messages: 0 bytes, 1 integers, 2 floats, 3 doubles, 4 strings, 5
    /// tensors.
    #[must_use]
    pub fn wire_code(self) -> u8 {
        match self {
            Self::Bytes => 0,
            Self::Integers => 1,
            Self::Floats => 2,
            Self::Doubles => 3,
            Self::Strings => 4,
            Self::Tensors => 5,
        }
    }

    /// The inverse of [`Self::wire_code`].
    #[must_use]
    pub fn from_wire_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|t| u64::from(t.wire_code()) == code)
    }

    /// Bytes per element; 1 for bytes, strings and tensors.
    #[must_use]
    pub fn element_bytes(self) -> usize {
        match self {
            Self::Bytes | Self::Strings | Self::Tensors => 1,
            Self::Integers | Self::Floats => 4,
            Self::Doubles => 8,
        }
    }
}

impl fmt::Display for InputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.long_name())
    }
}

/// One input in wire form: little-endian elements, raw bytes, UTF-8 text, or a row of tensors (its
/// form is in `crates/tensors`). Cheap to clone; one
/// allocation of its own, so that what the cache keeps holds nothing else in memory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Input(pub Arc<[u8]>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_and_codes_round_trip() {
        for input_type in InputType::ALL {
            assert_eq!(InputType::parse(input_type.long_name()), Some(input_type));
            assert_eq!(
                InputType::from_wire_code(u64::from(input_type.wire_code())),
                Some(input_type)
            );
        }
        assert_eq!(InputType::parse("DOUBLE"), Some(InputType::Doubles));
        assert_eq!(InputType::parse("tensor"), None);
        assert_eq!(InputType::from_wire_code(6), None);
    }
}
