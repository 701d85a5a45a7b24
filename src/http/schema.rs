//! JSON bodies to typed members, with the error texts that clients of the original know.
//!
//! Where those do not say which member, what was expected and what was found, ours do. A body is
//! not turned into a tree: members stay slices of it until asked for, so that memory stays near the
//! size of the body whatever it holds.

use std::borrow::Cow;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects in a body.
pub const DEPTH_MAX: usize = 128;

/// Characters of a name that nobody knows that its refusal shows.
const SHOWN_CHARS: usize = 100;

/// Most members of a body's object; every known request has fewer than ten.
pub const MEMBERS_MAX: usize = 64;

/// Why a body is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON; holds the result of [`rapidjson_phrase`].
    #[error("JSON parse error: {0}\n")]
    Syntax(String),
    /// JSON, but not an object.
    #[error("Can only get key-value pair from an object")]
    NotAnObject,
    /// A member that nobody knows, where passing over it would change more than was meant.
    #[error("JSON object has an unknown key: {0}")]
    Unknown(String),
    /// A member is missing.
    #[error("JSON object does not have required key: {0}")]
    Missing(&'static str),
    /// A member of another type.
    #[error("Type mismatch! JSON key {key} expected type {expected} but found type {found}")]
    Type { key: &'static str, expected: &'static str, found: &'static str },
    /// A member that should be true or false.
    #[error("Type mismatch! JSON key {key} expected type bool but found type {found}")]
    NotBool { key: &'static str, found: &'static str },
    /// A number of another kind, such as 1.5 for an int.
    #[error(
        "Type mismatch! JSON key {key} expected a whole number of {bits} bits but found {found}"
    )]
    NumberKind {
        key: &'static str,
        /// The size of what was wanted.
        bits: u32,
        /// The number, its beginning if it is long.
        found: String,
    },
    /// An element of an array of another type.
    #[error(
        "Type mismatch! JSON key {key}, element {index}, expected type {expected} but found type \
         {found}"
    )]
    Element {
        key: &'static str,
        /// Its place in the array.
        index: usize,
        found: &'static str,
        expected: &'static str,
    },
}

/// The text sent for a [`SchemaError`].
#[must_use]
pub fn explain(error: &SchemaError, schema: &str) -> String {
    format!("Error parsing JSON: {error}. Expected JSON schema: {schema}")
}

/// The type of a JSON value, in the original's words.
#[must_use]
pub fn type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'n') => "Null",
        Some(b'f') => "False",
        Some(b't') => "True",
        Some(b'{') => "Object",
        Some(b'[') => "Array",
        Some(b'"') => "String",
        _ => "Number",
    }
}

/// A JSON object whose members are still text. Of two members with one name the first counts, as in
/// the original.
#[derive(Debug)]
pub struct Object<'a> {
    body: &'a [u8],
    members: MemberList<'a>,
}

#[derive(Debug)]
struct MemberList<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for MemberList<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = MemberList<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((MemberName(key), value)) = map.next_entry()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom(TOO_MANY_MEMBERS));
                    }
                    members.push((key, value));
                }
                Ok(MemberList(members))
            }
        }
        from.deserialize_map(InOrder)
    }
}

/// A member's name, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

const TOO_MANY_MEMBERS: &str = "Too many members in an object";

