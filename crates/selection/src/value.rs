//! A model's output as a policy reads it: a label, a number, or a vector of numbers.

use serde_json::Value;
use smol_str::{SmolStr, ToSmolStr as _};

/// What the outputs of an application's models are. Declared with the policy, so that each output
/// is parsed once, in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// A class: compared, never computed with.
    Label,
    Number,
    /// One number for each class, the probability of it as a rule.
    Vector,
}

impl OutputKind {
    /// Its names, as users write them.
    pub const NAMES: &'static [&'static str] = &["label", "number", "vector"];

    pub(crate) const ALL: [Self; 3] = [Self::Label, Self::Number, Self::Vector];
}

/// An output of an [`OutputKind`].
#[derive(Debug, Clone, PartialEq)]
pub enum ModelValue {
    /// The class, as JSON; equal numbers are one class however they are written.
    Label(SmolStr),
    Number(f64),
    /// At least one number, all finite.
    Vector(Vec<f64>),
}

impl ModelValue {
    /// Reads an output's JSON text. `None`: it is not of this kind.
    #[must_use]
    pub fn parse(kind: OutputKind, json: &[u8]) -> Option<Self> {
        // By far the most frequent outputs, without a JSON parser.
        if kind != OutputKind::Vector
            && let Ok(text) = std::str::from_utf8(json)
            && json.first().is_some_and(u8::is_ascii_digit)
            && let Ok(number) = text.parse::<u32>()
        {
            return Some(match kind {
                OutputKind::Number => Self::Number(f64::from(number)),
                // Already as equal numbers are written.
                _ if !text.starts_with('0') || text == "0" => Self::Label(text.into()),
                _ => Self::Label(number.to_smolstr()),
            });
        }
        Self::read(kind, &serde_json::from_slice(json).ok()?)
    }

    /// Reads an output's JSON value. `None`: it is not of this kind.
    #[must_use]
    pub fn read(kind: OutputKind, value: &Value) -> Option<Self> {
        match kind {
            OutputKind::Label => match value {
                Value::Number(number) => Some(Self::Label(number.as_f64()?.to_smolstr())),
                Value::String(_) | Value::Bool(_) => Some(Self::Label(value.to_smolstr())),
                _ => None,
            },
            OutputKind::Number => value.as_f64().map(Self::Number),
            OutputKind::Vector => {
                let numbers: Option<Vec<f64>> =
                    value.as_array()?.iter().map(Value::as_f64).collect();
                numbers.filter(|numbers| !numbers.is_empty()).map(Self::Vector)
            }
        }
    }

    /// The JSON text that a client is sent.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Label(label) => label.to_string(),
            Self::Number(number) => Value::from(*number).to_string(),
            Self::Vector(numbers) => Value::from(numbers.as_slice()).to_string(),
        }
    }

    /// How sure a model is by its own output: the greatest probability. Labels and numbers do not
    /// say.
    #[must_use]
    pub fn own_confidence(&self) -> Option<f64> {
        match self {
            Self::Vector(numbers) => {
                let greatest = numbers.iter().copied().fold(0.0, f64::max);
                Some(greatest.clamp(0.0, 1.0))
            }
            Self::Label(_) | Self::Number(_) => None,
        }
    }

    /// The class that it says, as a label: that of the greatest probability of a vector.
    #[must_use]
    pub fn class(&self) -> Option<SmolStr> {
        match self {
            Self::Label(label) => Some(label.clone()),
            Self::Number(_) => None,
            Self::Vector(numbers) => {
                let mut best = 0;
                for (index, number) in numbers.iter().enumerate() {
                    if *number > numbers[best] {
                        best = index;
                    }
                }
                Some(best.to_smolstr())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_labels_are_equal_however_they_are_written() {
        let label = |json: &str| ModelValue::parse(OutputKind::Label, json.as_bytes());
        assert_eq!(label("7"), label("7.0"));
        assert_eq!((label("007"), label("0")), (label("7"), label("0.0")));
        assert_eq!(label("7"), Some(ModelValue::Label("7".into())));
        assert_ne!(label("7"), label("\"7\""));
        assert_eq!(label("\"c\\u0061t\""), label("\"cat\""));
        assert_eq!(label("[7]"), None);
        assert_eq!(label("no json"), None);
    }

    #[test]
    fn numbers_and_vectors_go_back_to_json() {
        let number = ModelValue::parse(OutputKind::Number, b"-1.5e3").unwrap();
        assert_eq!(number.to_json(), "-1500.0");
        let vector = ModelValue::parse(OutputKind::Vector, b"[0.25, 0.75]").unwrap();
        assert_eq!(vector.to_json(), "[0.25,0.75]");
        assert_eq!(vector.class().as_deref(), Some("1"));
        assert_eq!(vector.own_confidence(), Some(0.75));
        for json in ["[]", "[1, \"a\"]", "1", "[null]"] {
            assert_eq!(ModelValue::parse(OutputKind::Vector, json.as_bytes()), None, "{json}");
        }
        assert_eq!(ModelValue::parse(OutputKind::Number, b"\"1\""), None);
    }
}
