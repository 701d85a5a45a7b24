//! Rows of tensors from JSON: an object with an array for each tensor, nested or flat.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use clipper_domain::{Datatype, TensorSpec};
use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::fault::{Fault, RowError};
use crate::nested::{Element, Elements, Level, Refused};
use crate::row::{self, Part};

/// Names that a refusal lists.
const NAMES_SHOWN: usize = 8;
/// Longest name of a member that a refusal repeats, characters.
const NAME_SHOWN: usize = 64;

/// The dimensions of one tensor.
pub type Dims = SmallVec<[u64; 4]>;

/// Reads one row, `{"name": array, ...}`; `place` says where it stands.
///
/// # Errors
/// The first field that is wrong, and how.
pub fn read_row(
    json: &str,
    specs: &[TensorSpec],
    place: &impl fmt::Display,
) -> Result<Arc<[u8]>, RowError> {
    let mut members: Vec<Option<(Dims, Vec<u8>)>> = specs.iter().map(|_| None).collect();
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(json);
    let row = RowReader { specs, members: &mut members, fault: &mut fault, place };
    let read = json.deserialize_any(row).and_then(|()| json.end());
    if let Some(fault) = fault {
        return Err(fault);
    }
    read.map_err(|error| RowError::new(place.to_string(), Fault::Json(error.to_string())))?;
    let mut parts = SmallVec::<[Part<'_>; 4]>::new();
    for (spec, member) in specs.iter().zip(&members) {
        let missing = || RowError::new(format!("{place}.{}", spec.name), Fault::Missing);
        let (dims, data) = member.as_ref().ok_or_else(missing)?;
        parts.push(Part { datatype: spec.datatype, dims, data });
    }
    Ok(row::build(&parts))
}

/// Reads the elements of one tensor of exactly this shape, flat or nested, into their bytes.
///
/// # Errors
/// What is wrong with them.
pub fn read_data(json: &str, datatype: Datatype, shape: &[i64]) -> Result<Vec<u8>, Fault> {
    let mut reader = TensorReader::new(datatype, shape);
    let mut json = serde_json::Deserializer::from_str(json);
    let read = Level::outermost(&mut reader).deserialize(&mut json).and_then(|()| json.end());
    let (_, data) = reader.finish(read)?;
    Ok(data)
}

struct RowReader<'c, P> {
    specs: &'c [TensorSpec],
    members: &'c mut [Option<(Dims, Vec<u8>)>],
    fault: &'c mut Option<RowError>,
    place: &'c P,
}

impl<P: fmt::Display> RowReader<'_, P> {
    fn fail<E: Error>(&mut self, member: &str, fault: Fault) -> E {
        let field = match member {
            "" => self.place.to_string(),
            member => format!("{}.{member}", self.place),
        };
        self.fault.get_or_insert(RowError::new(field, fault));
        E::custom("refused")
    }

    fn other<E: Error>(mut self) -> E {
        self.fail("", Fault::NotAnObject)
    }
}

impl<'de, P: fmt::Display> Visitor<'de> for RowReader<'_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let Some(at) = self.specs.iter().position(|spec| spec.name == *name) else {
                let shown: String = name.chars().take(NAME_SHOWN).collect();
                let shown = clipper_domain::printable::printable(&shown).into_owned();
                return Err(self.fail(&shown, Fault::Unknown(names(self.specs))));
            };
            if self.members.get(at).is_some_and(Option::is_some) {
                return Err(self.fail(&name, Fault::Twice));
            }
            let Some(spec) = self.specs.get(at) else { continue };
            let mut reader = TensorReader::new(spec.datatype, spec.row_shape());
            let read = map.next_value_seed(Level::outermost(&mut reader));
            match reader.finish(read.as_ref().copied().map_err(ToString::to_string)) {
                Ok(member) => self.members[at] = Some(member),
                // A fault of the JSON itself goes on with its position.
                Err(Fault::Json(_)) => return read,
                Err(fault) => return Err(self.fail(&name, fault)),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.other())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.other())
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(self.other())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(self.other())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(self.other())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(self.other())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.other())
    }
}

/// The names of tensors, for a sentence.
#[must_use]
pub fn names(specs: &[TensorSpec]) -> String {
    let mut names: Vec<_> =
        specs.iter().take(NAMES_SHOWN).map(|spec| format!("'{}'", spec.name)).collect();
    if specs.len() > NAMES_SHOWN {
        names.push("...".to_owned());
    }
    names.join(", ")
}

/// Reads the arrays of one tensor.
struct TensorReader<'s> {
    datatype: Datatype,
    /// -1 is any number.
    wanted: &'s [i64],
    data: Vec<u8>,
    count: usize,
    /// How many values the arrays of each level have.
    lengths: SmallVec<[Option<u64>; 4]>,
    /// Arrays around each element.
    depth: Option<usize>,
    fault: Option<Fault>,
}

