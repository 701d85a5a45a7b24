//! Rows that are made up by a signature: to try a model out, to warm it up, to load it.

use std::sync::Arc;

use clipper_domain::{Datatype, TensorSpec};
use half::{bf16, f16};

use crate::row::{self, Part};

/// What a dimension that is left open has, unless somebody says otherwise.
pub const OPEN_LENGTH: u64 = 4;

/// One tensor of a row that is made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub datatype: Datatype,
    /// Without the rows.
    pub dims: Vec<u64>,
    pub data: Vec<u8>,
}

/// A row of these tensors would be longer than anybody takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of tensor '{name}' has more than {bytes_max} bytes")]
pub struct TooLarge {
    name: String,
    bytes_max: usize,
}

/// One tensor: open dimensions are `open` long, and `number` says what its elements are, by
/// datatype and place. A text is made of the number.
///
/// # Errors
/// It would be longer than `bytes_max`.
pub fn tensor(
    spec: &TensorSpec,
    open: u64,
    bytes_max: usize,
    number: &mut impl FnMut(Datatype, u64) -> f64,
) -> Result<Sample, TooLarge> {
    let datatype = spec.datatype;
    let dims: Vec<u64> =
        spec.row_shape().iter().map(|n| u64::try_from(*n).unwrap_or(open)).collect();
    let too_large = || TooLarge { name: spec.name.clone(), bytes_max };
    let elements = row::elements(dims.iter().copied()).ok_or_else(too_large)?;
    // A text is at least as long as its length.
    let bytes = elements.checked_mul(datatype.element_bytes().unwrap_or(4));
    let bytes = bytes.filter(|bytes| *bytes <= bytes_max).ok_or_else(too_large)?;
    let mut data = Vec::with_capacity(bytes);
    for at in 0..elements {
        put(datatype, number(datatype, at as u64), &mut data);
    }
    Ok(Sample { datatype, dims, data })
}

/// A row of these tensors; see [`tensor`].
///
/// # Errors
/// One of them would be longer than `bytes_max`.
pub fn row(
    specs: &[TensorSpec],
    open: u64,
    bytes_max: usize,
    number: &mut impl FnMut(Datatype, u64) -> f64,
) -> Result<Arc<[u8]>, TooLarge> {
    let samples: Result<Vec<Sample>, TooLarge> =
        specs.iter().map(|spec| tensor(spec, open, bytes_max, number)).collect();
    Ok(build(&samples?))
}

/// The row that these are.
#[must_use]
pub fn build(samples: &[Sample]) -> Arc<[u8]> {
    let parts = samples.iter().map(|Sample { datatype, dims, data }| Part {
        datatype: *datatype,
        dims,
        data,
    });
    row::build(&parts.collect::<Vec<_>>())
}

/// Numbers that every model can take; those of variants 1 and 3 differ from each other where they
/// can, and not by a factor, which a normalisation takes away. Indices have to be small, masks and
/// booleans 0 or 1.
pub fn harmless(variant: u8) -> impl FnMut(Datatype, u64) -> f64 {
    move |datatype, at| match datatype {
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
            let phase = (at * 7 + u64::from(variant) * 3) % 19;
            f64::from(variant) * f64::from(u8::try_from(phase).unwrap_or(0)) / 18.0
        }
        Datatype::Bytes => f64::from(variant),
        _ => f64::from(u8::from(variant == 1 || at == 0)),
    }
}

/// Appends an element; whole numbers end at their datatype's bounds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such casts end at the bounds"
)]
pub fn put(datatype: Datatype, number: f64, data: &mut Vec<u8>) {
    macro_rules! put {
        ($element:expr) => {
            data.extend_from_slice(&($element).to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => data.push(u8::from(number >= 0.5)),
        Datatype::Uint8 => put!(number as u8),
        Datatype::Uint16 => put!(number as u16),
        Datatype::Uint32 => put!(number as u32),
        Datatype::Uint64 => put!(number as u64),
        Datatype::Int8 => put!(number as i8),
        Datatype::Int16 => put!(number as i16),
        Datatype::Int32 => put!(number as i32),
        Datatype::Int64 => put!(number as i64),
        Datatype::Fp16 => put!(f16::from_f64(number)),
        Datatype::Bf16 => put!(bf16::from_f64(number)),
        Datatype::Fp32 => put!(number as f32),
        Datatype::Fp64 => put!(number),
        Datatype::Bytes => {
            let text = letters(number as u64);
            put!(u32::try_from(text.len()).unwrap_or(0));
            data.extend_from_slice(text.as_bytes());
        }
    }
}

/// `a`, `b`, ..., `z`, `ba`, ...
fn letters(mut number: u64) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + u8::try_from(number % 26).unwrap_or(0));
        number /= 26;
        if number == 0 {
            letters.reverse();
            return String::from_utf8(letters).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::RowCheck;

    fn spec(datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "x".to_owned(), datatype, shape: shape.to_vec(), labels: Vec::new() }
    }

    #[test]
    fn a_row_of_every_datatype_is_one_of_its_signature() {
        let specs: Vec<TensorSpec> = Datatype::ALL
            .into_iter()
            .map(|datatype| TensorSpec {
                name: datatype.name().to_owned(),
                ..spec(datatype, &[-1, 2, -1])
            })
            .collect();
        let made = row(&specs, 3, 1_000, &mut harmless(1)).unwrap();
        assert!(RowCheck::new(&specs).takes(&made));
        let (_, tensors) = row::read(&made).unwrap();
        for tensor in tensors {
            assert_eq!(tensor.dims().collect::<Vec<_>>(), [2, 3]);
            let needed = tensor.datatype.element_bytes().map_or(6 * 5, |bytes| 6 * bytes);
            assert_eq!(tensor.data.len(), needed);
        }
        assert_ne!(made, row(&specs, 3, 1_000, &mut harmless(3)).unwrap());
    }

    #[test]
    fn what_is_too_large_is_not_made() {
        for shape in [&[-1, 1 << 40][..], &[-1, 1 << 62, 4], &[-1, -1]] {
            let error = tensor(&spec(Datatype::Int8, shape), 101, 100, &mut harmless(1));
            assert!(error.unwrap_err().to_string().contains("'x'"), "{shape:?}");
        }
        let texts = spec(Datatype::Bytes, &[-1, 26]);
        assert!(tensor(&texts, 1, 100, &mut harmless(1)).is_err());
    }

    #[test]
    fn numbers_end_at_their_bounds_and_become_texts() {
        let mut data = Vec::new();
        for datatype in [Datatype::Uint8, Datatype::Int8, Datatype::Bool] {
            put(datatype, 1e9, &mut data);
            put(datatype, -1e9, &mut data);
        }
        assert_eq!(data, [255, 0, 127, 128, 1, 0]);
        assert_eq!([0, 25, 26, 27].map(letters), ["a", "z", "ba", "bb"]);
    }
}
