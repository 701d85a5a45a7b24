//! What is declared of a key.

use super::rule::Rule;

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub rule: Rule,
    /// Whether its table is faulty without it.
    pub required: bool,
    /// What it is for: the lines above it in `config/default.toml`.
    pub doc: &'static [&'static str],
    /// The flag of `clipper serve` that sets it.
    pub flag: Option<Flag>,
}

/// A flag of `clipper serve`; with underscores and capitals, `CLIPPER_` before it, also a variable.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Without the dashes before it.
    pub name: &'static str,
    /// What its value looks like.
    pub value: &'static str,
}

impl Flag {
    #[must_use]
    pub fn variable(&self) -> String {
        format!("CLIPPER_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

pub(super) const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule, required: false, doc: &[], flag: None }
}

pub(super) const fn needed(name: &'static str, rule: Rule) -> Key {
    Key { required: true, ..key(name, rule) }
}
