//! Operations on policies.

use super::names;
use super::operation::{Change, Failure};
use crate::http::schema::Object;
use clipper_domain::{Command, PolicyParameters, PolicySpec};

pub(super) const SET_SCHEMA: &str = r#"
  {
   "app_name" := string,
   "policy" := string,
   "parameters" := object (optional)
  }
"#;

/// What the parameters have to be is checked where the change is decided.
pub(super) fn set(body: &Object<'_>) -> Result<Change, Failure> {
    let app = names::app(&body.string("app_name")?)?;
    let name = body.string("policy")?.into_owned();
    let parameters = body.get("parameters").map_or("{}", |parameters| parameters.get());
    let parameters: PolicyParameters = serde_json::from_str(parameters).map_err(|_| {
        Failure::Refused("parameters: it must be an object, such as {\"explore\": 0.1}".to_owned())
    })?;
    let done = format!("Successfully set policy of application '{app}' to '{name}'");
    Ok(Change {
        command: Command::SetPolicy { app, policy: PolicySpec { name, parameters } },
        done,
    })
}
