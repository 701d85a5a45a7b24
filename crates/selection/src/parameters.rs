//! A policy's parameters, read one by one; every refusal names the parameter.

use std::collections::BTreeSet;

use clipper_domain::{ModelName, PolicyParameters};
use serde_json::Value;

/// What is wrong with a policy or one of its parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ParameterError {
    /// Which; `policy` is the policy's name.
    pub field: String,
    pub problem: ParameterProblem,
}

/// What can be wrong with a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterProblem {
    /// There is no such policy.
    #[error("there is no policy '{name}'; there are {}", .known.join(", "))]
    UnknownPolicy {
        /// As it was written.
        name: String,
        known: Vec<&'static str>,
    },
    /// The policy has no such parameter.
    #[error("the policy has no such parameter; it has {}", listed(.known))]
    UnknownParameter {
        /// Those that it has.
        known: Vec<&'static str>,
    },
    /// The policy needs it.
    #[error("it is missing: {0}")]
    Missing(&'static str),
    /// Another JSON type, or outside of its range.
    #[error("it must be {expected}, not {found}")]
    Value {
        /// What it has to be.
        expected: String,
        /// As it was written, shortened.
        found: String,
    },
    /// It is right by itself, and does not go with another.
    #[error("{0}")]
    Contradicts(String),
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Longest piece of a refused value that is shown, characters.
const SHOWN_CHARS_MAX: usize = 80;
/// The most models that a parameter may name.
pub const MODELS_MAX: usize = 64;

/// The parameters of a policy while they are read.
#[derive(Debug)]
pub struct ParameterReader<'p> {
    given: &'p PolicyParameters,
    known: Vec<&'static str>,
}

impl<'p> ParameterReader<'p> {
    #[must_use]
    pub fn new(given: &'p PolicyParameters) -> Self {
        Self { given, known: Vec::new() }
    }

    fn get(&mut self, field: &'static str) -> Option<&'p Value> {
        self.known.push(field);
        self.given.get(field)
    }

    /// A number from `min` to `max`.
    ///
    /// # Errors
    /// Another value.
    pub fn number(
        &mut self,
        field: &'static str,
        min: f64,
        max: f64,
    ) -> Result<Option<f64>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64().filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(refused(field, value, &format!("a number from {min} to {max}"))),
        }
    }

    /// A whole number from `min` to `max`.
    ///
    /// # Errors
    /// Another value.
    pub fn whole(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(refused(field, value, &format!("a whole number from {min} to {max}"))),
        }
    }

    /// One of `names`: its index.
    ///
    /// # Errors
    /// Another value.
    pub fn one_of(
        &mut self,
        field: &'static str,
        names: &[&str],
    ) -> Result<Option<usize>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let index = value.as_str().and_then(|text| names.iter().position(|name| *name == text));
        match index {
            Some(index) => Ok(Some(index)),
            None => Err(refused(field, value, &format!("one of '{}'", names.join("', '")))),
        }
    }

    /// What `parse` makes of the value; `expected` says what it has to be.
    ///
    /// # Errors
    /// Another value.
    pub fn parsed<T>(
        &mut self,
        field: &'static str,
        expected: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| refused(field, value, expected))
    }

    /// The name of a model.
    ///
    /// # Errors
    /// Another value.
    pub fn model(&mut self, field: &'static str) -> Result<Option<ModelName>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        model_name(value).map(Some).ok_or_else(|| refused(field, value, "the name of a model"))
    }

    /// Names of models, each once.
    ///
    /// # Errors
    /// Another value.
    pub fn models(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Vec<ModelName>>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let wanted = || refused(field, value, "a list of names of models, each once");
        let names = value.as_array().filter(|names| (1..=MODELS_MAX).contains(&names.len()));
        let names: Option<Vec<ModelName>> =
            names.ok_or_else(wanted)?.iter().map(model_name).collect();
        let names = names.ok_or_else(wanted)?;
        let unique: BTreeSet<&ModelName> = names.iter().collect();
        if unique.len() < names.len() { Err(wanted()) } else { Ok(Some(names)) }
    }

    /// A weight for each model that is named, as an object; at least one is positive.
    ///
    /// # Errors
    /// Another value.
    pub fn weights(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Vec<(ModelName, f64)>>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        read_weights(field, value).map(Some)
    }

    /// Either one of `names`, as [`Self::one_of`], or as [`Self::weights`].
    ///
    /// # Errors
    /// Another value.
    pub fn name_or_weights(
        &mut self,
        field: &'static str,
        names: &[&str],
    ) -> Result<Option<NameOrWeights>, ParameterError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        if value.is_object() {
            return read_weights(field, value).map(|it| Some(NameOrWeights::Weights(it)));
        }
        let index = value.as_str().and_then(|text| names.iter().position(|name| *name == text));
        index.map(|index| Some(NameOrWeights::Name(index))).ok_or_else(|| {
            let expected =
                format!("one of '{}' or an object of models and weights", names.join("', '"));
            refused(field, value, &expected)
        })
    }

    /// After the last one.
    ///
    /// # Errors
    /// A parameter that was not asked for.
    pub fn finish(self) -> Result<(), ParameterError> {
        match self.given.keys().find(|key| !self.known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let problem = ParameterProblem::UnknownParameter { known: self.known };
                Err(ParameterError { field: shortened(key), problem })
            }
        }
    }
}

/// What [`ParameterReader::name_or_weights`] reads.
#[derive(Debug)]
pub enum NameOrWeights {
    /// The index of the name.
    Name(usize),
    Weights(Vec<(ModelName, f64)>),
}

fn read_weights(field: &str, value: &Value) -> Result<Vec<(ModelName, f64)>, ParameterError> {
    let wanted = "an object of models and weights from 0 to 1000000, at least one above 0";
    let read = || {
        let members = value.as_object().filter(|members| members.len() <= MODELS_MAX)?;
        let weight = |(name, weight): (&String, &Value)| {
            let weight = weight.as_f64().filter(|weight| (0.0..=1e6).contains(weight))?;
            Some((ModelName::parse(name).ok()?, weight))
        };
        let weights: Vec<_> = members.iter().map(weight).collect::<Option<_>>()?;
        weights.iter().any(|(_, weight)| *weight > 0.0).then_some(weights)
    };
    read().ok_or_else(|| refused(field, value, wanted))
}

fn model_name(value: &Value) -> Option<ModelName> {
    ModelName::parse(value.as_str()?).ok()
}

fn refused(field: &str, value: &Value, expected: &str) -> ParameterError {
    let problem = ParameterProblem::Value {
        expected: expected.to_owned(),
        found: shortened(&value.to_string()),
    };
    ParameterError { field: field.to_owned(), problem }
}

/// An error of a parameter that is missing.
pub(crate) fn missing(field: &str, what: &'static str) -> ParameterError {
    ParameterError { field: field.to_owned(), problem: ParameterProblem::Missing(what) }
}

/// An error of a parameter that does not go with another.
pub(crate) fn contradicts(field: &str, why: String) -> ParameterError {
    ParameterError { field: field.to_owned(), problem: ParameterProblem::Contradicts(why) }
}

pub(crate) fn shortened(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() { format!("{shown}...") } else { shown }
}
