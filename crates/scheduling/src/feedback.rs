//! Bodies of `POST /{app}/update`: one feedback, or a list of several.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bodies::{BodyError, Feedback, FeedbackForm, UpdateBody};
use super::parse::{Context, read};
use super::tensor_bodies;
use super::update::update_of;
use clipper_domain::{InputType, Signature};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List<'a> {
    #[serde(borrow)]
    feedback: Vec<&'a RawValue>,
}

/// What the inputs in feedback are.
#[derive(Debug, Clone, Copy)]
pub enum InputsOf<'s> {
    /// One of the flat ones.
    Type(InputType),
    /// Those of a model, if it is known.
    Tensors(Option<&'s Signature>),
}

/// Reads an update body; of a list, each item by itself.
///
/// # Errors
/// See [`BodyError`]; of an item it stands in its place.
pub fn feedback_body(
    body: &[u8],
    inputs: InputsOf<'_>,
    form: FeedbackForm,
    items_max: usize,
) -> Result<Feedback, BodyError> {
    let read = |body: &[u8]| match inputs {
        InputsOf::Tensors(signature) => tensor_bodies::update_body(body, signature),
        InputsOf::Type(input_type) => update_body(body, input_type, form),
    };
    if !is_list(body) {
        return read(body).map(Feedback::One);
    }
    let List { feedback } = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            let text = "feedback: it must be a list of objects, with nothing beside it";
            BodyError::Semantic(text.to_owned())
        } else {
            BodyError::Syntax(error)
        }
    })?;
    if feedback.len() > items_max {
        return Err(BodyError::TooManyInputs(items_max));
    }
    let item = |item: &RawValue| read(item.get().as_bytes());
    Ok(Feedback::Several(feedback.into_iter().map(item).collect()))
}

/// Reads an update body.
///
/// # Errors
/// See [`BodyError`].
pub(super) fn update_body(
    body: &[u8],
    input_type: InputType,
    form: FeedbackForm,
) -> Result<UpdateBody, BodyError> {
    update_of(read(body, Context::new(input_type, 1, form))?)
}

/// Whether the first member of an object is the list of feedback; it has no other.
fn is_list(body: &[u8]) -> bool {
    let object = body.trim_ascii_start().strip_prefix(b"{");
    object.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"feedback\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{FeedbackSays, FeedbackSubject};

    fn read(body: &str, max: usize) -> Result<Feedback, BodyError> {
        feedback_body(body.as_bytes(), InputsOf::Type(InputType::Doubles), FeedbackForm::Any, max)
    }

    #[test]
    fn each_item_of_a_list_is_read_by_itself() {
        let body = r#" { "feedback": [{"query_id": 7, "label": 2}, {"query_id": -1, "label": 2},
            {"uid": 3, "input": [1.5], "loss": 0.5}, 4, {"uid": 3, "input": ["x"], "label": 1}]}"#;
        let Ok(Feedback::Several(items)) = read(body, 5) else { panic!("{body}") };
        let good = items.iter().map(Result::is_ok).collect::<Vec<_>>();
        assert_eq!(good, [true, false, true, false, false]);
        let Ok(item) = &items[2] else { panic!("{items:?}") };
        assert!(matches!(item.about, FeedbackSubject::Input(3, _)));
        assert!(matches!(item.told, FeedbackSays::Loss(loss) if (0.4..0.6).contains(&loss)));
        assert!(matches!(read(body, 4), Err(BodyError::TooManyInputs(4))));
    }

    #[test]
    fn what_is_no_list_is_refused_or_one_feedback() {
        assert!(matches!(read(r#"{"query_id": 7, "label": 2}"#, 1), Ok(Feedback::One(_))));
        assert!(matches!(read(r#"{"feedback": []}"#, 1), Ok(Feedback::Several(s)) if s.is_empty()));
        for body in [r#"{"feedback": 7}"#, r#"{"feedback": [], "uid": 7}"#] {
            assert!(matches!(read(body, 1), Err(BodyError::Semantic(_))), "{body}");
        }
        assert!(matches!(read(r#"{"feedback": [}"#, 1), Err(BodyError::Syntax(_))));
    }
}
