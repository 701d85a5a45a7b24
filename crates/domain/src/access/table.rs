//! All keys, found by the hash of a presented secret.

use std::collections::HashMap;
use std::sync::Arc;

use super::identity::KnownBy;
use super::key::{AccessKey, SecretHash};
use crate::ids::KeyName;

/// Every key that is known, by the hash of its secret.
///
/// Finding one compares a SHA-256 with others and never a secret. How long that takes may tell of
/// the hash of what was presented, which its sender knows, and of how its first bytes compare with
/// stored hashes. As nobody can choose a text by the hash it has, beyond the few bits that trying
/// gives, such a time leads nobody closer to a secret of 256 bits: an unknown secret and a wrong
/// one are the same here, and take the same steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyTable {
    by_hash: HashMap<SecretHash, FoundKey>,
    is_of_people: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FoundKey {
    key: Arc<AccessKey>,
    /// Unix milliseconds from which it is no good.
    until_ms: Option<u64>,
}

/// A key that is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'t> {
    pub key: &'t Arc<AccessKey>,
    /// Unix milliseconds from which it is no good.
    pub until_ms: Option<u64>,
}

/// Nobody who may do anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unidentified {
    /// No key has this secret.
    Unknown,
    /// The secret of a key that has expired, or that has another secret by now.
    Expired(KeyName),
}

impl KeyTable {
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = AccessKey>) -> Self {
        let (mut by_hash, mut is_of_people) = (HashMap::new(), false);
        for key in keys {
            let key = Arc::new(key);
            is_of_people |= key.is_of_people();
            if let Some(previous) = key.previous {
                let until =
                    key.expires_at_ms.map_or(previous.until_ms, |at| at.min(previous.until_ms));
                let found = FoundKey { key: Arc::clone(&key), until_ms: Some(until) };
                by_hash.insert(previous.hash, found);
            }
            by_hash.insert(key.hash, FoundKey { until_ms: key.expires_at_ms, key });
        }
        Self { by_hash, is_of_people }
    }

    /// Whether there is no key at all; an expired one is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Whether anybody has a key who is no container.
    #[must_use]
    pub fn is_of_people(&self) -> bool {
        self.is_of_people
    }

    /// Whose secret it is that has this hash, or whose what stands in its place.
    ///
    /// # Errors
    /// Nobody's, or that of a key whose time is over.
    pub fn find(
        &self,
        known_by: KnownBy,
        hash: &SecretHash,
        now_ms: u64,
    ) -> Result<Standing<'_>, Unidentified> {
        let found = self.by_hash.get(hash).filter(|found| found.key.known_by == known_by);
        let FoundKey { key, until_ms } = found.ok_or(Unidentified::Unknown)?;
        if until_ms.is_some_and(|until| until <= now_ms) {
            return Err(Unidentified::Expired(key.name.clone()));
        }
        Ok(Standing { key, until_ms: *until_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Pattern, PreviousSecret, Role};
    use crate::limits::Limits;

    #[test]
    fn a_key_is_found_by_its_secrets_while_they_are_good() {
        let name = KeyName::parse("ci").unwrap();
        let key = AccessKey {
            name: name.clone(),
            role: Role::Predict,
            only: Pattern::default(),
            expires_at_ms: Some(100),
            known_by: KnownBy::Secret,
            hash: SecretHash([1; 32]),
            previous: Some(PreviousSecret { hash: SecretHash([2; 32]), until_ms: 50 }),
            limits: Limits::default(),
        };
        let table = KeyTable::new([key]);
        let find = |byte, now| {
            let found = table.find(KnownBy::Secret, &SecretHash([byte; 32]), now);
            found.map(|found| &found.key.name)
        };
        assert_eq!(find(1, 99), Ok(&name));
        assert_eq!(find(1, 100), Err(Unidentified::Expired(name.clone())));
        assert_eq!(find(2, 49), Ok(&name));
        assert_eq!(find(2, 50), Err(Unidentified::Expired(name.clone())));
        assert_eq!(find(3, 0), Err(Unidentified::Unknown));
        assert!(!table.is_empty() && table.is_of_people() && KeyTable::default().is_empty());
        let as_curve = table.find(KnownBy::Curve, &SecretHash([1; 32]), 0);
        assert_eq!(as_curve, Err(Unidentified::Unknown), "what is public is no secret");
    }
}
