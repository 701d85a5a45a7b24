//! What an application's actor is asked and told.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::inputs::AppInputs;
use super::prediction::{AppFacts, Prediction};
use crate::actors::plane::directory::ModelEntry;
use crate::metrics::FeedbackEnd;
use crate::traces::request::RequestTrace;
use clipper_clock::Instant;
use clipper_domain::{InputType, RequestId};
use clipper_scheduling::bodies::{BodyError, Feedback, PredictBody};
use clipper_scheduling::quota::{Claim, Exceeded};
use clipper_scheduling::share::Class;

/// A request body, as text or already parsed: long ones are parsed away from the HTTP workers.
#[derive(Debug)]
pub enum RequestBody<T> {
    Text(Bytes),
    Parsed(Box<T>),
}

/// A request body for an application. Sender: the HTTP handler, on the same thread. Reply: the
/// answers on their way. Full mailbox: the sender waits; the number of senders is bounded by
/// connections.
#[derive(Debug, Message)]
#[rtype(result = "Result<Prediction, QueryRefused>")]
pub struct Predict {
    pub body: RequestBody<PredictBody>,
    /// When it had arrived; the deadline counts from here.
    pub arrived: Instant,
    /// Within what the client wants its answers; never later than the application's objective.
    pub within: Option<Duration>,
    /// What it says in the header that the application's policy goes by.
    pub key: Option<String>,
    /// What its queries count among those of the application.
    pub class: Class,
    /// What it takes of the limits that it counts against, until it has been answered.
    pub claim: Claim,
    /// The client wants to know why it gets the answers that it gets.
    pub explain: bool,
    /// The id of its request.
    pub request_id: Option<RequestId>,
    /// The trace that its request belongs to.
    pub trace: Option<Arc<RequestTrace>>,
}

/// Why a predict or update request is refused without an answer to its queries.
#[derive(Debug)]
pub enum QueryRefused {
    /// The body, for an application with this input type.
    Body(BodyError, InputType),
    /// The `version` asked for.
    Version(String),
    /// No room: `serving.inflight_queries_max`.
    Busy,
    /// More than the holder of the key, or the application's clients, may ask for.
    Limited(Box<Exceeded>),
    /// No room for feedback: `serving.feedback_queue_max`.
    FeedbackFull,
    /// The `label` cannot be an output of the application's models: what it has to be.
    Label(&'static str),
    /// It cannot be answered in pieces.
    NotStreamed(&'static str),
}

impl From<Exceeded> for QueryRefused {
    fn from(exceeded: Exceeded) -> Self {
        Self::Limited(Box::new(exceeded))
    }
}

/// Feedback on its way to its owner.
#[derive(Debug)]
pub struct Recorded {
    /// Told when it is kept.
    pub kept: oneshot::Receiver<()>,
    /// What became of each, where it was a list.
    pub taken: Option<Box<FeedbackTaken>>,
}

/// What became of a list of feedback.
#[derive(Debug, Default)]
pub struct FeedbackTaken {
    /// How many ended so, by [`FeedbackEnd`].
    pub ended: [usize; FeedbackEnd::ALL.len()],
    /// Places in the list.
    pub refused: Vec<(usize, FeedbackRefused)>,
}

/// Why one of a list is refused.
#[derive(Debug)]
pub enum FeedbackRefused {
    Body(BodyError),
    /// The `label` cannot be an output of the application's models: what it has to be.
    Label(&'static str),
}

/// Feedback for an application. Sender: the HTTP handler, on the same thread. Reply: it is on its
/// way to its owner.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recorded, QueryRefused>")]
pub struct Update {
    pub body: RequestBody<Feedback>,
}

/// What is needed to parse a body, and to count it if that fails. Sender: the HTTP handler, on the
/// same thread.
#[derive(Debug, Message)]
#[rtype(result = "AppInputs")]
pub struct AskFacts;

/// A change of an application. Sender: the worker's `Router`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum AppChange {
    /// It has a new definition.
    Redefine(Arc<AppFacts>),
    /// It is linked to these, by name.
    Relink(Vec<Arc<ModelEntry>>),
    Stop,
}
