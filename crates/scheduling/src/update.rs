//! The members of an update body, whatever its inputs are.

use super::bodies::{BodyError, FeedbackSays, FeedbackSubject, UpdateBody};
use super::parse::{Fields, semantic};

/// What the members of an update body say.
pub(super) fn update_of(fields: Fields) -> Result<UpdateBody, BodyError> {
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
