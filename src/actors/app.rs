//! One per application and HTTP worker, on the worker's own thread: from a request body to queries
//! under way, and feedback.

use std::sync::Arc;

use actix::prelude::*;
use smallvec::SmallVec;

use super::batcher::Batcher;
use super::data_plane::DataPlane;
use super::directory::{ModelEntry, ModelHandle};
use super::feedback::FeedbackQueue;
use super::messages::{
    AppEnded, AskFacts, Enqueue, Predict, QueryRefused, Recorded, Redefine, Relink, RequestBody,
    StopApp, Update,
};
use super::prediction::{AppFacts, Prediction, Progress};
use super::router::Router;
use clipper_clock::Instant;
use clipper_scheduling::cache::Lookup;
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::parse::{self, Inputs, PredictBody};
use clipper_scheduling::ticket::{Answer, DefaultReason, Ticket};

/// The actor.
pub struct App {
    plane: Arc<DataPlane>,
    facts: Arc<AppFacts>,
    linked: Option<Arc<ModelEntry>>,
    feedback: FeedbackQueue,
    parent: Addr<Router>,
}

type Answers = SmallVec<[Answer; 1]>;

impl App {
    /// An application without a link.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        facts: Arc<AppFacts>,
        linked: Option<Arc<ModelEntry>>,
        feedback: FeedbackQueue,
        parent: Addr<Router>,
    ) -> Self {
        Self { plane, facts, linked, feedback, parent }
    }

    fn predict(&self, predict: Predict) -> Result<Prediction, QueryRefused> {
        let PredictBody { inputs, version } = match predict.body {
            RequestBody::Parsed(body) => *body,
            RequestBody::Text(text) => {
                let inputs_max = self.plane.serving.request_inputs_max;
                parse::predict_body(&text, self.facts.spec.input_type, inputs_max)
                    .map_err(QueryRefused::Body)?
            }
        };
        let model = self.select(version.as_deref())?;
        let permit = self.plane.admit(inputs.len()).ok_or(QueryRefused::Busy)?;
        let queries = inputs.len();
        let first_query_id = self.plane.query_ids(queries);
        let progress = match model {
            Some(model) => self.answer(&model, inputs, predict.arrived, first_query_id),
            None => Progress::Ready(no_replica(queries)),
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
        inputs: Inputs,
        arrived: Instant,
        first_query_id: u64,
    ) -> Progress {
        let cache = &self.plane.cache;
        let is_cached = self.facts.spec.cache && model.spec.cache;
        let mut answers: SmallVec<[Option<Answer>; 1]> = SmallVec::with_capacity(inputs.len());
        let mut misses = SmallVec::<[_; 1]>::new();
        for input in inputs {
            let key = cache.key(model.serial, input);
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
        let batcher = model.batcher().filter(|_| model.replicas() > 0);
        let Some(batcher) = batcher else {
            let nobody = || Answer::Default(DefaultReason::NoReplica);
            return Progress::Ready(
                answers.into_iter().map(|a| a.unwrap_or_else(nobody)).collect(),
            );
        };
        let objective = self.facts.spec.latency_slo.as_duration();
        let ahead = model.queued().ahead_of(objective);
        let deadline = arrived + objective;
        if !model.round().can_make_it(ahead, arrived, deadline) {
            let why = format!(
                "The query could not be answered within its latency SLO behind {ahead} others"
            );
            let why = Answer::Default(DefaultReason::Shed(Arc::from(why)));
            let shed = answers.into_iter().map(|a| a.unwrap_or_else(|| why.clone()));
            return Progress::Ready(shed.collect());
        }
        let ticket = Ticket::new(answers.len(), first_query_id);
        for (index, answer) in answers.into_iter().enumerate() {
            if let Some(answer) = answer {
                ticket.slot(index).fill(answer);
            }
        }
        let mut entries = SmallVec::new();
        for (index, key) in misses {
            let waiter = Waiter { slot: ticket.slot(index), deadline };
            if !is_cached {
                entries.push((deadline, Flight::alone(key, arrived, waiter)));
                continue;
            }
            match cache.lookup(key, arrived, waiter) {
                Lookup::Hit(output) => ticket.slot(index).fill(Answer::Output(output)),
                Lookup::Miss(flight) => entries.push((deadline, flight)),
                // Queued behind somebody patient: queue it again by the earlier deadline.
                Lookup::Joined(flight) if deadline < flight.deadline => {
                    entries.push((deadline, flight));
                }
                Lookup::Joined(_) => {}
            }
        }
        self.enqueue(model, &batcher, entries);
        Progress::Waiting { ticket, deadline }
    }

    fn enqueue(
        &self,
        model: &ModelHandle,
        batcher: &Addr<Batcher>,
        entries: SmallVec<[(Instant, Arc<Flight>); 1]>,
    ) {
        if entries.is_empty() {
            return;
        }
        let places = entries.len();
        let objective = self.facts.spec.latency_slo.as_duration();
        let max = self.plane.serving.model_queue_max;
        if !model.queued().reserve(places, objective, max) {
            return self.shed(model, entries, "serving.model_queue_max");
        }
        match batcher.try_send(Enqueue { entries }) {
            Ok(()) => {}
            Err(SendError::Full(refused)) => {
                model.queued().release(places, objective);
                self.shed(model, refused.entries, "serving.mailbox_max");
            }
            Err(SendError::Closed(refused)) => {
                model.queued().release(places, objective);
                for (_, flight) in refused.entries {
                    self.plane.cache.abort(&flight, DefaultReason::NoReplica);
                }
            }
        }
    }

    /// Answers queries that there is no room for (invariant L1).
    fn shed(
        &self,
        model: &ModelHandle,
        entries: SmallVec<[(Instant, Arc<Flight>); 1]>,
        limit: &str,
    ) {
        let why = format!("The queue of model {} is full ({limit})", model.spec.id);
        let why: Arc<str> = Arc::from(why);
        for (_, flight) in entries {
            self.plane.cache.abort(&flight, DefaultReason::Shed(Arc::clone(&why)));
        }
    }
}

fn no_replica(queries: usize) -> Answers {
    std::iter::repeat_n(Answer::Default(DefaultReason::NoReplica), queries).collect()
}

impl Actor for App {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let ended =
            AppEnded { name: self.facts.spec.name.clone(), panicked: std::thread::panicking() };
        if self.parent.try_send(ended).is_err() {
            tracing::debug!(app = %self.facts.spec.name, "its router has ended");
        }
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
            RequestBody::Text(text) => {
                parse::update_body(&text, spec.input_type).map_err(QueryRefused::Body)?
            }
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

impl Handler<Redefine> for App {
    type Result = ();

    fn handle(&mut self, redefine: Redefine, _: &mut Self::Context) {
        self.facts = redefine.0;
    }
}

impl Handler<Relink> for App {
    type Result = ();

    fn handle(&mut self, relink: Relink, _: &mut Self::Context) {
        self.linked = relink.0;
    }
}

impl Handler<StopApp> for App {
    type Result = ();

    fn handle(&mut self, _: StopApp, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
