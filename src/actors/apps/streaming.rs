//! A predict request that is answered in pieces: its first answer is due at the application's
//! objective, the whole of it when the stream has to end.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use smallvec::SmallVec;
use tracing::debug;

use super::answering::room;
use super::app::App;
use super::asking::due_within;
use super::messages::{QueryRefused, RequestBody};
use super::prediction::AppFacts;
use super::traced::{Answerer, AskedModels, TracedModel, TracedQuery};
use crate::actors::plane::data_plane::Permit;
use crate::actors::plane::directory::ModelHandle;
use crate::actors::plane::recent::{AnsweredRequest, explained};
use crate::metrics::Outcome;
use crate::traces::request::RequestTrace;
use clipper_clock::{self as clock, Instant};
use clipper_domain::explain::ExplainedQuery;
use clipper_domain::{OnModelError, RequestId, UNAUTHORIZED};
use clipper_scheduling::dispatch::Arrival;
use clipper_scheduling::explain::QueryRecord;
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::load::Asking;
use clipper_scheduling::output::Output;
use clipper_scheduling::parse::PredictBody;
use clipper_scheduling::quota::Claim;
use clipper_scheduling::share::{Class, Share};
use clipper_scheduling::stream::{Pieces, Stream};
use clipper_scheduling::ticket::{Answer, DefaultReason, Ticket};
use clipper_selection::rollout::split::Drawn;

/// A request whose answer is to come in pieces. Sender: the HTTP handler, on the same thread.
/// Reply: the answer on its way.
#[derive(Debug, Message)]
#[rtype(result = "Result<Streaming, QueryRefused>")]
pub struct PredictStream {
    /// One input.
    pub body: RequestBody<PredictBody>,
    /// When it had arrived; deadlines count from here.
    pub arrived: Instant,
    /// Within what the client wants the whole answer; never later than `serving.stream_max_ms`.
    pub within: Option<Duration>,
    /// What it counts among the application's queries.
    pub class: Class,
    /// What it takes of the limits that it counts against, until its end.
    pub claim: Claim,
    /// The trace that its request belongs to.
    pub trace: Option<Arc<RequestTrace>>,
    /// The client wants to know why it gets the answer that it gets.
    pub explain: bool,
    /// The id of its request.
    pub request_id: Option<RequestId>,
}

/// An answer in pieces, on its way. Dropping it gives it up, and ends the model's work at it.
#[derive(Debug)]
pub struct Streaming {
    app: Arc<AppFacts>,
    query_id: u64,
    /// The model that is asked.
    model: Option<Arc<ModelHandle>>,
    /// What happens to the query there.
    flight: Option<Arc<Flight>>,
    explain: bool,
    request_id: Option<RequestId>,
    /// The trace that its request belongs to.
    trace: Option<Arc<RequestTrace>>,
    /// Once it has ended, if the client wants to know.
    explained: Option<ExplainedQuery>,
    arrived: Instant,
    /// When its first piece is due.
    due: Instant,
    /// When it has to have ended.
    until: Instant,
    state: StreamState,
    /// When its first piece came.
    first: Option<Duration>,
    pieces: u64,
    /// Its end has been.
    is_counted: bool,
    /// Room taken by the request.
    permit: Permit,
}

#[derive(Debug)]
enum StreamState {
    Waiting(Ticket, Pieces),
    /// Its last output goes out before this end.
    Ending(StreamEnd),
    Ended,
}

/// What is told of an answer.
#[derive(Debug)]
pub enum StreamStep {
    Piece(Output),
    End(StreamEnd),
}

/// How an answer ended.
#[derive(Debug, Clone)]
pub enum StreamEnd {
    Complete,
    /// There is no piece of it: the application's default output instead.
    Default {
        output: Output,
        reason: DefaultReason,
    },
    /// It broke off.
    Broken(DefaultReason),
    /// It was cut at its end at the latest.
    Cut,
    /// The model's error, which the application passes on.
    Error(Arc<str>),
    /// Its client's key is no good any more.
    Unauthorized(Arc<str>),
}

