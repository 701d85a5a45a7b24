//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueOrigin {
    /// A line of the file, from 1; `None` = the file as a whole.
    File(PathBuf, Option<usize>),
    Env(String),
    /// A command-line flag, with its dashes.
    Flag(String),
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, Some(line)) => write!(f, "{}:{line}", file.display()),
            Self::File(file, None) => write!(f, "{}", file.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub origin: ValueOrigin,
    /// The key, such as `http.body_max_bytes` or `model[0].container.path`; empty for the file.
    pub key: String,
    /// What is wrong and what is accepted.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl Serialize for Fault {
    /// `{"source": "FILE" or a variable or a flag, "line": N or null, "key": .., "problem": ..}`
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            source: String,
            line: Option<usize>,
            key: &'a str,
            problem: &'a str,
        }
        let (source, line) = match &self.origin {
            ValueOrigin::File(file, line) => (file.display().to_string(), *line),
            ValueOrigin::Env(name) | ValueOrigin::Flag(name) => (name.clone(), None),
        };
        Flat { source, line, key: &self.key, problem: &self.problem }.serialize(to)
    }
}

/// Everything that is wrong, in the order of the file, then the environment, then the flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(transparent)]
pub struct ConfigFaults(pub Vec<Fault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
