//! What a policy says of itself, and what it is made for.

use clipper_domain::ModelName;

use super::parameters::{ParameterError, ParameterReader};
use super::policy::SelectionPolicy;
use super::value::OutputKind;

/// What a policy is made for.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    pub output: OutputKind,
    /// The application's models by name. A parameter may name others: they are not linked yet.
    pub models: &'a [ModelName],
}

impl Binding<'_> {
    /// The place of a model.
    #[must_use]
    pub fn arm(&self, model: &ModelName) -> Option<usize> {
        self.models.iter().position(|name| name == model)
    }
}

/// Reads a policy's own parameters.
pub(crate) type Build =
    fn(&mut ParameterReader<'_>, &Binding<'_>) -> Result<Box<dyn SelectionPolicy>, ParameterError>;

/// A policy that an application may have.
#[derive(Debug, Clone, Copy)]
pub struct PolicyKind {
    /// Its name, as users write it.
    pub name: &'static str,
    /// What it does and when it is the one to take.
    pub summary: &'static str,
    /// Its own parameters and what they are, besides those that all have.
    pub parameters: &'static [(&'static str, &'static str)],
    pub(crate) build: Build,
}
