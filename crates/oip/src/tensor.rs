//! Binary tensors into inputs.

use std::sync::Arc;

use clipper_domain::{Input, InputType};
use smallvec::SmallVec;

use crate::error::Fault;
use crate::number::{NotTaken, Number};
use crate::shape::Rows;
use clipper_domain::Datatype;

/// The inputs of a request, one a row.
pub(crate) type Inputs = SmallVec<[Input; 1]>;

/// The rows of `bytes`, which are as long as `rows` and `datatype` need, texts aside. Those that
/// are already what the model's containers get are copied once, into the input.
pub(crate) fn from_binary(
    bytes: &[u8],
    datatype: Datatype,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    let Some(element_bytes) = datatype.element_bytes() else {
        return texts(bytes, input_type, rows.count);
    };
    if datatype == Datatype::of(input_type) || input_type == InputType::Bytes {
        return Ok(cut(bytes, rows.each.saturating_mul(element_bytes)));
    }
    let mut wire = Vec::with_capacity(rows.all.saturating_mul(input_type.element_bytes()));
    for (at, element) in bytes.chunks_exact(element_bytes).enumerate() {
        put(Number::read(datatype, element), at, datatype, input_type, &mut wire)?;
    }
    Ok(cut(&wire, rows.each.saturating_mul(input_type.element_bytes())))
}

/// A whole body that is one row.
pub(crate) fn from_raw(bytes: &[u8], input_type: InputType) -> Result<Inputs, Fault> {
    let Some(element_bytes) = Datatype::of(input_type).element_bytes() else {
        return Ok(Inputs::from_iter([text(bytes, 0, input_type)?]));
    };
    match bytes.len() {
        0 => Err(Fault::Empty),
        n if n % element_bytes != 0 => Err(Fault::Left(n % element_bytes)),
        n => Ok(cut(bytes, n)),
    }
}

/// Appends the element at `at`, or says why not.
pub(crate) fn put(
    number: Option<Number>,
    at: usize,
    datatype: Datatype,
    input_type: InputType,
    wire: &mut Vec<u8>,
) -> Result<(), Fault> {
    let held = number.ok_or(NotTaken::Datatype).and_then(|number| match datatype {
        // Every pattern of bits is one of these.
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => Ok(number),
        _ => number.held_by(datatype),
    });
    held.and_then(|number| number.put(input_type, wire)).map_err(|why| match why {
        NotTaken::Datatype => Fault::Element { at, datatype },
        NotTaken::Range => Fault::OutOfRange { at, input_type: input_type.long_name() },
    })
}

/// Inputs of `each` bytes.
pub(crate) fn cut(wire: &[u8], each: usize) -> Inputs {
    wire.chunks_exact(each.max(1)).map(|row| Input(Arc::from(row))).collect()
}

/// An input of type bytes or strings.
pub(crate) fn text(bytes: &[u8], at: usize, input_type: InputType) -> Result<Input, Fault> {
    match input_type {
        InputType::Strings if std::str::from_utf8(bytes).is_err() => Err(Fault::NotUtf8(at)),
        InputType::Bytes if bytes.is_empty() => Err(Fault::EmptyElement(at)),
        _ => Ok(Input(Arc::from(bytes))),
    }
}

fn texts(bytes: &[u8], input_type: InputType, rows: usize) -> Result<Inputs, Fault> {
    let mut inputs = Inputs::new();
    let mut left = bytes;
    for at in 0..rows {
        let short = |said, found| Fault::ShortText { at, said, found };
        let (length, rest) = left.split_first_chunk().ok_or_else(|| short(4, left.len()))?;
        let length = u32::from_le_bytes(*length);
        let end = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n));
        let (element, rest) = end.ok_or_else(|| short(length.into(), rest.len()))?;
        inputs.push(text(element, at, input_type)?);
        left = rest;
    }
    if left.is_empty() { Ok(inputs) } else { Err(Fault::Left(left.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(inputs: &Inputs) -> Vec<&[u8]> {
        inputs.iter().map(|input| &input.0[..]).collect()
    }

    #[test]
    fn numbers_of_the_inputs_own_type_are_its_bytes_nan_and_all() {
        let nan = f64::from_bits(0x7ff0_0000_dead_beef);
        let wire: Vec<u8> =
            [1.0, nan, 3.0, 4.0].iter().flat_map(|n: &f64| n.to_le_bytes()).collect();
        let rows = Rows { count: 2, each: 2, all: 4 };
        let inputs = from_binary(&wire, Datatype::Fp64, InputType::Doubles, rows).unwrap();
        assert_eq!(bytes_of(&inputs), [&wire[..16], &wire[16..]]);
    }

    #[test]
    fn texts_have_lengths_that_are_checked() {
        let rows = |rows| Rows { count: rows, each: 1, all: rows };
        let of = |bytes: &[u8], n| from_binary(bytes, Datatype::Bytes, InputType::Strings, rows(n));
        let two = b"\x02\0\0\0hi\0\0\0\0";
        assert_eq!(bytes_of(&of(two, 2).unwrap()), [&b"hi"[..], b""]);
        assert_eq!(of(two, 1), Err(Fault::Left(4)));
        assert_eq!(of(two, 3), Err(Fault::ShortText { at: 2, said: 4, found: 0 }));
        let lie = b"\xff\xff\xff\xffhi";
        assert_eq!(of(lie, 1), Err(Fault::ShortText { at: 0, said: u32::MAX.into(), found: 2 }));
        assert_eq!(of(b"\x01\0\0\0\xff", 1), Err(Fault::NotUtf8(0)));
        let empty = from_binary(b"\0\0\0\0", Datatype::Bytes, InputType::Bytes, rows(1));
        assert_eq!(empty, Err(Fault::EmptyElement(0)));
    }

    #[test]
    fn a_raw_body_is_one_row() {
        let one = from_raw(&[0; 12], InputType::Floats).unwrap();
        assert_eq!(bytes_of(&one), [&[0; 12][..]]);
        assert_eq!(from_raw(&[0; 13], InputType::Floats), Err(Fault::Left(1)));
        assert_eq!(from_raw(b"", InputType::Floats), Err(Fault::Empty));
        assert_eq!(bytes_of(&from_raw(b"text", InputType::Strings).unwrap()), [b"text"]);
    }
}
