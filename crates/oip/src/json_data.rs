//! A tensor's `data` in JSON, flat or nested as its shape says, into inputs.

use clipper_domain::InputType;
use clipper_tensors::nested::{Element, Elements, Level, Refused};
use serde::de::DeserializeSeed as _;

use crate::error::{Fault, shown};
use crate::number::Number;
use crate::shape::Rows;
use crate::tensor::{Inputs, cut, put, text};
use clipper_domain::Datatype;

/// Reads `data`, which is JSON.
pub(crate) fn from_json(
    data: &str,
    datatype: Datatype,
    input_type: InputType,
    shape: &[u64],
    rows: Rows,
) -> Result<Inputs, Fault> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(Fault::BinaryOnly(datatype));
    }
    let mut context = LevelContext {
        datatype,
        input_type,
        shape,
        rows,
        count: 0,
        leaf: None,
        wire: Vec::new(),
        texts: Inputs::new(),
        fault: None,
    };
    let mut json = serde_json::Deserializer::from_str(data);
    let read = Level::outermost(&mut context).deserialize(&mut json);
    let LevelContext { fault, count, wire, texts, .. } = context;
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(Fault::Json(shown(&error.to_string()))),
        (None, Ok(())) if count != rows.all => {
            Err(Fault::Elements { said: rows.all, found: count })
        }
        (None, Ok(())) if datatype == Datatype::Bytes => Ok(texts),
        (None, Ok(())) => Ok(cut(&wire, wire.len() / rows.count.max(1))),
    }
}

/// What the levels share, and the first thing found wrong: serde's errors cannot carry it.
struct LevelContext<'s> {
    datatype: Datatype,
    input_type: InputType,
    shape: &'s [u64],
    rows: Rows,
    count: usize,
    /// The level of the arrays that hold elements.
    leaf: Option<usize>,
    wire: Vec<u8>,
    texts: Inputs,
    fault: Option<Fault>,
}

impl LevelContext<'_> {
    fn fail(&mut self, fault: Fault) -> Refused {
        self.fault.get_or_insert(fault);
        Refused
    }

    /// An element stands in an array of level `leaf`.
    fn stands_in(&mut self, leaf: usize) -> Result<(), Fault> {
        let is_known = *self.leaf.get_or_insert(leaf) == leaf;
        if !is_known || (leaf != 0 && leaf + 1 != self.shape.len()) {
            return Err(Fault::Nesting(self.count));
        }
        if self.count == self.rows.all {
            return Err(Fault::MoreElements(self.rows.all));
        }
        Ok(())
    }

    fn take(&mut self, element: Element<'_>) -> Result<(), Fault> {
        match element {
            Element::Flag(value) if self.datatype == Datatype::Bool => {
                self.number(Number::Whole(value.into()))
            }
            Element::Whole(value) => self.number(Number::Whole(value)),
            Element::Float(value) => self.number(Number::Float(value)),
            Element::Text(text) => self.text(text.as_bytes()),
            Element::Flag(_) | Element::Bytes(_) | Element::Other => {
                Err(Fault::Element { at: self.count, datatype: self.datatype })
            }
        }
    }

    fn number(&mut self, number: Number) -> Result<(), Fault> {
        let (at, datatype) = (self.count, self.datatype);
        let element = Fault::Element { at, datatype };
        if datatype == Datatype::Bytes {
            return Err(element);
        }
        let number = number.held_by(datatype).map_err(|_| element)?;
        put(Some(number), at, datatype, self.input_type, &mut self.wire)
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.datatype != Datatype::Bytes {
            return Err(Fault::Element { at: self.count, datatype: self.datatype });
        }
        self.texts.push(text(bytes, self.count, self.input_type)?);
        Ok(())
    }
}

