//! One per application and HTTP worker, on the worker's own thread: from a request body to queries
//! under way, and feedback.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use smallvec::SmallVec;

use super::feedback::FeedbackQueue;
use super::messages::{AppChange, AskFacts, Predict, QueryRefused, Recorded, RequestBody, Update};
use super::prediction::{AppFacts, Prediction, Progress};
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::{ModelEntry, ModelHandle};
use crate::supervision::kept::Lifeline;
use clipper_clock::Instant;
use clipper_domain::AppSpec;
use clipper_scheduling::cache::Lookup;
use clipper_scheduling::dispatch::{AppId, Arrival, Share};
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::load::Asking;
use clipper_scheduling::parse::{self, PredictBody};
use clipper_scheduling::ticket::{Answer, AnswerBounds, DefaultReason, Ticket};

/// The actor.
pub struct App {
    plane: Arc<DataPlane>,
    facts: Arc<AppFacts>,
    share: Share,
    linked: Option<Arc<ModelEntry>>,
    /// A copy: one for all workers would have its references counted by all of them.
    bounds: Arc<AnswerBounds>,
    feedback: FeedbackQueue,
    _lifeline: Lifeline,
}

impl App {
    /// An application without a link.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        facts: Arc<AppFacts>,
        linked: Option<Arc<ModelEntry>>,
        feedback: FeedbackQueue,
        lifeline: Lifeline,
    ) -> Self {
        let share = share(&facts.spec);
        let bounds = Arc::new(plane.answers.clone());
        Self { plane, facts, share, linked, bounds, feedback, _lifeline: lifeline }
    }

    fn predict(&self, predict: Predict) -> Result<Prediction, QueryRefused> {
        let body = match predict.body {
            RequestBody::Parsed(body) => *body,
            RequestBody::Text(text) => {
                let inputs_max = self.plane.serving.request_inputs_max;
                let input_type = self.facts.spec.input_type;
                parse::predict_body(&text, input_type, inputs_max)
                    .map_err(|error| QueryRefused::Body(error, input_type))?
            }
        };
        let model = self.select(body.version.as_deref())?;
        let queries = body.inputs.len();
        let permit = self.plane.admit(queries).ok_or(QueryRefused::Busy)?;
        let first_query_id = self.plane.query_ids(queries);
        let progress = match model {
            Some(model) => {
                let asked = (predict.arrived, predict.within);
                self.answer(&model, body, asked, first_query_id)
            }
            None if self.linked.is_none() => defaults(queries, &DefaultReason::Unlinked),
            None => defaults(queries, &DefaultReason::NoReplica),
        };
        let (app, arrived) = (Arc::clone(&self.facts), predict.arrived);
        Ok(Prediction { app, first_query_id, arrived, progress, permit })
    }

    /// The default policy's choice: the linked model, in its current version or the one asked for.
    fn select(&self, version: Option<&str>) -> Result<Option<Arc<ModelHandle>>, QueryRefused> {
        match (version, &self.linked) {
            (None, linked) => Ok(linked.as_ref().and_then(|entry| entry.current())),
            (Some(version), Some(entry)) => match entry.version(version) {
                Some(handle) => Ok(Some(handle)),
                None => Err(QueryRefused::Version(format!(
                    "Requested version: {version} does not exist for model: {}",
                    entry.name()
                ))),
            },
            (Some(version), None) => Err(QueryRefused::Version(format!(
                "Requested version: {version} does not exist: application '{}' is not linked to \
                 a model",
                self.facts.spec.name
            ))),
        }
    }

    fn answer(
        &self,
        model: &Arc<ModelHandle>,
        PredictBody { inputs, digests, .. }: PredictBody,
        (arrived, within): (Instant, Option<Duration>),
        first_query_id: u64,
    ) -> Progress {
        let cache = &self.plane.cache;
        let is_cached = self.facts.spec.cache && model.spec.cache;
        let mut answers: SmallVec<[Option<Answer>; 1]> = SmallVec::with_capacity(inputs.len());
        let mut misses = SmallVec::<[_; 1]>::new();
        let mut digests = digests.into_iter();
        for input in inputs {
            let key = match digests.next() {
                Some(digest) => cache.key_by(digest, model.serial, input),
                None => cache.key(model.serial, input),
            };
            let hit = if is_cached { cache.get(&key) } else { None };
            if hit.is_none() {
                misses.push((answers.len(), key));
            }
            answers.push(hit.map(Answer::Output));
        }
        model.metrics.cache_lookups(answers.len() - misses.len(), misses.len());
        if misses.is_empty() {
            return Progress::Ready(answers.into_iter().flatten().collect());
        }
        let load = model.load();
        if load.replicas == 0 {
            let nobody = || Answer::Default(DefaultReason::NoReplica);
            return Progress::Ready(
                answers.into_iter().map(|a| a.unwrap_or_else(nobody)).collect(),
            );
        }
        let objective = self.facts.spec.latency_slo.as_duration();
        let objective = within.map_or(objective, |within| within.min(objective));
        let deadline = arrived + objective;
        let asking = Asking { share: self.share, queries: misses.len(), objective, deadline };
        let room = load.room(&asking, model.intake().waiting(), arrived);
        if room < misses.len() {
            // Those that cannot make it hold no places.
            let why = Answer::Default(DefaultReason::overtaken());
            for (index, _) in misses.drain(room..) {
                answers[index] = Some(why.clone());
            }
            if misses.is_empty() {
                return Progress::Ready(answers.into_iter().flatten().collect());
            }
        }
        let ticket = Ticket::within(&self.bounds, answers.len(), first_query_id);
        for (index, answer) in answers.into_iter().enumerate() {
            if let Some(answer) = answer {
                ticket.slot(index).fill(answer);
            }
        }
        let mut queries = SmallVec::new();
        for (index, key) in misses {
            let waiter = Waiter { slot: ticket.slot(index), deadline };
            if !is_cached {
                queries.push(Flight::alone(key, arrived, waiter));
                continue;
            }
            match cache.lookup(key, arrived, waiter) {
                Lookup::Hit(output) => ticket.slot(index).fill(Answer::Output(output)),
                Lookup::Miss(flight) => queries.push(flight),
                // Queued behind somebody patient: queue it again by the earlier deadline.
                Lookup::Joined(flight) if deadline < flight.deadline => queries.push(flight),
                Lookup::Joined(_) => {}
            }
        }
        self.enqueue(model, Arrival { share: self.share, deadline, queries });
        Progress::Waiting { ticket, deadline }
    }

    fn enqueue(&self, model: &ModelHandle, arrival: Arrival<Arc<Flight>>) {
        let queries = arrival.queries.len();
        if queries == 0 {
            return;
        }
        let max = self.plane.serving.model_queue_max.saturating_sub(model.load().waiting);
        let Err(refused) = model.intake().add(arrival, queries, max) else { return };
        let reason = if model.has_batcher() {
            let id = &model.spec.id;
            let why = format!("The queue of model {id} is full (serving.model_queue_max)");
            DefaultReason::Shed(Arc::from(why))
        } else {
            DefaultReason::NoReplica
        };
        self.plane.abort_all([refused], &reason);
    }
}

