//! Joined tensors into values of ONNX Runtime, and back.

use clipper_domain::Datatype;
use clipper_tensors::batch::JoinedTensor;
use half::{bf16, f16};
use ort::value::{DynValue, Tensor};

use crate::engine_error::EngineError;

/// How far a row's outputs may differ when another row is beside it.
const TOLERANCE: f64 = 1e-3;

fn numbers<T, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|element| read(*element)).collect()
}

/// The value of a tensor, whose elements are copied once, to where the library wants them.
pub(crate) fn input_value(tensor: &JoinedTensor, shape: &[u64]) -> Result<DynValue, EngineError> {
    let shape: Result<Vec<i64>, _> = shape.iter().map(|n| i64::try_from(*n)).collect();
    let shape = shape.map_err(|_| EngineError::NegativeDimension)?;
    macro_rules! value {
        ($elements:expr) => {
            Tensor::from_array((shape, $elements)).map_err(EngineError::library)?.into_dyn()
        };
    }
    let data = &tensor.data[..];
    Ok(match tensor.datatype {
        Datatype::Bool => value!(numbers(data, |[byte]: [u8; 1]| byte != 0)),
        Datatype::Int8 => value!(numbers(data, i8::from_le_bytes)),
        Datatype::Int16 => value!(numbers(data, i16::from_le_bytes)),
        Datatype::Int32 => value!(numbers(data, i32::from_le_bytes)),
        Datatype::Int64 => value!(numbers(data, i64::from_le_bytes)),
        Datatype::Uint8 => value!(data.to_vec()),
        Datatype::Uint16 => value!(numbers(data, u16::from_le_bytes)),
        Datatype::Uint32 => value!(numbers(data, u32::from_le_bytes)),
        Datatype::Uint64 => value!(numbers(data, u64::from_le_bytes)),
        Datatype::Fp16 => value!(numbers(data, f16::from_le_bytes)),
        Datatype::Bf16 => value!(numbers(data, bf16::from_le_bytes)),
        Datatype::Fp32 => value!(numbers(data, f32::from_le_bytes)),
        Datatype::Fp64 => value!(numbers(data, f64::from_le_bytes)),
        Datatype::Bytes => {
            let texts = texts(data)?;
            let value = Tensor::from_string_array((shape, texts.as_slice()));
            value.map_err(EngineError::library)?.into_dyn()
        }
    })
}

fn texts(mut data: &[u8]) -> Result<Vec<String>, EngineError> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (text, rest) = rest.split_at_checked(length).ok_or(EngineError::NotUtf8)?;
        let text = std::str::from_utf8(text).map_err(|_| EngineError::NotUtf8)?;
        texts.push(text.to_owned());
        data = rest;
    }
    Ok(texts)
}

/// The tensor of a value, which has to be of this datatype.
pub(crate) fn output_tensor(
    output: &DynValue,
    datatype: Datatype,
) -> Result<JoinedTensor, EngineError> {
    macro_rules! extracted {
        ($kind:ty) => {{
            let extracted = output.try_extract_tensor::<$kind>();
            let (shape, values) = extracted.map_err(|_| EngineError::OtherType)?;
            let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
            (shape.to_vec(), bytes)
        }};
    }
    let (shape, data) = match datatype {
        Datatype::Bool => {
            let extracted = output.try_extract_tensor::<bool>();
            let (shape, values) = extracted.map_err(|_| EngineError::OtherType)?;
            (shape.to_vec(), values.iter().map(|n| u8::from(*n)).collect())
        }
        Datatype::Int8 => extracted!(i8),
        Datatype::Int16 => extracted!(i16),
        Datatype::Int32 => extracted!(i32),
        Datatype::Int64 => extracted!(i64),
        Datatype::Uint8 => extracted!(u8),
        Datatype::Uint16 => extracted!(u16),
        Datatype::Uint32 => extracted!(u32),
        Datatype::Uint64 => extracted!(u64),
        Datatype::Fp16 => extracted!(f16),
        Datatype::Bf16 => extracted!(bf16),
        Datatype::Fp32 => extracted!(f32),
        Datatype::Fp64 => extracted!(f64),
        Datatype::Bytes => {
            let extracted = output.try_extract_strings();
            let (shape, texts) = extracted.map_err(|_| EngineError::OtherType)?;
            let mut data = Vec::new();
            for text in texts {
                let length = u32::try_from(text.len()).map_err(|_| EngineError::OtherType)?;
                data.extend_from_slice(&length.to_le_bytes());
                data.extend_from_slice(text.as_bytes());
            }
            (shape.to_vec(), data)
        }
    };
    let shape: Result<Vec<u64>, _> = shape.into_iter().map(u64::try_from).collect();
    let shape = shape.map_err(|_| EngineError::NegativeDimension)?;
    Ok(JoinedTensor { datatype, shape, data: data.into() })
}

/// Whether `both` is these two rows one after the other, but for rounding.
pub(crate) fn equal(both: &JoinedTensor, rows: [&JoinedTensor; 2]) -> bool {
    let [one, other] = rows;
    let same_shape = |row: &JoinedTensor| row.shape.get(1..) == both.shape.get(1..);
    if !same_shape(one) || !same_shape(other) {
        return false;
    }
    let data = [&one.data[..], &other.data[..]].concat();
    match (as_doubles(both.datatype, &both.data), as_doubles(both.datatype, &data)) {
        (Some(together), Some(alone)) => {
            together.len() == alone.len()
                && together.iter().zip(&alone).all(|(one, other)| close(*one, *other))
        }
        _ => both.data[..] == data,
    }
}

/// Floats as numbers; everything else has to be the same to the byte.
fn as_doubles(datatype: Datatype, data: &[u8]) -> Option<Vec<f64>> {
    Some(match datatype {
        Datatype::Fp16 => numbers(data, |n| f16::from_le_bytes(n).to_f64()),
        Datatype::Bf16 => numbers(data, |n| bf16::from_le_bytes(n).to_f64()),
        Datatype::Fp32 => numbers(data, |n| f32::from_le_bytes(n).into()),
        Datatype::Fp64 => numbers(data, f64::from_le_bytes),
        _ => return None,
    })
}

fn close(one: f64, other: f64) -> bool {
    let same = one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan());
    same || (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()).max(1e-2)
}
