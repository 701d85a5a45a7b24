//! Who asks for a change, from where and why, as far as that is known.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::KeyName;
use crate::printable::printable;

/// The header that says why a change is asked for.
pub const REASON_HEADER: &str = "x-clipper-reason";
/// The header by which a command line says whose it is. Nobody checks it.
pub const USER_HEADER: &str = "x-clipper-user";
/// The header that names a request; without it the server makes a name up.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Longest note, in bytes.
pub const NOTE_MAX_BYTES: usize = 1_024;

/// A short text of somebody outside. What is too long is cut.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Note(Arc<str>);

impl Note {
    /// The text without space around it; none if nothing is left.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let end = text.floor_char_boundary(NOTE_MAX_BYTES);
        Some(Self(Arc::from(text.get(..end).unwrap_or_default())))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self::new(&text).unwrap_or_else(|| Self(Arc::from("")))
    }
}

impl From<Note> for String {
    fn from(note: Note) -> String {
        note.0.as_ref().to_owned()
    }
}

/// Fit for a terminal.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Who asks for a change. What is `None` is not known; only `key` has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// The key that came with the request.
    #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
    /// The user who ran the command, as their system calls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Note>,
    /// The address that the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Note>,
    /// The name of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Note>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Note>,
    /// The frontend that was asked, if it was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Note>,
}

impl Asker {
    /// Key and user, in words.
    #[must_use]
    pub fn who(&self) -> Option<String> {
        match (&self.key, &self.user) {
            (Some(key), Some(user)) => Some(format!("key '{key}' (user '{user}')")),
            (Some(key), None) => Some(format!("key '{key}'")),
            (None, Some(user)) => Some(format!("user '{user}'")),
            (None, None) => None,
        }
    }

    /// Whether `text` is the key, the user or the address.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let notes = [&self.user, &self.from, &self.via];
        self.key.as_ref().is_some_and(|key| key.as_str() == text)
            || notes.into_iter().flatten().any(|note| note.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_short_and_has_something_in_it() {
        assert_eq!(Note::new(" \t"), None);
        assert_eq!(Note::new(" a b ").unwrap().as_str(), "a b");
        let long = "ä".repeat(NOTE_MAX_BYTES);
        assert_eq!(Note::new(&long).unwrap().as_str(), "ä".repeat(NOTE_MAX_BYTES / 2));
        assert_eq!(Note::new("a\u{1b}[0m").unwrap().to_string(), "a\\u{1b}[0m");
        assert_eq!(serde_json::from_str::<Note>("\"\"").unwrap().as_str(), "");
    }

    #[test]
    fn what_is_known_is_told_in_words() {
        let mut asker = Asker { user: Note::new("alice"), ..Asker::default() };
        assert_eq!(asker.who().unwrap(), "user 'alice'");
        asker.key = KeyName::parse("root").ok();
        assert_eq!(asker.who().unwrap(), "key 'root' (user 'alice')");
        assert!(asker.is("root") && asker.is("alice") && !asker.is("bob"));
        assert_eq!(Asker::default().who(), None);
        assert_eq!(serde_json::to_string(&asker).unwrap(), r#"{"by":"root","user":"alice"}"#);
    }
}
