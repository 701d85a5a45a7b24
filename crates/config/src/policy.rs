//! `[application.policy]`: the policy that chooses among an application's models.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use clipper_domain::{PolicyParameters, PolicySpec};
use clipper_selection::bound::BoundPolicy;
use clipper_selection::parameters::ParameterError;

/// A policy's name, and beside it what is set of its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyConfig {
    /// Which policy.
    pub name: String,
    /// Its parameters by name.
    #[serde(flatten)]
    pub parameters: PolicyParameters,
}

impl PolicyConfig {
    /// As applications have it.
    #[must_use]
    pub fn spec(&self) -> PolicySpec {
        PolicySpec { name: self.name.clone(), parameters: self.parameters.clone() }
    }

    /// Checks the table; a fault comes with the key that it is about.
    pub(super) fn check(table: &Table) -> Result<(), (String, String)> {
        let name = || "name".to_owned();
        let policy: Self = Value::Table(table.clone())
            .try_into()
            .map_err(|_| (name(), "missing; expected the name of a policy".to_owned()))?;
        BoundPolicy::check(&policy.spec()).map_err(|ParameterError { field, problem }| {
            (if field == "policy" { name() } else { field }, problem.to_string())
        })
    }
}
