//! Limits in the bodies of requests.

use super::operation::Failure;
use crate::http::errors::shown;
use crate::http::schema::{Object, SchemaError};
use clipper_domain::Limits;
use clipper_domain::limits::Class;

/// The member `limits`, if it is there.
pub(super) fn optional(body: &Object<'_>) -> Result<Option<Limits>, Failure> {
    body.get("limits").map(|value| read(value.get().as_bytes())).transpose()
}

/// The member `limits`, which has to be there.
pub(super) fn required(body: &Object<'_>) -> Result<Limits, Failure> {
    optional(body)?.ok_or(Failure::Schema(SchemaError::Missing("limits")))
}

fn read(text: &[u8]) -> Result<Limits, Failure> {
    let refused = |why: String| Failure::Refused(format!("limits: {why}"));
    let limits = Object::parse(text).map_err(|error| refused(error.to_string()))?;
    if let Some(other) = limits.other_than(&Limits::NAMES) {
        let known = Limits::NAMES.join(", ");
        return Err(refused(format!("there is none with name '{}': {known}", shown(other))));
    }
    let number =
        |name| limits.optional(name, Object::integer).map_err(|error| refused(error.to_string()));
    let priority = limits.optional("priority", Object::string);
    let priority = priority.map_err(|error| refused(error.to_string()))?.map(|name| {
        let none = || refused(format!("priority must be one of {}", Class::NAMES.join(", ")));
        Class::parse(&name).ok_or_else(none)
    });
    let numbers = [number("rate")?, number("burst")?, number("concurrent")?, number("body_bytes")?];
    Limits::of(numbers, priority.transpose()?).map_err(|error| refused(error.to_string()))
}