/// Its part of a model that it shares with others.
fn share(spec: &AppSpec) -> Share {
    Share { app: AppId::of(spec.name.as_str()), weight: spec.weight.get() }
}

fn defaults(queries: usize, reason: &DefaultReason) -> Progress {
    let answer = Answer::Default(reason.clone());
    Progress::Ready(std::iter::repeat_n(answer, queries).collect())
}

impl Actor for App {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
    }
}

impl Handler<Predict> for App {
    type Result = Result<Prediction, QueryRefused>;

    fn handle(&mut self, predict: Predict, _: &mut Self::Context) -> Self::Result {
        let prediction = self.predict(predict);
        if prediction.is_err() {
            self.facts.metrics.rejected();
        }
        prediction
    }
}

impl Handler<Update> for App {
    type Result = Result<Recorded, QueryRefused>;

    fn handle(&mut self, update: Update, _: &mut Self::Context) -> Self::Result {
        let spec = &self.facts.spec;
        let body = match update.body {
            RequestBody::Parsed(body) => *body,
            RequestBody::Text(text) => parse::update_body(&text, spec.input_type)
                .map_err(|error| QueryRefused::Body(error, spec.input_type))?,
        };
        // The default policy learns nothing from a label; it keeps that the user is known.
        let Some(kept) = self.feedback.learn(&spec.name, body.uid, &spec.default_output) else {
            self.plane.metrics.feedback_refused();
            return Err(QueryRefused::FeedbackFull);
        };
        Ok(Recorded(kept))
    }
}

impl Handler<AskFacts> for App {
    type Result = Arc<AppFacts>;

    fn handle(&mut self, _: AskFacts, _: &mut Self::Context) -> Self::Result {
        Arc::clone(&self.facts)
    }
}

impl Handler<AppChange> for App {
    type Result = ();

    fn handle(&mut self, change: AppChange, ctx: &mut Self::Context) {
        match change {
            AppChange::Redefine(facts) => {
                self.share = share(&facts.spec);
                self.facts = facts;
            }
            AppChange::Relink(linked) => self.linked = linked,
            AppChange::Stop => ctx.stop(),
        }
    }
}
