//! Texts of a request to names and types, refused with the rule they break.

use super::operation::Failure;
use crate::http::errors::shown;
use clipper_domain::{AppName, InputType, InvalidName, KeyName, Label, ModelName, ModelVersion};

fn checked<T>(
    what: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, InvalidName>,
) -> Result<T, Failure> {
    parse(text).map_err(|rule| {
        let shown = shown(text);
        Failure::Refused(match rule {
            InvalidName::KeySeparator => format!("Invalid {what} supplied: {shown}. {rule}"),
            _ => format!("Invalid {what} supplied: '{shown}': {rule}"),
        })
    })
}

pub(super) fn app(text: &str) -> Result<AppName, Failure> {
    checked("application name", text, AppName::parse)
}

pub(super) fn model(text: &str) -> Result<ModelName, Failure> {
    checked("model name", text, ModelName::parse)
}

pub(super) fn version(text: &str) -> Result<ModelVersion, Failure> {
    checked("model version", text, ModelVersion::parse)
}

pub(super) fn label(text: &str) -> Result<Label, Failure> {
    checked("label", text, Label::parse)
}

pub(super) fn key(text: &str) -> Result<KeyName, Failure> {
    checked("key name", text, KeyName::parse)
}

pub(super) fn input_type(text: &str) -> Result<InputType, Failure> {
    InputType::parse(text).ok_or_else(|| {
        let accepted = InputType::ALL.map(InputType::long_name).join(", ");
        Failure::Refused(format!(
            "Invalid input type supplied: '{}'. Accepted, in any case: {accepted}",
            shown(text)
        ))
    })
}

/// A default output within its limit.
pub(super) fn default_output(text: String) -> Result<String, Failure> {
    clipper_domain::default_output(text).map_err(Failure::of)
}
