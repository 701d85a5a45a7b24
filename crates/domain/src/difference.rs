//! How two states of the metadata differ, as data: what the server tells and its callers read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::printable::printable;

/// What an entry of the metadata is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Application,
    /// The versions of one name.
    Model,
    ModelVersion,
    Key,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Model => "model",
            Self::ModelVersion => "version",
            Self::Key => "key",
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    Added,
    Changed,
    Removed,
}

/// A member of an entry that is another one now. `None`: it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An entry that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryChange {
    pub kind: Kind,
    pub name: String,
    pub became: Became,
    /// By name; of an entry that was added or removed, all that it has or had.
    pub fields: Vec<FieldChange>,
}

/// What turns one state into another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// By kind and name.
    pub entries: Vec<EntryChange>,
    /// Entries that differ and were too many to be told.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub left_out: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none_left(left_out: &usize) -> bool {
    *left_out == 0
}

/// The members that two entries have differently.
#[must_use]
pub fn fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let change = |field: &String| FieldChange {
        field: field.clone(),
        before: before.get(field).cloned(),
        after: after.get(field).cloned(),
    };
    let new = after.keys().filter(|field| !before.contains_key(*field));
    let mut changes: Vec<FieldChange> = before.keys().chain(new).map(change).collect();
    changes.retain(|change| change.before != change.after);
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

impl EntryChange {
    /// Nothing if both are the same. `None`: there is no such entry.
    #[must_use]
    pub fn between(
        (kind, name): (Kind, &str),
        before: Option<Map<String, Value>>,
        after: Option<Map<String, Value>>,
    ) -> Option<Self> {
        let became = match (&before, &after) {
            (None, None) => return None,
            (None, Some(_)) => Became::Added,
            (Some(_), None) => Became::Removed,
            (Some(_), Some(_)) => Became::Changed,
        };
        let fields = fields(&before.unwrap_or_default(), &after.unwrap_or_default());
        if became == Became::Changed && fields.is_empty() {
            return None;
        }
        Some(Self { kind, name: name.to_owned(), became, fields })
    }
}

/// One line for the entry, one for each member.
impl fmt::Display for EntryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, became) = match self.became {
            Became::Added => ('+', "added"),
            Became::Changed => ('~', "changed"),
            Became::Removed => ('-', "removed"),
        };
        write!(f, "{mark} {} {} {became}", self.kind.word(), printable(&self.name))?;
        for FieldChange { field, before, after } in &self.fields {
            write!(f, "\n    {field}: ")?;
            match (before, after) {
                (Some(before), Some(after)) => write!(f, "{} -> {}", shown(before), shown(after))?,
                (Some(value), None) if self.became == Became::Removed => {
                    f.write_str(&shown(value))?;
                }
                (Some(value), None) => write!(f, "{} -> none", shown(value))?,
                (None, Some(value)) if self.became == Became::Added => {
                    f.write_str(&shown(value))?;
                }
                (None, Some(value)) => write!(f, "none -> {}", shown(value))?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() && self.left_out == 0 {
            return f.write_str("no difference");
        }
        let lines: Vec<String> = self.entries.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))?;
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

/// Longest value that is shown in words, characters.
const SHOWN_CHARS: usize = 200;

/// A value in words: a text without quotes where it cannot be taken for something else.
#[must_use]
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    printable(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value}") };
        map
    }

    #[test]
    fn members_that_differ_are_told_in_words_and_as_data() {
        let entry = (Kind::Application, "digits");
        let before = map(json!({"slo": 20, "cache": true, "same": [1]}));
        let after = map(json!({"slo": 5, "weight": 2, "same": [1]}));
        let change =
            EntryChange::between(entry, Some(before.clone()), Some(after.clone())).unwrap();
        let text = "~ application digits changed\n    cache: true -> none\n    slo: 20 -> 5\n    \
                    weight: none -> 2";
        assert_eq!(change.to_string(), text);
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(json["fields"][1], json!({"field": "slo", "before": 20, "after": 5}));
        assert_eq!(serde_json::from_value::<EntryChange>(json).unwrap(), change);
        assert_eq!(EntryChange::between(entry, Some(before.clone()), Some(before.clone())), None);
        assert_eq!(EntryChange::between(entry, None, None), None);
        let added = EntryChange::between(entry, None, Some(after)).unwrap();
        assert!(added.to_string().starts_with("+ application digits added\n    same: [1]"));
        let difference = Difference { entries: vec![added], left_out: 3 };
        assert!(difference.to_string().ends_with("weight: 2\nand 3 more"));
        assert_eq!(Difference::default().to_string(), "no difference");
    }

    #[test]
    fn what_is_long_or_deceptive_is_fit_for_a_terminal() {
        assert_eq!(shown(&json!("a\u{202e}b")), "\"a\\u{202e}b\"");
        assert_eq!(shown(&json!("x".repeat(500))).len(), SHOWN_CHARS + 3);
    }
}