impl App {
    fn stream(&self, request: PredictStream) -> Result<Streaming, QueryRefused> {
        let PredictStream { body, arrived, within, class, mut claim, trace, .. } = request;
        let (explain, request_id) = (request.explain, request.request_id);
        let body = self.body(body)?;
        if self.chooser.is_some() && body.version.is_none() {
            return Err(QueryRefused::NotStreamed(
                "The application's policy chooses among models, so its answers do not come in \
                 pieces: ask for a version of the first one, or link one model",
            ));
        }
        let mut model = self.select(body.version.as_deref())?;
        let [input] = &body.inputs[..] else {
            return Err(QueryRefused::NotStreamed(
                "An answer in pieces is that of one input: give `input`",
            ));
        };
        if claim.is_limited() {
            claim.admit(1, clock::now())?;
        }
        let permit = self.plane.admit(1, claim).ok_or(QueryRefused::Busy)?;
        let (class, tenant) = (permit.class(class), permit.tenant());
        let query_id = self.plane.query_ids(1);
        if body.version.is_none() {
            model = self.rolled(model, Drawn { uid: body.uid, query_id });
        }
        let serving = &self.plane.serving;
        let longest = Duration::from_millis(serving.stream_max_ms);
        let until = arrived + within.map_or(longest, |within| within.min(longest));
        let early = Duration::from_micros(serving.answer_margin_us);
        let due = arrived + due_within(self.facts.spec.latency_slo.as_duration(), early);
        let due = due.min(until);
        let (stream, pieces) = Stream::new(&self.plane.streams, until);
        let context = trace.as_ref().map(|trace| trace.carried());
        let ticket = Ticket::within(&self.bounds, 1, query_id, context);
        let waiter = Waiter { slot: ticket.slot(0), deadline: due };
        let (app, state) = (Arc::clone(&self.facts), StreamState::Waiting(ticket, pieces));
        let mut streaming = Streaming {
            app,
            query_id,
            model: model.clone(),
            flight: None,
            explain,
            request_id,
            trace,
            explained: None,
            arrived,
            due,
            until,
            state,
            first: None,
            pieces: 0,
            is_counted: false,
            permit,
        };
        let Some(model) = model else {
            waiter.slot.fill(Answer::Default(self.without_model()));
            return Ok(streaming);
        };
        let share = Share { class, tenant, ..self.share };
        let objective = due.saturating_duration_since(arrived);
        let asking = Asking { share, queries: 1, objective, deadline: due };
        if let (0, why_not) = room(&model, &asking, arrived) {
            waiter.slot.fill(Answer::Default(why_not()));
            return Ok(streaming);
        }
        let key = self.plane.cache.key(model.serial, input.clone());
        let flight = Flight::streamed(key, arrived, waiter, stream);
        streaming.flight = Some(Arc::clone(&flight));
        let queries = std::iter::once(flight).collect();
        self.enqueue(&model, Arrival { share, deadline: due, queries });
        Ok(streaming)
    }

    /// Why there is no model to ask.
    pub(super) fn without_model(&self) -> DefaultReason {
        if self.linked.is_empty() { DefaultReason::Unlinked } else { DefaultReason::NoReplica }
    }

    /// The version that a rollout asks in place of this model, where it does.
    fn rolled(&self, model: Option<Arc<ModelHandle>>, drawn: Drawn) -> Option<Arc<ModelHandle>> {
        let Some(rolling) = &self.rolling else { return model };
        let rolled = rolling.rolled(drawn);
        model.map(|model| match rolled.instead() {
            Some(new) if rolled.is_of(&model.spec.id.name) => Arc::clone(new),
            _ => model,
        })
    }
}

impl Handler<PredictStream> for App {
    type Result = Result<Streaming, QueryRefused>;

    fn handle(&mut self, request: PredictStream, _: &mut Self::Context) -> Self::Result {
        let streaming = self.stream(request);
        if streaming.is_err() {
            self.facts.metrics.rejected();
        }
        streaming
    }
}

