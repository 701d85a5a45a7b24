//! Operations on policies.

use serde_json::value::RawValue;

use super::names;
use super::operation::{Change, Failure, optional};
use crate::http::schema::{Object, type_name};
use clipper_domain::printable::is_deceptive;
use clipper_domain::{Command, PolicyParameters, PolicySpec};

pub(super) const SET_SCHEMA: &str = r#"
  {
   "app_name" := string,
   "policy" := string,
   "parameters" := object (optional)
  }
"#;

const MEMBERS: &[&str] = &["app_name", "policy", "parameters"];

/// What the parameters have to be is checked where the change is decided.
pub(super) fn set(body: &Object<'_>) -> Result<Change, Failure> {
    let app = names::app(&body.string("app_name")?)?;
    let name = body.string("policy")?.into_owned();
    if let Some(other) = body.other_than(MEMBERS) {
        // Most likely a parameter in the wrong place: it must not be lost in silence.
        let other: String = other.chars().filter(|c| !is_deceptive(*c)).take(80).collect();
        let why = format!("{other}: there is no such member; a policy's are in \"parameters\"");
        return Err(Failure::Refused(why));
    }
    let parameters = body.get("parameters").map_or(Ok(PolicyParameters::new()), read_parameters)?;
    let done = format!("Successfully set policy of application '{app}' to '{name}'");
    Ok(Change {
        command: Command::SetPolicy { app, policy: PolicySpec { name, parameters } },
        done,
    })
}

/// The policy of a request that may be about other things only.
pub(super) fn optional_policy(body: &Object<'_>) -> Result<Option<PolicySpec>, Failure> {
    let parameters = body.get("parameters").map(read_parameters).transpose()?;
    match (optional(body, "policy", Object::string)?, parameters) {
        (Some(name), parameters) => Ok(Some(PolicySpec {
            name: name.into_owned(),
            parameters: parameters.unwrap_or_default(),
        })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(Failure::Refused("parameters say nothing without policy".to_owned()))
        }
    }
}

fn read_parameters(value: &RawValue) -> Result<PolicyParameters, Failure> {
    serde_json::from_str(value.get()).map_err(|error| {
        Failure::Refused(if type_name(value) == "Object" {
            format!("parameters: {error}")
        } else {
            "parameters: it must be an object, such as {\"explore\": 0.1}".to_owned()
        })
    })
}
