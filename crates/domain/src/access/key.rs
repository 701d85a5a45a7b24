//! One key.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::identity::KnownBy;
use super::pattern::Pattern;
use super::role::{Action, Role};
use crate::ids::KeyName;
use crate::limits::Limits;

/// Keys that a server knows; far above what people can tell apart.
pub const KEYS_MAX: usize = 10_000;

/// SHA-256 of a secret; hexadecimal in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let value = |digit: u8| char::from(digit).to_digit(16);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A text is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 hexadecimal digits")]
pub struct InvalidHash;

impl TryFrom<String> for SecretHash {
    type Error = InvalidHash;
    fn try_from(text: String) -> Result<Self, InvalidHash> {
        Self::parse(&text).ok_or(InvalidHash)
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key: its holder may do what its role may, for the applications and models of its pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    pub name: KeyName,
    pub role: Role,
    /// The applications, or for a container the models.
    #[serde(default, skip_serializing_if = "Pattern::is_everything")]
    pub only: Pattern,
    /// Unix milliseconds from which it is no good any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// By what its holder is known.
    #[serde(default, skip_serializing_if = "KnownBy::is_secret")]
    pub known_by: KnownBy,
    /// Of its secret, which nobody but its holder has, or of what stands in its place.
    pub hash: SecretHash,
    /// Of the one before, while holders change over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousSecret>,
    /// How much its holder may ask for.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// A secret that was replaced and still is good for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousSecret {
    pub hash: SecretHash,
    /// Unix milliseconds.
    pub until_ms: u64,
}

/// The holder of a key may not do that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "key '{key}' has the role {role}, which may not {}: a key of the role {} may",
        .action.words(), .action.roles()
    )]
    Role { key: KeyName, role: Role, action: Action },
    #[error("key '{key}' is for '{only}' only")]
    Name { key: KeyName, only: Pattern },
}

impl AccessKey {
    /// Whether its holder may do something, with the application or model `name` if it concerns
    /// one.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, action: Action, name: Option<&str>) -> Result<(), Denied> {
        if !self.role.may(action) {
            return Err(Denied::Role { key: self.name.clone(), role: self.role, action });
        }
        name.map_or(Ok(()), |name| self.check_name(name))
    }

    /// Whether it is for an application or model of this name.
    ///
    /// # Errors
    /// It is not.
    pub fn check_name(&self, name: &str) -> Result<(), Denied> {
        if self.only.fits(name) {
            return Ok(());
        }
        Err(Denied::Name { key: self.name.clone(), only: self.only.clone() })
    }

    /// Whether a person or a program of theirs has it; no container.
    #[must_use]
    pub fn is_of_people(&self) -> bool {
        self.role != Role::Container
    }

    /// Whether it may manage keys, for ever.
    #[must_use]
    pub fn is_lasting_admin(&self) -> bool {
        self.role == Role::Admin && self.expires_at_ms.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(role: Role, only: &str) -> AccessKey {
        AccessKey {
            name: KeyName::parse("ci").unwrap(),
            role,
            only: Pattern::parse(only).unwrap(),
            expires_at_ms: None,
            known_by: KnownBy::Secret,
            hash: SecretHash([7; 32]),
            previous: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_refusal_says_whose_key_what_it_may_not_and_who_may() {
        let told = key(Role::Predict, "*").check(Action::Operate, None).unwrap_err().to_string();
        assert_eq!(
            told,
            "key 'ci' has the role predict, which may not change applications, models and links: \
             a key of the role operate or admin may"
        );
        let told = key(Role::Predict, "a-*").check(Action::Predict, Some("b")).unwrap_err();
        assert_eq!(told.to_string(), "key 'ci' is for 'a-*' only");
        assert_eq!(key(Role::Predict, "a-*").check(Action::Predict, Some("a-1")), Ok(()));
    }

    #[test]
    fn the_journal_has_the_hash_and_reads_it_again() {
        let text = serde_json::to_string(&key(Role::Admin, "*")).unwrap();
        let hash = "07".repeat(32);
        assert_eq!(text, format!("{{\"name\":\"ci\",\"role\":\"admin\",\"hash\":\"{hash}\"}}"));
        assert_eq!(serde_json::from_str::<AccessKey>(&text).unwrap(), key(Role::Admin, "*"));
        for text in ["", "0", &"g".repeat(64), &"é".repeat(32), &"0".repeat(63)] {
            assert_eq!(SecretHash::parse(text), None, "{text}");
        }
    }
}