impl Elements for LevelContext<'_> {
    fn element(&mut self, level: usize, element: Element<'_>) -> Result<(), Refused> {
        let Some(leaf) = level.checked_sub(1) else {
            return Err(self.fail(Fault::Json("it is not an array".to_owned())));
        };
        let taken = self.stands_in(leaf).and_then(|()| self.take(element));
        self.count += 1;
        taken.map_err(|fault| self.fail(fault))
    }

    fn begins(&mut self, level: usize) -> Result<(), Refused> {
        if level < self.shape.len() { Ok(()) } else { Err(self.fail(Fault::Nesting(self.count))) }
    }

    fn ended(&mut self, level: usize, values: u64) -> Result<(), Refused> {
        // Of a flat array, and of an empty one, the count of elements says whether it is right.
        let is_flat = level == 0 && (values == 0 || self.leaf == Some(0));
        if is_flat || self.shape.get(level) == Some(&values) {
            Ok(())
        } else {
            Err(self.fail(Fault::Nesting(self.count)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubles(data: &str, shape: &[u64]) -> Result<Vec<Vec<f64>>, Fault> {
        let rows = Rows::of_numbers(shape, 100)?;
        let inputs = from_json(data, Datatype::Fp64, InputType::Doubles, shape, rows)?;
        let row = |input: &clipper_domain::Input| {
            let numbers = input.0.chunks_exact(8);
            numbers.map(|n| f64::from_le_bytes(n.try_into().unwrap())).collect()
        };
        Ok(inputs.iter().map(row).collect())
    }

    #[test]
    fn data_is_flat_or_nested_as_the_shape_says() {
        let expected = Ok(vec![vec![1.0, 2.0], vec![3.0, 4.5]]);
        assert_eq!(doubles("[1, 2, 3, 4.5]", &[2, 2]), expected);
        assert_eq!(doubles("[[1, 2], [3, 4.5]]", &[2, 2]), expected);
        assert_eq!(doubles("[[[1], [2]], [[3], [4.5]]]", &[2, 2, 1]), expected);
        for data in [
            "[[1, 2, 3, 4]]",
            "[[1], [2, 3, 4]]",
            "[1, [2, 3, 4]]",
            "[[1, 2], 3, 4]",
            "[[1, 2], [[3], 4]]",
            "[[[1, 2]], [[3, 4]]]",
            "[[], []]",
        ] {
            assert!(matches!(doubles(data, &[2, 2]), Err(Fault::Nesting(_))), "{data}");
        }
        assert_eq!(doubles("[1, 2, 3]", &[2, 2]), Err(Fault::Elements { said: 4, found: 3 }));
        assert_eq!(doubles("[]", &[2, 2]), Err(Fault::Elements { said: 4, found: 0 }));
        assert_eq!(doubles("[1, 2, 3, 4, 5]", &[2, 2]), Err(Fault::MoreElements(4)));
        assert!(matches!(doubles("7", &[1, 1]), Err(Fault::Json(_))));
        assert!(matches!(doubles("[1e999]", &[1, 1]), Err(Fault::Json(_))));
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(doubles(&deep, &[1, 1]).is_err());
    }

    #[test]
    fn each_element_is_of_its_datatype() {
        let at = |at| Err(Fault::Element { at, datatype: Datatype::Fp64 });
        for data in ["[1, \"2\"]", "[1, null]", "[1, true]", "[1, {}]"] {
            assert_eq!(doubles(data, &[1, 2]), at(1), "{data}");
        }
        let rows = Rows { count: 2, each: 1, all: 2 };
        let of = |data, datatype, input_type| from_json(data, datatype, input_type, &[2, 1], rows);
        let (int, texts) = (InputType::Integers, InputType::Strings);
        assert!(of("[true, 0]", Datatype::Bool, int).is_ok());
        let range = Fault::OutOfRange { at: 1, input_type: "integers" };
        assert_eq!(of("[0, 2147483648]", Datatype::Int64, int), Err(range));
        assert!(of("[[\"a\"], [\"\"]]", Datatype::Bytes, texts).is_ok());
        assert!(of("[\"a\", 1]", Datatype::Bytes, texts).is_err());
        let half = of("[1, 2]", Datatype::Fp16, InputType::Floats);
        assert_eq!(half, Err(Fault::BinaryOnly(Datatype::Fp16)));
    }
}
