//! The answer to a list of feedback.

use actix_web::HttpResponse;
use serde::Serialize;

use crate::actors::apps::messages::{FeedbackRefused, FeedbackTaken};
use crate::metrics::FeedbackEnd;
use clipper_scheduling::parse::BodyError;

#[derive(Serialize)]
struct FeedbackCounts {
    /// Well formed, and counted below.
    taken: usize,
    learned: usize,
    late: usize,
    double: usize,
    unknown: usize,
    refused: Vec<RefusedFeedback>,
}

#[derive(Serialize)]
struct RefusedFeedback {
    index: usize,
    cause: String,
}

/// What became of each; 400 if all were refused.
pub(super) fn respond(taken: &FeedbackTaken) -> HttpResponse {
    let ended = |end: FeedbackEnd| taken.ended.get(end as usize).copied().unwrap_or(0);
    let refused = |(index, why): &(usize, FeedbackRefused)| RefusedFeedback {
        index: *index,
        cause: match why {
            FeedbackRefused::Body(error) => cause(error),
            FeedbackRefused::Label(expected) => {
                format!("label: it must be {expected}: the outputs of the models are that")
            }
        },
    };
    let told = FeedbackCounts {
        taken: taken.ended.iter().sum(),
        learned: ended(FeedbackEnd::Learned),
        late: ended(FeedbackEnd::Late),
        double: ended(FeedbackEnd::Double),
        unknown: ended(FeedbackEnd::Unknown),
        refused: taken.refused.iter().map(refused).collect(),
    };
    if told.taken == 0 && !told.refused.is_empty() {
        return HttpResponse::BadRequest().json(told);
    }
    HttpResponse::Ok().json(told)
}

fn cause(error: &BodyError) -> String {
    match error {
        BodyError::NotAnObject(found) => format!("it must be an object, not {found}"),
        BodyError::Syntax(error) => error.to_string(),
        BodyError::Semantic(text) => text.clone(),
        BodyError::TooManyInputs(max) => format!("more than {max} inputs"),
    }
}
