//! Names and identifiers, checked once where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest accepted name, version or label, in bytes.
pub const NAME_MAX_BYTES: usize = 256;

/// Why a text cannot be a name: it would break a Redis key (`,` `:`), a URL (`/`), or a log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("it is empty")]
    Empty,
    /// More than [`NAME_MAX_BYTES`] bytes.
    #[error("it is {0} bytes long; the limit is {NAME_MAX_BYTES}")]
    TooLong(usize),
    /// `,` or `:`, the separators of the Redis keys (docs/redis.md).
    #[error("Contains one of: ',', ':'")]
    KeySeparator,
    /// `/`, the separator of URLs; also `.` and `..`, which URL normalisation removes.
    #[error("it contains '/' or is '.' or '..', which a URL path cannot carry")]
    UrlSeparator,
    #[error("it contains a control character")]
    Control,
}

fn check(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > NAME_MAX_BYTES {
        return Err(InvalidName::TooLong(text.len()));
    }
    if text.contains([',', ':']) {
        return Err(InvalidName::KeySeparator);
    }
    if text.contains('/') || text == "." || text == ".." {
        return Err(InvalidName::UrlSeparator);
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidName::Control);
    }
    Ok(())
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rules of [`InvalidName`].
            ///
            /// # Errors
            /// The first rule that `text` breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

checked_name!(
    /// The name of an application: the first segment of `/{app}/predict`.
    AppName
);
checked_name!(
    /// The name of a model, shared by all its versions.
    ModelName
);
checked_name!(
    /// A version of a model: any short text, not only numbers.
    ModelVersion
);
checked_name!(
    /// A label an operator attached to a model version.
    Label
);
checked_name!(
    /// The name of a key, by which people and the journal know who holds it.
    KeyName
);

/// One version of one model; shown as `name:version`, its Redis key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelId {
    pub name: ModelName,
    pub version: ModelVersion,
}

impl ModelId {
    /// Joins two checked parts.
    #[must_use]
    pub fn new(name: ModelName, version: ModelVersion) -> Self {
        Self { name, version }
    }

    /// Reads what its display shows.
    ///
    /// # Errors
    /// There is no `:`, or a part is no name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        // A name has no `:`; without one, the version is empty and refused.
        let (name, version) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self::new(ModelName::parse(name)?, ModelVersion::parse(version)?))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

/// A replica's number within its model version: from 0, never reused while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u32);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_a_key_a_url_or_a_log_are_refused() {
        let cases = [
            ("", InvalidName::Empty),
            ("a,b", InvalidName::KeySeparator),
            ("a:b", InvalidName::KeySeparator),
            ("a/b", InvalidName::UrlSeparator),
            ("..", InvalidName::UrlSeparator),
            ("a\nb", InvalidName::Control),
            ("a\0b", InvalidName::Control),
        ];
        for (text, why) in cases {
            assert_eq!(AppName::parse(text), Err(why), "{text:?}");
        }
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        assert_eq!(ModelName::parse(&long), Err(InvalidName::TooLong(NAME_MAX_BYTES + 1)));
        for text in ["digits", "a b", "模型", "v1.2-rc+3", &long[1..]] {
            assert_eq!(AppName::parse(text).map(String::from), Ok(text.to_owned()));
        }
    }
}