impl<'a> Object<'a> {
    /// Refuses members that `schema` does not name, as `"NAME" :=`.
    ///
    /// # Errors
    /// The first of them.
    pub fn only_of(&self, schema: &str) -> Result<(), SchemaError> {
        let is_named = |name: &str| schema.contains(&format!("\"{name}\" :="));
        let unknown = self.members.0.iter().find(|(name, _)| !is_named(name));
        unknown.map_or(Ok(()), |(name, _)| {
            Err(SchemaError::Unknown(name.chars().take(SHOWN_CHARS).collect()))
        })
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Not UTF-8, not JSON, nested deeper than [`DEPTH_MAX`], not an object, or more than
    /// [`MEMBERS_MAX`] members.
    pub fn parse(body: &'a [u8]) -> Result<Self, SchemaError> {
        let text = std::str::from_utf8(body).map_err(|broken| {
            SchemaError::Syntax(at("Invalid UTF-8 encoding.", broken.valid_up_to()))
        })?;
        if let Some(offset) = too_deep_at(body) {
            let phrase = format!("Nested deeper than {DEPTH_MAX} levels.");
            return Err(SchemaError::Syntax(at(&phrase, offset)));
        }
        let syntax = |error: serde_json::Error| SchemaError::Syntax(rapidjson_phrase(&error, body));
        if text.trim_start_matches(JSON_SPACE).starts_with('{') {
            let members = serde_json::from_str(text).map_err(syntax)?;
            return Ok(Self { body, members });
        }
        serde_json::from_str::<&RawValue>(text).map_err(syntax)?;
        Err(SchemaError::NotAnObject)
    }

    /// A member, if it is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.members.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// A member other than these.
    #[must_use]
    pub fn other_than(&self, known: &[&str]) -> Option<&str> {
        let mut names = self.members.0.iter().map(|(name, _)| &**name);
        names.find(|name| !known.contains(name))
    }

    fn required(&self, key: &'static str) -> Result<&'a RawValue, SchemaError> {
        self.get(key).ok_or(SchemaError::Missing(key))
    }

    fn typed(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<&'a RawValue, SchemaError> {
        let value = self.required(key)?;
        match type_name(value) {
            found if found == expected => Ok(value),
            found => Err(SchemaError::Type { key, expected, found }),
        }
    }

    /// A text member.
    ///
    /// # Errors
    /// It is missing, of another type, or holds a broken escape.
    pub fn string(&self, key: &'static str) -> Result<Cow<'a, str>, SchemaError> {
        self.decode(self.typed(key, "String")?)
    }

    /// A member that may be missing, read as `read` does if it is there.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Self, &'static str) -> Result<T, SchemaError>,
    ) -> Result<Option<T>, SchemaError> {
        self.get(key).map(|_| read(self, key)).transpose()
    }

    /// A member that is an array of texts.
    ///
    /// # Errors
    /// It is missing, of another type, or an element is not a text.
    pub fn strings(&self, key: &'static str) -> Result<Vec<Cow<'a, str>>, SchemaError> {
        let array = self.typed(key, "Array")?;
        let elements: Vec<&'a RawValue> =
            serde_json::from_str(array.get()).map_err(|error| self.syntax(array, &error))?;
        let text = |(index, element)| match type_name(element) {
            "String" => self.decode(element),
            found => Err(SchemaError::Element { key, index, found, expected: "String" }),
        };
        elements.into_iter().enumerate().map(text).collect()
    }

    /// A true or false member.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub fn bool(&self, key: &'static str) -> Result<bool, SchemaError> {
        match type_name(self.required(key)?) {
            "True" => Ok(true),
            "False" => Ok(false),
            found => Err(SchemaError::NotBool { key, found }),
        }
    }

    /// A whole number of 32 bits, as the original reads every number.
    ///
    /// # Errors
    /// It is missing, of another type, has a fraction or exponent, or does not fit.
    pub fn int(&self, key: &'static str) -> Result<i32, SchemaError> {
        self.whole(key, i32::BITS)
    }

    /// A whole number of 64 bits.
    ///
    /// # Errors
    /// As for [`Self::int`].
    pub fn integer(&self, key: &'static str) -> Result<i64, SchemaError> {
        self.whole(key, i64::BITS)
    }

    fn whole<T: FromStr>(&self, key: &'static str, bits: u32) -> Result<T, SchemaError> {
        let number = self.typed(key, "Number")?.get();
        number.parse().map_err(|_| {
            let found = number.chars().take(NUMBER_SHOWN_MAX).collect();
            SchemaError::NumberKind { key, bits, found }
        })
    }

    fn decode(&self, text: &'a RawValue) -> Result<Cow<'a, str>, SchemaError> {
        let MemberName(decoded) =
            serde_json::from_str(text.get()).map_err(|error| self.syntax(text, &error))?;
        Ok(decoded)
    }

    /// The phrase for an error inside one value, with its offset in the whole body.
    fn syntax(&self, value: &RawValue, error: &serde_json::Error) -> SchemaError {
        let value = value.get().as_bytes();
        let before = value.as_ptr().addr().saturating_sub(self.body.as_ptr().addr());
        let (phrase, offset) = locate(error, value);
        SchemaError::Syntax(at(phrase, before + offset))
    }
}

/// Characters of a number that an error repeats.
const NUMBER_SHOWN_MAX: usize = 32;

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Where nesting first exceeds [`DEPTH_MAX`].
fn too_deep_at(body: &[u8]) -> Option<usize> {
    let mut depth: usize = 0;
    let mut deep = None;
    outside_strings(body, |offset, byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX && deep.is_none() {
            deep = Some(offset);
        }
    });
    deep
}

/// Calls `visit` for each byte that is not within a string literal.
fn outside_strings(body: &[u8], mut visit: impl FnMut(usize, u8)) {
    let mut in_string = false;
    let mut escaped = false;
    for (offset, &byte) in body.iter().enumerate() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (true, _) => {}
            (false, _) => visit(offset, byte),
        }
    }
}

