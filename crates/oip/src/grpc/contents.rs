//! The elements of a tensor in the lists of `InferTensorContents`, into inputs.

use std::borrow::Cow;

use clipper_domain::InputType;

use super::wire::{Fields, Malformed, Value, varints};
use crate::error::Fault;
use crate::number::Number;
use crate::shape::Rows;
use crate::tensor::{Inputs, cut, from_binary, put, text};
use clipper_domain::Datatype;

/// The list for elements of a datatype: its field and its name.
fn list(datatype: Datatype) -> Option<(u64, &'static str)> {
    Some(match datatype {
        Datatype::Bool => (1, "bool_contents"),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => (2, "int_contents"),
        Datatype::Int64 => (3, "int64_contents"),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => (4, "uint_contents"),
        Datatype::Uint64 => (5, "uint64_contents"),
        Datatype::Fp32 => (6, "fp32_contents"),
        Datatype::Fp64 => (7, "fp64_contents"),
        Datatype::Bytes => (8, "bytes_contents"),
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::NotProtobuf
    }
}

/// Reads `contents`, which is an `InferTensorContents`.
pub(super) fn read(
    contents: &[u8],
    datatype: Datatype,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    let Some((field, wanted)) = list(datatype) else {
        return Err(Fault::Contents { datatype, wanted: "raw_input_contents" });
    };
    let elements = of_list(contents, datatype, (field, wanted));
    match datatype {
        Datatype::Bytes => texts(elements, input_type, rows),
        Datatype::Fp32 | Datatype::Fp64 => floats(elements, datatype, input_type, rows),
        _ => whole(elements, datatype, input_type, rows),
    }
}

/// The parts of the list that elements of a datatype stand in.
fn of_list<'m>(
    contents: &'m [u8],
    datatype: Datatype,
    (field, wanted): (u64, &'static str),
) -> impl Iterator<Item = Result<Value<'m>, Fault>> {
    Fields::of(contents).map(move |read| match read? {
        (number, value) if number == field => Ok(value),
        // Lists of a later version would be elements that are not understood.
        _ => Err(Fault::Contents { datatype, wanted }),
    })
}

/// The elements of `contents` as they stand in binary tensors; there have to be `count`.
pub(super) fn bytes(
    contents: &[u8],
    datatype: Datatype,
    count: usize,
) -> Result<Cow<'_, [u8]>, Fault> {
    let Some(list) = list(datatype) else {
        return Err(Fault::Contents { datatype, wanted: "raw_input_contents" });
    };
    let elements = of_list(contents, datatype, list);
    if matches!(datatype, Datatype::Fp32 | Datatype::Fp64) {
        return packed(elements, datatype, count);
    }
    let (mut bytes, mut found) = (Vec::new(), 0);
    let mut next = || {
        found += 1;
        if found > count { Err(Fault::MoreElements(count)) } else { Ok(found - 1) }
    };
    let Some(element_bytes) = datatype.element_bytes() else {
        for element in elements {
            let Value::Bytes(text) = element? else { return Err(Fault::NotProtobuf) };
            let at = next()?;
            let length = u32::try_from(text.len());
            let length = length.map_err(|_| Fault::Element { at, datatype })?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text);
        }
        counted(found, count)?;
        return Ok(Cow::Owned(bytes));
    };
    let mut take = |varint: u64| {
        let at = next()?;
        let number = number(varint, datatype).and_then(|number| number.held_by(datatype).ok());
        let Some(Number::Whole(number)) = number else {
            return Err(Fault::Element { at, datatype });
        };
        bytes.extend_from_slice(number.to_le_bytes().get(..element_bytes).unwrap_or_default());
        Ok(())
    };
    for element in elements {
        varints(element?, &mut take)?;
    }
    counted(found, count)?;
    Ok(Cow::Owned(bytes))
}

fn counted(found: usize, said: usize) -> Result<(), Fault> {
    if found == said { Ok(()) } else { Err(Fault::Elements { said, found }) }
}

fn texts<'m>(
    elements: impl Iterator<Item = Result<Value<'m>, Fault>>,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    let mut inputs = Inputs::new();
    for element in elements {
        let Value::Bytes(bytes) = element? else { return Err(Fault::NotProtobuf) };
        if inputs.len() == rows.all {
            return Err(Fault::MoreElements(rows.all));
        }
        inputs.push(text(bytes, inputs.len(), input_type)?);
    }
    counted(inputs.len(), rows.all)?;
    Ok(inputs)
}

/// They stand in the message as in binary tensors, mostly in one piece.
fn floats<'m>(
    elements: impl Iterator<Item = Result<Value<'m>, Fault>>,
    datatype: Datatype,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    let all = packed(elements, datatype, rows.all)?;
    from_binary(&all, datatype, input_type, rows)
}

/// Numbers that are as long as their datatype says.
fn packed<'m>(
    elements: impl Iterator<Item = Result<Value<'m>, Fault>>,
    datatype: Datatype,
    count: usize,
) -> Result<Cow<'m, [u8]>, Fault> {
    let element_bytes = datatype.element_bytes().unwrap_or(1);
    let mut all: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    for element in elements {
        match element? {
            Value::Bytes(packed) if all.is_empty() => all = Cow::Borrowed(packed),
            Value::Bytes(packed) => all.to_mut().extend_from_slice(packed),
            Value::Fixed32(single) if datatype == Datatype::Fp32 => {
                all.to_mut().extend_from_slice(&single);
            }
            Value::Fixed64(double) if datatype == Datatype::Fp64 => {
                all.to_mut().extend_from_slice(&double);
            }
            _ => return Err(Fault::NotProtobuf),
        }
        if all.len() / element_bytes > count {
            return Err(Fault::MoreElements(count));
        }
    }
    if !all.len().is_multiple_of(element_bytes) {
        return Err(Fault::NotProtobuf);
    }
    counted(all.len() / element_bytes, count)?;
    Ok(all)
}

fn whole<'m>(
    elements: impl Iterator<Item = Result<Value<'m>, Fault>>,
    datatype: Datatype,
    input_type: InputType,
    rows: Rows,
) -> Result<Inputs, Fault> {
    let mut wire = Vec::new();
    let mut count = 0;
    let mut take = |varint: u64| {
        if count == rows.all {
            return Err(Fault::MoreElements(rows.all));
        }
        put(number(varint, datatype), count, datatype, input_type, &mut wire)?;
        count += 1;
        Ok(())
    };
    for element in elements {
        varints(element?, &mut take)?;
    }
    counted(count, rows.all)?;
    Ok(cut(&wire, rows.each.saturating_mul(input_type.element_bytes())))
}

/// The number that a varint stands for. Those of 32 bits are cut to them, as every reader of
/// protobuf does.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "as said")]
fn number(varint: u64, datatype: Datatype) -> Option<Number> {
    Some(match datatype {
        Datatype::Bool => Number::Whole((varint != 0).into()),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Number::Whole((varint as i32).into()),
        Datatype::Int64 => Number::Whole((varint as i64).into()),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            Number::Whole((varint as u32).into())
        }
        Datatype::Uint64 => Number::Whole(varint.into()),
        _ => return None,
    })
}
