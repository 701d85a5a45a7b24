//! Bodies of `POST /{app}/update`: one feedback, or a list of several.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bodies::{BodyError, Feedback, FeedbackForm, FeedbackSays, FeedbackSubject, UpdateBody};
use super::parse::{Context, read, semantic};
use clipper_domain::InputType;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List<'a> {
    #[serde(borrow)]
    feedback: Vec<&'a RawValue>,
}

/// Reads an update body; of a list, each item by itself.
///
/// # Errors
/// See [`BodyError`]; of an item it stands in its place.
pub fn feedback_body(
    body: &[u8],
    input_type: InputType,
    form: FeedbackForm,
    items_max: usize,
) -> Result<Feedback, BodyError> {
    if !is_list(body) {
        return update_body(body, input_type, form).map(Feedback::One);
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
    let item = |item: &RawValue| update_body(item.get().as_bytes(), input_type, form);
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
    let fields = read(body, Context::new(input_type, 1, form))?;
    let missing = |key: &str| semantic(format!("JSON object does not have required key: {key}"));
    let about = if let Some(id) = fields.query_id {
        let wrong = || semantic("query_id: it must be a whole number from 0");
        FeedbackSubject::Query(id.as_u64().ok_or_else(wrong)?)
    } else {
        let uid = fields.uid.ok_or_else(|| missing("uid"))?;
        FeedbackSubject::Input(uid, fields.input.ok_or_else(|| missing("input"))?)
    };
    let told = match (fields.label, fields.loss) {
        (None, Some(loss)) => {
            let loss = loss.as_f64().filter(|loss| (0.0..=1.0).contains(loss));
            let wrong = || semantic("loss: it must be a number from 0 to 1");
            FeedbackSays::Loss(loss.ok_or_else(wrong)?)
        }
        (label, _) => FeedbackSays::Label(label.ok_or_else(|| missing("label"))?),
    };
    Ok(UpdateBody { about, told })
}

/// Whether the first member of an object is the list of feedback; it has no other.
fn is_list(body: &[u8]) -> bool {
    let object = body.trim_ascii_start().strip_prefix(b"{");
    object.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"feedback\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, max: usize) -> Result<Feedback, BodyError> {
        feedback_body(body.as_bytes(), InputType::Doubles, FeedbackForm::Any, max)
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
