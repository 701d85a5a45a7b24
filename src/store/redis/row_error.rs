//! What can be wrong with an entry of the tables.

use std::fmt;

/// In words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Of another type of Redis than this.
    #[error("its type is not {0}")]
    NotA(&'static str),
    /// Links of an application that is not defined.
    #[error("there is no application of that name")]
    NoApplication,
    /// A part that has to be there.
    #[error("it has no field {0}")]
    NoField(String),
    /// The key, a field or a member.
    #[error("{0} is not UTF-8")]
    NotText(String),
    /// Of a model version.
    #[error("the key is not NAME:VERSION")]
    NotAVersion,
    /// A text that means nothing there.
    #[error("{what}: {why}")]
    Meaningless {
        what: String,
        /// Why it means nothing.
        why: String,
    },
    /// The text of something that is counted.
    #[error("{0:?} is no whole number")]
    NotANumber(String),
    /// A field that repeats a part of the key says something else.
    #[error("{field} is {value:?}, in the key {key:?}")]
    NotAsInKey {
        field: &'static str,
        value: String,
        /// What the key says.
        key: String,
    },
    /// A part of it, in the words of whoever reads that.
    #[error("{0}")]
    Invalid(String),
}

impl RowError {
    /// For `map_err`.
    pub(super) fn invalid(why: impl fmt::Display) -> Self {
        Self::Invalid(why.to_string())
    }

    /// For `map_err`.
    pub(super) fn of<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |why| Self::Meaningless { what: what.to_string(), why: why.to_string() }
    }
}
