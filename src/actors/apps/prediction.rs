//! A predict request under way: it has its answers at the latest at its deadline (invariant P1),
//! and each default answer says that it is one and why (P2).

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tracing::{Instrument as _, debug, debug_span};

use super::asking::{Asked, SureAnswers};
use super::chosen::ChosenOne;
use super::ensemble::Ensemble;
use crate::actors::plane::data_plane::Permit;
use crate::metrics::{AppMetrics, Outcome};
use clipper_clock::{self as clock, Instant};
use clipper_domain::{AppSpec, OnModelError};
use clipper_scheduling::budget::Held;
use clipper_scheduling::output::Output;
use clipper_scheduling::parse::FeedbackForm;
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason, Excess};

/// The part of an application's definition that answers need, resolved once.
#[derive(Debug)]
pub struct AppFacts {
    pub spec: AppSpec,
    /// Its default output as JSON.
    pub default_output: Output,
    pub metrics: Arc<AppMetrics>,
    /// The field of queries that its policy goes by.
    pub key_field: Option<Arc<str>>,
}

impl AppFacts {
    /// The feedback that it understands.
    #[must_use]
    pub fn feedback_form(&self) -> FeedbackForm {
        if self.spec.has_default_policy() { FeedbackForm::Original } else { FeedbackForm::Any }
    }
}

/// Where a request's answers are.
#[derive(Debug)]
pub(super) enum Progress {
    /// With one model.
    One(Asked),
    /// With the one that a policy chose.
    Chosen(Asked, Box<ChosenOne>),
    /// With those that a policy chose.
    Several(Box<Ensemble>),
}

/// The answers to the queries of one request, on their way. Dropping it gives them up.
#[derive(Debug)]
pub struct Prediction {
    pub(super) app: Arc<AppFacts>,
    pub(super) first_query_id: u64,
    pub(super) arrived: Instant,
    pub(super) progress: Progress,
    /// Room taken by the request; given back with the answers.
    pub(super) permit: Permit,
}

/// What one query is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryAnswer {
    Output(Output),
    /// An output of which the application's policy is so sure, 0 to 1.
    Sure {
        output: Output,
        confidence: f64,
    },
    /// The application's default output.
    Default {
        output: Output,
        /// Why there is no other.
        reason: DefaultReason,
    },
    /// The model's error, which the application passes on.
    Error(Arc<str>),
}

impl QueryAnswer {
    /// An output with its confidence, if it has one.
    fn sure(self, confidence: Option<f64>) -> Self {
        match (self, confidence) {
            (Self::Output(output), Some(confidence)) => Self::Sure { output, confidence },
            (other, _) => other,
        }
    }
}

/// The answers to all queries of a request.
#[derive(Debug)]
pub struct Answers {
    /// Id of the first query; the others follow.
    pub first_query_id: u64,
    pub answers: SmallVec<[QueryAnswer; 1]>,
    /// What they take of the sum of all answers, where they have been counted.
    pub held: Option<Held>,
}

impl Prediction {
    /// Waits for the answers, until the deadline; what is missing then is late. Counts them.
    ///
    /// # Errors
    /// They take too much room.
    pub async fn answers(self) -> Result<Answers, Excess> {
        let Self { app, first_query_id, arrived, progress, permit } = self;
        let span = debug_span!("query", app = %app.spec.name, query_id = first_query_id);
        let answered = match progress {
            Progress::One(asked) => {
                asked.closed().instrument(span.clone()).await.map(SureAnswers::from)
            }
            Progress::Chosen(asked, chosen) => {
                let closed = asked.closed().instrument(span.clone()).await;
                closed.map(|closed| chosen.answered(closed))
            }
            // Boxed: most requests have one model.
            Progress::Several(ensemble) => {
                Box::pin(ensemble.answers().instrument(span.clone())).await
            }
        };
        drop(permit);
        let _span = span.entered();
        let SureAnswers { closed, confidences } =
            answered.inspect_err(|_| app.metrics.rejected())?;
        let Closed { answers, held } = closed;
        let latency = clock::now() - arrived;
        count(&app, first_query_id, &answers, latency);
        let confidences = confidences.into_iter().chain(std::iter::repeat(None));
        let told = |(answer, confidence)| told(&app, answer).sure(confidence);
        let answers = answers.into_iter().zip(confidences).map(told).collect();
        Ok(Answers { first_query_id, answers, held })
    }
}

fn count(app: &AppFacts, first_query_id: u64, answers: &[Answer], latency: Duration) {
    let mut ended = [0; Outcome::ALL.len()];
    for (query_id, answer) in (first_query_id..).zip(answers) {
        let outcome = match answer {
            Answer::Output(_) => Outcome::Prediction,
            Answer::Default(reason) => reason.outcome(),
        };
        ended[outcome as usize] += 1;
        debug!(query_id, ?outcome, ?latency, "answered");
    }
    for (outcome, queries) in Outcome::ALL.into_iter().zip(ended).filter(|(_, n)| *n > 0) {
        app.metrics.answered(outcome, queries, latency);
    }
}

/// What the caller is told.
fn told(app: &AppFacts, answer: Answer) -> QueryAnswer {
    match answer {
        Answer::Output(output) => QueryAnswer::Output(output),
        Answer::Default(DefaultReason::Model(why))
            if app.spec.on_model_error == OnModelError::Error =>
        {
            QueryAnswer::Error(why)
        }
        Answer::Default(reason) => {
            QueryAnswer::Default { output: app.default_output.clone(), reason }
        }
    }
}
