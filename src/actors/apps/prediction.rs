//! A predict request under way: it has its answers at the latest at its deadline (invariant P1),
//! and each default answer says that it is one and why (P2).

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tracing::{Span, debug, debug_span, field};

use super::asking::{Asked, SureAnswers};
use super::chosen::ChosenOne;
use super::ensemble::Ensemble;
use super::traced::Answerer;
use crate::actors::plane::data_plane::Permit;
use crate::actors::plane::recent::{AnsweredRequest, explained};
use crate::metrics::{AppMetrics, Outcome};
use crate::traces::request::RequestTrace;
use clipper_clock::{self as clock, Instant};
use clipper_domain::explain::ExplainedQuery;
use clipper_domain::{AppSpec, OnModelError, RequestId};
use clipper_scheduling::budget::Held;
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::output::Output;
use clipper_scheduling::pace::OwnPaces;
use clipper_scheduling::parse::FeedbackForm;
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason, Excess};

/// The part of an application's definition that answers need, resolved once.
#[derive(Debug)]
pub struct AppFacts {
    pub spec: AppSpec,
    /// Its default output as JSON.
    pub default_output: Output,
    pub metrics: Arc<AppMetrics>,
    /// What its worker has kept of it for whoever asks why it was answered so.
    pub kept: OwnPaces,
    /// The name of its policy.
    pub policy: Arc<str>,
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

/// What is known of a request before it has its answers.
#[derive(Debug)]
pub(super) struct RequestFacts {
    pub(super) app: Arc<AppFacts>,
    pub(super) first_query_id: u64,
    pub(super) arrived: Instant,
    /// Within which the client wants its answers.
    pub(super) objective: Duration,
    /// The client wants to know why it gets them.
    pub(super) explain: bool,
    pub(super) request_id: Option<RequestId>,
    pub(super) trace: Option<Arc<RequestTrace>>,
}

/// The answers to the queries of one request, on their way. Dropping it gives them up.
#[derive(Debug)]
pub struct Prediction {
    pub(super) of: RequestFacts,
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
    /// The models that have answered, or were to.
    pub model: Option<Answerer>,
    /// Why they are what they are: where the client asked for it, of the first.
    pub explained: Vec<ExplainedQuery>,
}

impl Prediction {
    /// Waits for the answers, until the deadline; what is missing then is late. Counts them.
    ///
    /// # Errors
    /// They take too much room.
    pub async fn answers(self) -> Result<Answers, Excess> {
        let Self { of, progress, permit } = self;
        let answered = match progress {
            Progress::One(mut asked) => {
                let model = asked.traced.take();
                asked.closed().await.map(|closed| SureAnswers::of(closed, model))
            }
            Progress::Chosen(mut asked, chosen) => {
                let model = asked.traced.take();
                asked.closed().await.map(|closed| chosen.answered(closed, model))
            }
            // Boxed: most requests have one model.
            Progress::Several(ensemble) => Box::pin(ensemble.answers()).await,
        };
        let _span = of.span().entered();
        let answered = answered.inspect_err(|_| of.app.metrics.rejected())?;
        let now = clock::now();
        let (answers, latency) = (&answered.closed.answers, now - of.arrived);
        let defaults = count(&of.app, of.first_query_id, answers, latency);
        let span = of.trace.as_ref().and_then(|trace| trace.span());
        of.app.metrics.exemplars.offer(latency, of.request_id.as_ref(), span, now);
        let (objective, own) = (of.objective, &of.app.kept);
        let ended = AnsweredRequest { answers, defaults, latency, objective, own };
        let recent = &permit.plane().recent;
        let record = |index| of.record(&answered, latency, index);
        recent.keep(&ended, now, record);
        if let Some(trace) = &of.trace {
            trace.keep(answers.len(), record);
        }
        let explained = if of.explain {
            of.explained(&answered, latency, recent.answer_max())
        } else {
            Vec::new()
        };
        drop(permit);
        let SureAnswers { closed: Closed { answers, held }, confidences, models } = answered;
        let model = models.answerer();
        let mut confidences = confidences.into_iter();
        let told = |answer| told(&of.app, answer).sure(confidences.next().flatten());
        let answers = answers.into_iter().map(told).collect();
        Ok(Answers { first_query_id: of.first_query_id, answers, held, model, explained })
    }
}

impl RequestFacts {
    /// The context of log lines about it.
    fn span(&self) -> Span {
        let (app, query_id) = (&self.app.spec.name, self.first_query_id);
        let request_id = self.request_id.as_ref().map(field::display);
        let trace_id = self.trace.as_ref().map(|trace| trace.id());
        let trace_id = trace_id.as_ref().map(field::display);
        debug_span!("query", %app, query_id, request_id, trace_id)
    }

    fn explained(
        &self,
        answered: &SureAnswers,
        latency: Duration,
        max: usize,
    ) -> Vec<ExplainedQuery> {
        let queries = answered.closed.answers.len().min(max);
        let records = (0..queries).filter_map(|index| self.record(answered, latency, index));
        records.map(|record| explained(&record)).collect()
    }

    /// What is known of one of its queries.
    fn record(
        &self,
        SureAnswers { closed, confidences, models }: &SureAnswers,
        latency: Duration,
        index: usize,
    ) -> Option<QueryRecord> {
        let answer = closed.answers.get(index)?;
        Some(QueryRecord {
            query_id: self.first_query_id + index as u64,
            request_id: self.request_id.clone(),
            app: self.app.spec.name.clone(),
            arrived: self.arrived,
            latency,
            objective: self.objective,
            default: answer.default_reason().cloned(),
            policy: Arc::clone(&self.app.policy),
            confidence: confidences.get(index).copied().flatten(),
            models: models.records(index, answer),
        })
    }
}

/// How many of them are default outputs.
fn count(app: &AppFacts, first_query_id: u64, answers: &[Answer], latency: Duration) -> usize {
    let mut ended = [0; Outcome::ALL.len()];
    for (query_id, answer) in (first_query_id..).zip(answers) {
        let outcome = match answer {
            Answer::Output(_) => Outcome::Prediction,
            Answer::Default(reason) => reason.outcome(),
        };
        ended[outcome as usize] += 1;
        debug!(query_id, ?outcome, ?latency, "answered");
    }
    for outcome in &Outcome::ALL {
        let queries = ended[*outcome as usize];
        if queries > 0 {
            app.metrics.answered(*outcome, queries, latency);
        }
    }
    answers.len() - ended[Outcome::Prediction as usize]
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
