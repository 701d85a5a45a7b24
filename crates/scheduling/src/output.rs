//! A model's output: its text as the JSON that clients receive, or tensors.

use serde::de::IgnoredAny;
use smol_str::SmolStr;

use super::tensor_output::LazyRow;
pub use super::tensor_output::TensorRow;

/// One output as a JSON value, ready to be copied into an answer, or as tensors, of which that is
/// made when it is asked for. Cheap to clone; texts of up to 23 bytes need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output(HeldOutput);

#[derive(Debug, Clone, PartialEq, Eq)]
enum HeldOutput {
    Json(SmolStr),
    Tensors(Box<LazyRow>),
}

impl Output {
    /// The text itself where it parses as JSON, else the text as a JSON string. `None` where it is
    /// not UTF-8.
    ///
    /// The bytes are copied, so that an output in the cache does not keep alive the receive buffer
    /// of the whole message it came in.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if serde_json::from_str::<IgnoredAny>(text).is_ok() {
            return Some(Self(HeldOutput::Json(SmolStr::new(text.trim()))));
        }
        serde_json::to_string(text).ok().map(|quoted| Self(HeldOutput::Json(SmolStr::from(quoted))))
    }

    /// JSON's `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(HeldOutput::Json(SmolStr::new_static("null")))
    }

    #[must_use]
    pub fn from_tensors(row: TensorRow) -> Self {
        Self(HeldOutput::Tensors(Box::new(LazyRow::new(row))))
    }

    #[must_use]
    pub fn json(&self) -> &[u8] {
        match &self.0 {
            HeldOutput::Json(text) => text.as_bytes(),
            HeldOutput::Tensors(row) => row.json(),
        }
    }

    #[must_use]
    pub fn tensors(&self) -> Option<&std::sync::Arc<TensorRow>> {
        match &self.0 {
            HeldOutput::Json(_) => None,
            HeldOutput::Tensors(row) => Some(&row.row),
        }
    }

    /// Bytes that it keeps in memory, without the JSON of tensors.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            HeldOutput::Json(text) => text.len(),
            HeldOutput::Tensors(row) => row.row.bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Output;

    #[test]
    fn json_stays_json_and_other_text_becomes_a_string() {
        let cases = [
            ("7", "7"),
            ("-1", "-1"),
            (" {\"a\": [1, 2.5]}\n", "{\"a\": [1, 2.5]}"),
            ("plain text", "\"plain text\""),
            ("NaN", "\"NaN\""),
            ("say \"hi\"\n", r#""say \"hi\"\n""#),
            ("", "\"\""),
        ];
        for (text, json) in cases {
            let output = Output::from_text(text.as_bytes()).expect("UTF-8");
            assert_eq!(std::str::from_utf8(output.json()), Ok(json), "{text:?}");
        }
        assert_eq!(Output::from_text(b"\xff"), None);
    }

    #[test]
    fn nesting_beyond_the_parsers_bound_is_passed_on_as_a_string() {
        let deep = "[".repeat(200_000);
        let output = Output::from_text(deep.as_bytes()).expect("UTF-8");
        assert_eq!(output.json().len(), deep.len() + 2);
    }
}