impl Streaming {
    #[must_use]
    pub fn query_id(&self) -> u64 {
        self.query_id
    }

    /// The model that is asked.
    #[must_use]
    pub fn answerer(&self) -> Option<Answerer> {
        self.model.clone().map(Answerer::One)
    }

    /// Why it was answered so, once it has ended and if the client wanted to know.
    #[must_use]
    pub fn explained(&self) -> Option<&ExplainedQuery> {
        self.explained.as_ref()
    }

    /// Pieces that have come.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// The next piece, or how the answer ended; nothing after that.
    pub async fn next(&mut self) -> Option<StreamStep> {
        let step = match std::mem::replace(&mut self.state, StreamState::Ended) {
            StreamState::Ended => return None,
            StreamState::Ending(end) => StreamStep::End(end),
            StreamState::Waiting(ticket, mut pieces) => {
                let limit = if self.first.is_some() { self.until } else { self.due };
                match next_piece(&ticket, &mut pieces, limit).await {
                    Some(piece) => {
                        self.state = StreamState::Waiting(ticket, pieces);
                        StreamStep::Piece(piece)
                    }
                    None => self.ended(ticket, &pieces),
                }
            }
        };
        match &step {
            StreamStep::Piece(_) => {
                self.pieces += 1;
                self.first.get_or_insert_with(|| clock::now() - self.arrived);
            }
            StreamStep::End(end) => self.count(end.reason()),
        }
        Some(step)
    }

    /// No more pieces are there, and the query has ended or its time is up.
    fn ended(&mut self, ticket: Ticket, pieces: &Pieces) -> StreamStep {
        let is_complete = pieces.is_complete();
        let answer = match ticket.close() {
            Ok(closed) => closed.answers.into_iter().next(),
            // One output within the bounds of all.
            Err(_) => None,
        };
        let has_begun = self.first.is_some();
        match answer {
            Some(Answer::Output(_)) if is_complete => StreamStep::End(StreamEnd::Complete),
            // It came from a container that does not answer in pieces.
            Some(Answer::Output(output)) => {
                self.state = StreamState::Ending(StreamEnd::Complete);
                StreamStep::Piece(output)
            }
            Some(Answer::Default(DefaultReason::Late)) | None if has_begun => {
                StreamStep::End(StreamEnd::Cut)
            }
            Some(Answer::Default(DefaultReason::Model(why)))
                if has_begun || self.app.spec.on_model_error == OnModelError::Error =>
            {
                StreamStep::End(StreamEnd::Error(why))
            }
            Some(Answer::Default(reason)) if has_begun => {
                StreamStep::End(StreamEnd::Broken(reason))
            }
            other => {
                let reason = match other {
                    Some(Answer::Default(reason)) => reason,
                    _ => DefaultReason::Late,
                };
                let output = self.app.default_output.clone();
                StreamStep::End(StreamEnd::Default { output, reason })
            }
        }
    }

    /// By how it ended, and when its first piece came.
    fn count(&mut self, reason: Option<DefaultReason>) {
        self.is_counted = true;
        let outcome = reason.as_ref().map_or(Outcome::Prediction, DefaultReason::outcome);
        let now = clock::now();
        let latency = self.first.unwrap_or_else(|| now - self.arrived);
        debug!(query_id = self.query_id, ?outcome, ?latency, "answered in pieces");
        self.app.metrics.answered(outcome, 1, latency);
        let span = self.trace.as_ref().and_then(|trace| trace.span());
        self.app.metrics.exemplars.offer(latency, self.request_id.as_ref(), span, now);
        let defaults = usize::from(reason.is_some());
        let answer = reason.map_or_else(|| Answer::Output(Output::null()), Answer::Default);
        let record = || self.record(&answer, latency);
        let ended = AnsweredRequest {
            answers: std::slice::from_ref(&answer),
            defaults,
            latency,
            objective: self.app.spec.latency_slo.as_duration(),
            own: &self.app.kept,
        };
        self.permit.plane().recent.keep(&ended, now, |_| Some(record()));
        if let Some(trace) = &self.trace {
            trace.keep(1, |_| Some(self.record(&answer, now - self.arrived)));
        }
        self.explained = self.explain.then(|| explained(&record()));
    }