/// What is wrong with `body`, in the words and offsets of the original's parser, such as
/// `Invalid value. (offset 9)`. `error` is what parsing `body` gave.
#[must_use]
pub fn rapidjson_phrase(error: &serde_json::Error, body: &[u8]) -> String {
    let (phrase, offset) = locate(error, body);
    at(phrase, offset)
}

fn at(phrase: &str, offset: usize) -> String {
    format!("{phrase} (offset {offset})")
}

const INVALID_VALUE: &str = "Invalid value.";
const NAME: &str = "Missing a name for object member.";
const COLON: &str = "Missing a colon after a name of object member.";
const OBJECT_COMMA: &str = "Missing a comma or } after an object member.";
const ARRAY_COMMA: &str = "Missing a comma or ] after an array element.";

/// `serde_json` tells its error kinds apart only by text; this is the one place that reads it.
const PHRASES: [(&str, &str); 18] = [
    ("EOF while parsing a string", "Missing a closing quotation mark in string."),
    ("EOF while parsing a list", ARRAY_COMMA),
    ("EOF while parsing a value", INVALID_VALUE),
    ("expected value", INVALID_VALUE),
    ("expected ident", INVALID_VALUE),
    ("expected `:`", COLON),
    ("expected `,` or `}`", OBJECT_COMMA),
    ("expected `,` or `]`", ARRAY_COMMA),
    ("key must be a string", NAME),
    ("trailing characters", "The document root must not be followed by other values."),
    ("invalid escape", "Invalid escape character in string."),
    ("control character", "Invalid control character in string."),
    ("lone leading surrogate", "The surrogate pair in string is invalid."),
    ("unexpected end of hex escape", "The surrogate pair in string is invalid."),
    ("invalid unicode code point", "Invalid encoding in string."),
    ("number out of range", "Number too big to be stored in double."),
    ("invalid number", INVALID_VALUE),
    (TOO_MANY_MEMBERS, "Too many members in an object."),
];

fn locate(error: &serde_json::Error, body: &[u8]) -> (&'static str, usize) {
    if body.iter().all(u8::is_ascii_whitespace) {
        return ("The document is empty.", body.len());
    }
    let text = error.to_string();
    let offset = if error.is_eof() { body.len() } else { offset_of(error, body) };
    if text.starts_with("EOF while parsing an object") {
        return (end_of_object(body), offset);
    }
    if text.starts_with("trailing comma") {
        let in_object = body.get(offset) == Some(&b'}');
        return (if in_object { NAME } else { INVALID_VALUE }, offset);
    }
    let known = PHRASES.iter().find(|(prefix, _)| text.starts_with(prefix));
    let phrase = known.map_or("Invalid JSON.", |(_, phrase)| *phrase);
    if text.starts_with("number out of range") {
        return (phrase, start_of_number(body, offset));
    }
    (phrase, offset)
}

/// Byte offset of the character that `error` complains about: line and column count from 1.
fn offset_of(error: &serde_json::Error, body: &[u8]) -> usize {
    let newlines = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let line_start = match error.line().checked_sub(2) {
        None => 0,
        Some(nth) => newlines.map(|(offset, _)| offset + 1).nth(nth).unwrap_or(0),
    };
    (line_start + error.column()).saturating_sub(1).min(body.len())
}

fn start_of_number(body: &[u8], offset: usize) -> usize {
    let part_of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let before = body.get(..offset).unwrap_or(body);
    before.len() - before.iter().rev().take_while(|byte| part_of_number(byte)).count()
}

/// What an object that ends too early was waiting for.
fn end_of_object(body: &[u8]) -> &'static str {
    let mut last_mark = (0, b'{');
    outside_strings(body, |offset, byte| {
        if b"{}[]:,".contains(&byte) {
            last_mark = (offset, byte);
        }
    });
    let (offset, mark) = last_mark;
    let more = body.get(offset + 1..).is_some_and(|rest| !rest.trim_ascii().is_empty());
    match mark {
        b'{' | b',' if more => COLON,
        b'{' | b',' => NAME,
        _ => OBJECT_COMMA,
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
