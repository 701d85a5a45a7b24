//! What a tensor's elements are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::tensor::InputType;

/// The protocol's element types, and Triton's `BF16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// `u8`
    Uint8,
    /// `u16`
    Uint16,
    /// `u32`
    Uint32,
    /// `u64`
    Uint64,
    /// `i8`
    Int8,
    /// `i16`
    Int16,
    /// `i32`
    Int32,
    /// `i64`
    Int64,
    /// `f16`; binary only.
    Fp16,
    /// `f32`
    Fp32,
    /// `f64`
    Fp64,
    /// The upper half of an `f32`; binary only.
    Bf16,
    /// Bytes of any length; text in JSON.
    Bytes,
}

impl Datatype {
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// As it is written in requests and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// As it is written in Triton's model configuration.
    #[must_use]
    pub fn config_name(self) -> String {
        match self {
            Self::Bytes => "TYPE_STRING".to_owned(),
            other => format!("TYPE_{}", other.name()),
        }
    }

    /// Bytes of an element in binary form; `None` where each has a length of its own.
    #[must_use]
    pub fn element_bytes(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
            Self::Bytes => return None,
        })
    }

    /// The number in messages to and from containers.
    #[must_use]
    pub fn wire_code(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::Uint8 => 1,
            Self::Uint16 => 2,
            Self::Uint32 => 3,
            Self::Uint64 => 4,
            Self::Int8 => 5,
            Self::Int16 => 6,
            Self::Int32 => 7,
            Self::Int64 => 8,
            Self::Fp16 => 9,
            Self::Fp32 => 10,
            Self::Fp64 => 11,
            Self::Bf16 => 12,
            Self::Bytes => 13,
        }
    }

    /// The inverse of [`Self::wire_code`].
    #[must_use]
    pub fn from_wire_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| u64::from(datatype.wire_code()) == code)
    }

    /// Whether inputs of this type can be given by elements of this datatype without a change of
    /// any value. Whole numbers are checked one by one.
    #[must_use]
    pub fn fits(self, input_type: InputType) -> bool {
        match input_type {
            InputType::Integers => {
                !matches!(self, Self::Fp16 | Self::Fp32 | Self::Fp64 | Self::Bf16 | Self::Bytes)
            }
            InputType::Floats => !matches!(self, Self::Fp64 | Self::Bytes),
            InputType::Doubles => self != Self::Bytes,
            InputType::Bytes => matches!(self, Self::Bytes | Self::Uint8),
            InputType::Strings => self == Self::Bytes,
            // Each tensor has a datatype of its own.
            InputType::Tensors => false,
        }
    }

    /// The datatype in which inputs of this type are described.
    #[must_use]
    pub fn of(input_type: InputType) -> Self {
        match input_type {
            InputType::Integers => Self::Int32,
            InputType::Floats => Self::Fp32,
            InputType::Doubles => Self::Fp64,
            InputType::Bytes | InputType::Strings | InputType::Tensors => Self::Bytes,
        }
    }
}

impl<'de> Deserialize<'de> for Datatype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let shown: String = name.chars().take(32).collect();
        let unknown = || serde::de::Error::custom(format!("{shown:?} is not a datatype"));
        Self::parse(&name).ok_or_else(unknown)
    }
}

impl Serialize for Datatype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_every_input_type_takes_its_own() {
        for datatype in Datatype::ALL {
            assert_eq!(Datatype::parse(datatype.name()), Some(datatype));
            let code = datatype.wire_code().into();
            assert_eq!(Datatype::from_wire_code(code), Some(datatype));
        }
        for input_type in InputType::FLAT {
            assert!(Datatype::of(input_type).fits(input_type), "{input_type}");
        }
        assert_eq!(Datatype::parse("fp32"), None);
        assert_eq!(Datatype::Bytes.config_name(), "TYPE_STRING");
        assert_eq!(Datatype::Fp32.config_name(), "TYPE_FP32");
    }
}