    /// What is known of it, and how long it took: for explanations that is until its first piece.
    fn record(&self, answer: &Answer, latency: Duration) -> QueryRecord {
        let mut query = TracedQuery::looked_up(self.query_id, false, false);
        query.flight.clone_from(&self.flight);
        let models = self.model.as_ref().map(|model| {
            let queries = std::iter::once(query).collect();
            TracedModel { model: Arc::clone(model), queries }
        });
        QueryRecord {
            query_id: self.query_id,
            request_id: self.request_id.clone(),
            app: self.app.spec.name.clone(),
            arrived: self.arrived,
            latency,
            objective: self.app.spec.latency_slo.as_duration(),
            default: answer.default_reason().cloned(),
            policy: Arc::clone(&self.app.policy),
            confidence: None,
            models: AskedModels::One(models, SmallVec::new()).records(0, answer),
        }
    }
}

/// Given up by whoever asked: what is known of it until then is.
impl Drop for Streaming {
    fn drop(&mut self) {
        let Some(trace) = self.trace.as_ref().filter(|_| !self.is_counted) else { return };
        let given_up = |_| {
            let (answer, took) = (Answer::Output(Output::null()), clock::now() - self.arrived);
            let mut record = self.record(&answer, took);
            record.models.iter_mut().for_each(|model| model.used = false);
            Some(record)
        };
        trace.keep(1, given_up);
    }
}

impl StreamEnd {
    /// What came of it, as a label, and why it is no whole answer if it is none.
    #[must_use]
    pub fn outcome(&self) -> (&'static str, Option<String>) {
        let (outcome, why) = match self {
            Self::Complete => (Outcome::Prediction, None),
            Self::Default { reason, .. } | Self::Broken(reason) => {
                (reason.outcome(), Some(reason.to_string()))
            }
            Self::Cut => (Outcome::Late, Some("It was cut at serving.stream_max_ms".to_owned())),
            Self::Error(why) => (Outcome::ModelError, Some(why.to_string())),
            Self::Unauthorized(why) => return (UNAUTHORIZED, Some(why.to_string())),
        };
        (outcome.label(), why)
    }

    /// Whether it is one that its client is answered, which takes default outputs or not.
    #[must_use]
    pub fn is_answer(&self, takes_default: bool) -> bool {
        match self {
            Self::Complete => true,
            Self::Default { .. } => takes_default,
            Self::Broken(_) | Self::Cut | Self::Error(_) | Self::Unauthorized(_) => false,
        }
    }

    /// What broke off, and why: nothing of a whole answer, or of a default output in its place.
    #[must_use]
    pub fn failure(&self) -> Option<(&'static str, String)> {
        let is_failure = !self.is_answer(true);
        let (outcome, why) = self.outcome();
        is_failure.then(|| (outcome, why.unwrap_or_default()))
    }

    /// Why there is no whole answer, if there is none.
    fn reason(&self) -> Option<DefaultReason> {
        match self {
            // Nothing has become of the query by then.
            Self::Complete | Self::Unauthorized(_) => None,
            Self::Default { reason, .. } | Self::Broken(reason) => Some(reason.clone()),
            Self::Cut => Some(DefaultReason::Late),
            Self::Error(why) => Some(DefaultReason::Model(Arc::clone(why))),
        }
    }
}

/// The next piece; none if the query ends, or `limit` comes, before there is one.
async fn next_piece(ticket: &Ticket, pieces: &mut Pieces, limit: Instant) -> Option<Output> {
    tokio::select! {
        biased;
        piece = poll_fn(|cx| pieces.poll_pop(cx)) => return Some(piece),
        () = ticket.filled() => {}
        () = tokio::time::sleep_until(limit) => {}
    }
    // What was added before the end.
    pieces.pop()
}