fn shown<N: fmt::Display>(shape: impl IntoIterator<Item = N>) -> String {
    shape.into_iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

impl<'s> TensorReader<'s> {
    fn new(datatype: Datatype, wanted: &'s [i64]) -> Self {
        let (data, lengths) = (Vec::new(), SmallVec::new());
        Self { datatype, wanted, data, count: 0, lengths, depth: None, fault: None }
    }

    /// The dimensions and bytes of what was read.
    fn finish<E: fmt::Display>(self, read: Result<(), E>) -> Result<(Dims, Vec<u8>), Fault> {
        let Self { wanted, data, count, lengths, depth, fault, .. } = self;
        if let Some(fault) = fault {
            return Err(fault);
        }
        read.map_err(|error| Fault::Json(error.to_string()))?;
        let lengths: Dims = lengths.into_iter().flatten().collect();
        if count == 0 {
            return Err(Fault::Empty);
        }
        let is_flat = depth == Some(1) && wanted.len() != 1;
        let dims = if is_flat { flat(count, wanted)? } else { lengths };
        let fits = dims.len() == wanted.len()
            && dims
                .iter()
                .zip(wanted)
                .all(|(n, wanted)| *wanted == -1 || i64::try_from(*n) == Ok(*wanted));
        if fits {
            return Ok((dims, data));
        }
        Err(Fault::Shape { found: shown(&dims), wanted: shown(wanted) })
    }

    fn fail(&mut self, fault: Fault) -> Refused {
        self.fault.get_or_insert(fault);
        Refused
    }

    fn not_of_datatype(&mut self) -> Refused {
        let fault = Fault::Element { at: self.count, datatype: self.datatype };
        self.fail(fault)
    }

    /// An element that stands `level` arrays deep.
    fn stands(&mut self, level: usize) -> Result<(), Refused> {
        if *self.depth.get_or_insert(level) != level {
            let fault = Fault::Ragged(self.count);
            return Err(self.fail(fault));
        }
        Ok(())
    }

    fn put(&mut self, element: Option<&[u8]>) -> Result<(), Refused> {
        let Some(element) = element else { return Err(self.not_of_datatype()) };
        self.data.extend_from_slice(element);
        self.count += 1;
        Ok(())
    }

    fn whole(&mut self, n: i128) -> Result<(), Refused> {
        macro_rules! held {
            ($kind:ty) => {
                self.put(
                    <$kind>::try_from(n).ok().map(<$kind>::to_le_bytes).as_ref().map(|b| &b[..]),
                )
            };
        }
        match self.datatype {
            Datatype::Bool if !(0..=1).contains(&n) => self.put(None),
            Datatype::Bool | Datatype::Uint8 => held!(u8),
            Datatype::Uint16 => held!(u16),
            Datatype::Uint32 => held!(u32),
            Datatype::Uint64 => held!(u64),
            Datatype::Int8 => held!(i8),
            Datatype::Int16 => held!(i16),
            Datatype::Int32 => held!(i32),
            Datatype::Int64 => held!(i64),
            _ => self.float(n as f64),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "f64 to f32 rounds; overflow is checked")]
    fn float(&mut self, n: f64) -> Result<(), Refused> {
        match self.datatype {
            Datatype::Fp64 => self.put(Some(&n.to_le_bytes())),
            Datatype::Fp32 => {
                let n = n as f32;
                self.put(n.is_finite().then_some(&n.to_le_bytes()).map(|b| &b[..]))
            }
            Datatype::Fp16 => {
                let n = f16::from_f64(n);
                self.put(n.is_finite().then_some(&n.to_le_bytes()).map(|b| &b[..]))
            }
            Datatype::Bf16 => {
                let n = bf16::from_f64(n);
                self.put(n.is_finite().then_some(&n.to_le_bytes()).map(|b| &b[..]))
            }
            _ => self.put(None),
        }
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Refused> {
        let length = u32::try_from(text.len()).ok().filter(|_| self.datatype == Datatype::Bytes);
        let Some(length) = length else { return Err(self.not_of_datatype()) };
        self.data.extend_from_slice(&length.to_le_bytes());
        self.put(Some(text))
    }
}

/// The dimensions of a flat list: one open dimension is what the others leave.
fn flat(count: usize, wanted: &[i64]) -> Result<Dims, Fault> {
    let not = || Fault::Flat(count, shown(wanted));
    let open = wanted.iter().filter(|n| **n == -1).count();
    let fixed = wanted.iter().filter_map(|n| u64::try_from(*n).ok());
    let fixed = row::elements(fixed).filter(|n| *n > 0).ok_or_else(not)?;
    let fits = match open {
        0 => fixed == count,
        1 => count.is_multiple_of(fixed),
        _ => false,
    };
    if !fits {
        return Err(not());
    }
    let dim = |n: &i64| u64::try_from(*n).unwrap_or((count / fixed) as u64);
    Ok(wanted.iter().map(dim).collect())
}

impl Elements for TensorReader<'_> {
    fn element(&mut self, level: usize, element: Element<'_>) -> Result<(), Refused> {
        self.stands(level)?;
        match element {
            Element::Flag(value) if self.datatype == Datatype::Bool => self.whole(value.into()),
            Element::Whole(value) => self.whole(value),
            Element::Float(value) => self.float(value),
            Element::Text(text) => self.text(text.as_bytes()),
            Element::Bytes(bytes) => self.text(bytes),
            Element::Flag(_) | Element::Other => Err(self.not_of_datatype()),
        }
    }

    fn begins(&mut self, level: usize) -> Result<(), Refused> {
        // A flat list may stand for one element, too.
        if level < self.wanted.len().max(1) {
            return Ok(());
        }
        let wanted = shown(self.wanted);
        let found = format!("{} or more dimensions", level + 1);
        Err(self.fail(Fault::Shape { found, wanted }))
    }

    fn ended(&mut self, level: usize, values: u64) -> Result<(), Refused> {
        if self.lengths.len() <= level {
            self.lengths.resize(level + 1, None);
        }
        let known = self.lengths.get_mut(level).map(|known| *known.get_or_insert(values));
        if known == Some(values) { Ok(()) } else { Err(self.fail(Fault::Ragged(self.count))) }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
