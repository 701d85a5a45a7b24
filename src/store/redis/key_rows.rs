//! Keys as rows of the table that the original neither reads nor lists.
//!
//! A row is never removed: a revoked key leaves [`REVOKED`] in its place. So a row that is not
//! there says nothing, and tables that have lost their data open no server to strangers.

use super::row_error::RowError;
use clipper_domain::{AccessKey, KeyName};

const PREFIX: &str = "clipper:key:";

/// What is in the place of a key that is no good any more.
pub(super) const REVOKED: &str = "revoked";

/// What the row of a key is called.
pub(super) fn row_of(name: &KeyName) -> String {
    format!("{PREFIX}{name}")
}

/// The pattern of all rows of keys.
pub(super) fn every_row() -> String {
    format!("{PREFIX}*")
}

/// The name of the key that has a row of this name.
pub(super) fn name_in(row: &str) -> Option<KeyName> {
    KeyName::parse(row.strip_prefix(PREFIX)?).ok()
}

/// A key as its row has it: its hashes, never a secret.
pub(super) fn text_of(key: &AccessKey) -> String {
    serde_json::to_string(key).unwrap_or_default()
}

/// A key, or `None` in place of one that was revoked.
pub(super) type Kept = (KeyName, Option<Box<AccessKey>>);

/// What a row means, whose text is `None` if it is no string; `None`: it is none of a key.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(row: &str, text: Option<&[u8]>) -> Result<Option<Kept>, RowError> {
    let Some(name) = row.strip_prefix(PREFIX) else { return Ok(None) };
    let name = KeyName::parse(name).map_err(RowError::of("name of a key"))?;
    let text = text.ok_or(RowError::NotA("string"))?;
    if text == REVOKED.as_bytes() {
        return Ok(Some((name, None)));
    }
    let key: AccessKey = serde_json::from_slice(text).map_err(RowError::invalid)?;
    if key.name != name {
        let (value, key) = (key.name.to_string(), name.to_string());
        return Err(RowError::NotAsInKey { field: "name", value, key });
    }
    Ok(Some((name, Some(Box::new(key)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::access_key;
    use clipper_domain::Role;

    #[test]
    fn a_row_of_another_name_or_form_is_refused() {
        let key = access_key("root", Role::Admin, 1);
        let text = text_of(&key);
        let kept = (key.name.clone(), Some(Box::new(key)));
        assert_eq!(read("clipper:key:root", Some(text.as_bytes())), Ok(Some(kept)));
        assert!(read("clipper:key:other", Some(text.as_bytes())).is_err());
        assert!(read("clipper:key:other", Some(b"{}")).is_err());
        assert!(read("clipper:key:other", None).is_err());
        assert_eq!(read("clipper:replicas:m:1", None), Ok(None));
    }
}
