//! The elements of nested JSON arrays, one after the other, to whoever takes them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element<'e> {
    Flag(bool),
    Whole(i128),
    Float(f64),
    Text(&'e str),
    /// `{"b64": "..."}`: bytes that are no text.
    Bytes(&'e [u8]),
    /// `null`, or another object.
    Other,
}

/// The reading ends. Why is kept by whoever refuses: serde's errors cannot carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// What takes elements and hears of the arrays around them.
pub trait Elements {
    /// An element stands `level` arrays deep.
    ///
    /// # Errors
    /// It is not taken.
    fn element(&mut self, level: usize, element: Element<'_>) -> Result<(), Refused>;

    /// An array begins that stands `level` arrays deep.
    ///
    /// # Errors
    /// It is not taken.
    fn begins(&mut self, level: usize) -> Result<(), Refused>;

    /// It has ended, with so many values.
    ///
    /// # Errors
    /// They are not taken.
    fn ended(&mut self, level: usize, values: u64) -> Result<(), Refused>;
}

/// Reads a value that stands `level` arrays deep.
pub struct Level<'t, T> {
    to: &'t mut T,
    level: usize,
}

impl<'t, T: Elements> Level<'t, T> {
    /// The outermost value.
    pub fn outermost(to: &'t mut T) -> Self {
        Self { to, level: 0 }
    }

    fn put<E: Error>(self, element: Element<'_>) -> Result<(), E> {
        self.to.element(self.level, element).map_err(refused)
    }
}

fn refused<E: Error>(_: Refused) -> E {
    E::custom("refused")
}

impl<'de, T: Elements> DeserializeSeed<'de> for Level<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Elements> Visitor<'de> for Level<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elements of a tensor")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.put(Element::Flag(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put(Element::Whole(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put(Element::Whole(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.put(Element::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.put(Element::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.put(Element::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let member = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()?;
        let bytes = member.filter(|(name, _)| name == "b64");
        let bytes = bytes.and_then(|(_, text)| STANDARD.decode(text.as_bytes()).ok());
        self.put(bytes.as_deref().map_or(Element::Other, Element::Bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { to, level } = self;
        to.begins(level).map_err(refused)?;
        let mut values = 0;
        while seq.next_element_seed(Level { to, level: level + 1 })?.is_some() {
            values += 1;
        }
        to.ended(level, values).map_err(refused)
    }
}
