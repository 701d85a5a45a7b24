//! One number on its way from a request's datatype to the bytes of an input.

use clipper_domain::InputType;
use half::{bf16, f16};

use clipper_domain::Datatype;

/// Whole numbers up to this are exact as `f32` and as `f64`.
const EXACT_F32: i128 = 1 << 24;
const EXACT_F64: i128 = 1 << 53;

/// A number of any datatype.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Whole(i128),
    Float(f64),
}

/// Why a number is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is not of its datatype.
    Datatype,
    /// The input's type cannot hold it exactly.
    Range,
}

impl Number {
    /// Reads one little-endian element; `None` where `bytes` is not as long as one.
    pub(crate) fn read(datatype: Datatype, bytes: &[u8]) -> Option<Self> {
        fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.try_into().ok()
        }
        Some(match datatype {
            Datatype::Bool | Datatype::Uint8 => {
                Self::Whole(u8::from_le_bytes(array(bytes)?).into())
            }
            Datatype::Uint16 => Self::Whole(u16::from_le_bytes(array(bytes)?).into()),
            Datatype::Uint32 => Self::Whole(u32::from_le_bytes(array(bytes)?).into()),
            Datatype::Uint64 => Self::Whole(u64::from_le_bytes(array(bytes)?).into()),
            Datatype::Int8 => Self::Whole(i8::from_le_bytes(array(bytes)?).into()),
            Datatype::Int16 => Self::Whole(i16::from_le_bytes(array(bytes)?).into()),
            Datatype::Int32 => Self::Whole(i32::from_le_bytes(array(bytes)?).into()),
            Datatype::Int64 => Self::Whole(i64::from_le_bytes(array(bytes)?).into()),
            Datatype::Fp16 => Self::Float(f16::from_le_bytes(array(bytes)?).to_f64()),
            Datatype::Bf16 => Self::Float(bf16::from_le_bytes(array(bytes)?).to_f64()),
            Datatype::Fp32 => Self::Float(f32::from_le_bytes(array(bytes)?).into()),
            Datatype::Fp64 => Self::Float(f64::from_le_bytes(array(bytes)?)),
            Datatype::Bytes => return None,
        })
    }

    /// The number as its datatype holds it, which JSON does not say: floats are rounded, whole
    /// numbers have to be in range.
    #[allow(clippy::cast_possible_truncation, reason = "f64 to f32 rounds; overflow is checked")]
    pub(crate) fn held_by(self, datatype: Datatype) -> Result<Self, NotTaken> {
        let range = match datatype {
            Datatype::Bool => 0..=1,
            Datatype::Uint8 => 0..=i128::from(u8::MAX),
            Datatype::Uint16 => 0..=i128::from(u16::MAX),
            Datatype::Uint32 => 0..=i128::from(u32::MAX),
            Datatype::Uint64 => 0..=i128::from(u64::MAX),
            Datatype::Int8 => i128::from(i8::MIN)..=i128::from(i8::MAX),
            Datatype::Int16 => i128::from(i16::MIN)..=i128::from(i16::MAX),
            Datatype::Int32 => i128::from(i32::MIN)..=i128::from(i32::MAX),
            Datatype::Int64 => i128::from(i64::MIN)..=i128::from(i64::MAX),
            Datatype::Fp32 => {
                let single = self.float() as f32;
                let held = single.is_finite().then(|| Self::Float(single.into()));
                return held.ok_or(NotTaken::Datatype);
            }
            Datatype::Fp64 => return Ok(Self::Float(self.float())),
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return Err(NotTaken::Datatype),
        };
        match self {
            Self::Whole(number) if range.contains(&number) => Ok(self),
            _ => Err(NotTaken::Datatype),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// Appends it as an element of inputs of this type, unless its value would change.
    #[allow(clippy::cast_possible_truncation, reason = "what is cast is exact as f32")]
    pub(crate) fn put(self, input_type: InputType, wire: &mut Vec<u8>) -> Result<(), NotTaken> {
        let within = |max: i128| match self {
            Self::Whole(number) => number.abs() <= max,
            Self::Float(_) => true,
        };
        match (input_type, self) {
            (InputType::Integers, Self::Whole(number)) => {
                let number = i32::try_from(number).map_err(|_| NotTaken::Range)?;
                wire.extend_from_slice(&number.to_le_bytes());
            }
            (InputType::Bytes, Self::Whole(number)) => {
                wire.push(u8::try_from(number).map_err(|_| NotTaken::Range)?);
            }
            (InputType::Floats, _) if within(EXACT_F32) => {
                wire.extend_from_slice(&(self.float() as f32).to_le_bytes());
            }
            (InputType::Doubles, _) if within(EXACT_F64) => {
                wire.extend_from_slice(&self.float().to_le_bytes());
            }
            _ => return Err(NotTaken::Range),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(datatype: Datatype, bytes: &[u8], input_type: InputType) -> Result<Vec<u8>, NotTaken> {
        let mut wire = Vec::new();
        let number = Number::read(datatype, bytes).unwrap();
        number.put(input_type, &mut wire).map(|()| wire)
    }

    #[test]
    fn values_reach_the_input_exactly_or_not_at_all() {
        let double = |bytes: &[u8], datatype| {
            put(datatype, bytes, InputType::Doubles)
                .map(|w| f64::from_le_bytes(w.try_into().unwrap()))
        };
        assert_eq!(double(&0.1_f32.to_le_bytes(), Datatype::Fp32), Ok(f64::from(0.1_f32)));
        assert_eq!(double(&f16::from_f32(1.5).to_le_bytes(), Datatype::Fp16), Ok(1.5));
        assert_eq!(double(&bf16::from_f32(-2.0).to_le_bytes(), Datatype::Bf16), Ok(-2.0));
        assert_eq!(
            double(&(1_i64 << 53).to_le_bytes(), Datatype::Int64),
            Ok(9_007_199_254_740_992.0)
        );
        let over = ((1_i64 << 53) + 1).to_le_bytes();
        assert_eq!(double(&over, Datatype::Int64), Err(NotTaken::Range));
        assert_eq!(double(&u64::MAX.to_le_bytes(), Datatype::Uint64), Err(NotTaken::Range));
        let integer = |bytes: &[u8], datatype| put(datatype, bytes, InputType::Integers);
        assert_eq!(
            integer(&(-7_i64).to_le_bytes(), Datatype::Int64),
            Ok((-7_i32).to_le_bytes().to_vec())
        );
        assert_eq!(integer(&(1_u32 << 31).to_le_bytes(), Datatype::Uint32), Err(NotTaken::Range));
        let single = put(Datatype::Uint32, &((1_u32 << 24) + 1).to_le_bytes(), InputType::Floats);
        assert_eq!(single, Err(NotTaken::Range));
        assert_eq!(put(Datatype::Uint8, &[200], InputType::Bytes), Ok(vec![200]));
        assert_eq!(Number::read(Datatype::Fp32, &[0; 3]), None);
    }

    #[test]
    fn a_json_number_has_to_be_of_its_datatype() {
        let of = |number: Number, datatype| number.held_by(datatype);
        assert_eq!(of(Number::Whole(256), Datatype::Uint8), Err(NotTaken::Datatype));
        assert_eq!(of(Number::Whole(-1), Datatype::Uint64), Err(NotTaken::Datatype));
        assert_eq!(of(Number::Whole(2), Datatype::Bool), Err(NotTaken::Datatype));
        assert_eq!(of(Number::Float(1.0), Datatype::Int32), Err(NotTaken::Datatype));
        assert_eq!(of(Number::Float(1e39), Datatype::Fp32), Err(NotTaken::Datatype));
        assert_eq!(of(Number::Float(0.1), Datatype::Fp32), Ok(Number::Float(f64::from(0.1_f32))));
        assert_eq!(of(Number::Whole(3), Datatype::Fp64), Ok(Number::Float(3.0)));
        assert_eq!(of(Number::Whole(1), Datatype::Fp16), Err(NotTaken::Datatype));
    }
}
