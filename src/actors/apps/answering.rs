//! The queries of a request for one model: what the cache has, what can be answered in time, and
//! the rest on its way.

use std::sync::Arc;

use smallvec::SmallVec;

use super::app::App;
use super::asking::{Asked, RequestTimes};
use super::inputs;
use super::model_progress::ModelProgress;
use super::traced::{TracedModel, TracedQuery};
use crate::actors::plane::directory::ModelHandle;
use clipper_clock::Instant;
use clipper_domain::explain::CacheUse;
use clipper_scheduling::bodies::PredictBody;
use clipper_scheduling::cache::Lookup;
use clipper_scheduling::cache_key::CacheKey;
use clipper_scheduling::dispatch::Arrival;
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::load::Asking;
use clipper_scheduling::share::Share;
use clipper_scheduling::ticket::{Answer, DefaultReason, Ticket};

/// How many of these queries a model can answer in time, and why it cannot answer the others.
pub(super) fn room(
    model: &ModelHandle,
    asking: &Asking,
    arrived: Instant,
) -> (usize, fn() -> DefaultReason) {
    let load = model.load();
    if load.replicas == 0 {
        return (0, || DefaultReason::NoReplica);
    }
    (load.room(asking, model.intake().waiting(), arrived), DefaultReason::overtaken)
}

type Found = SmallVec<[Option<Answer>; 1]>;
/// The queries that the cache has no output of, by their place in the request.
type Misses = SmallVec<[(usize, CacheKey); 1]>;
type Traced = SmallVec<[TracedQuery; 1]>;

impl App {
    /// Starts a model's answers.
    pub(super) fn answer(
        &self,
        model: Arc<ModelHandle>,
        body: PredictBody,
        request: RequestTimes,
    ) -> Asked {
        let mut queries = Traced::new();
        let progress = self.begin(&model, body, request, &mut queries);
        Asked { progress, watched: None, traced: Some(TracedModel { model, queries }) }
    }

    fn begin(
        &self,
        model: &Arc<ModelHandle>,
        body: PredictBody,
        request: RequestTimes,
        traced: &mut Traced,
    ) -> ModelProgress {
        if !inputs::are_of(&body.inputs, model) {
            let reason = inputs::not_of(model);
            return ModelProgress::defaults(body.inputs.len(), reason);
        }
        let is_cached = self.facts.spec.cache && model.is_cached();
        let (mut answers, mut misses) = self.look_up(model, body, is_cached);
        if request.traced {
            let numbers = request.first_query_id..;
            let looked_up = |(number, hit): (u64, &Option<_>)| {
                TracedQuery::looked_up(number, hit.is_some(), is_cached)
            };
            traced.extend(numbers.zip(&answers).map(looked_up));
        }
        if misses.is_empty() {
            return ModelProgress::Ready(answers.into_iter().flatten().collect());
        }
        let RequestTimes { arrived, objective, class, tenant, .. } = request;
        let share = Share { class, tenant, ..self.share };
        let (queries, deadline) = (misses.len(), request.deadline());
        let asking = Asking { share, queries, objective, deadline };
        let (room, why_not) = room(model, &asking, arrived);
        if room < queries {
            // Those that cannot make it hold no places.
            let why = Answer::Default(why_not());
            for (index, _) in misses.drain(room..) {
                answers[index] = Some(why.clone());
            }
            if misses.is_empty() {
                return ModelProgress::Ready(answers.into_iter().flatten().collect());
            }
        }
        let RequestTimes { first_query_id, trace, .. } = request;
        let ticket = Ticket::within(&self.bounds, answers.len(), first_query_id, trace);
        for (index, answer) in answers.into_iter().enumerate() {
            if let Some(answer) = answer {
                ticket.slot(index).fill(answer);
            }
        }
        let queries = self.fly(&ticket, (misses, is_cached), (arrived, deadline), traced);
        self.enqueue(model, Arrival { share, deadline, queries });
        ModelProgress::Waiting { ticket, deadline }
    }

    fn look_up(
        &self,
        model: &ModelHandle,
        PredictBody { inputs, digests, .. }: PredictBody,
        is_cached: bool,
    ) -> (Found, Misses) {
        let cache = &self.plane.cache;
        let mut answers = Found::with_capacity(inputs.len());
        let mut misses = Misses::new();
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
        (answers, misses)
    }

    /// Flights for queries, those apart that others are under way for.
    fn fly(
        &self,
        ticket: &Ticket,
        (misses, is_cached): (Misses, bool),
        (arrived, deadline): (Instant, Instant),
        traced: &mut Traced,
    ) -> SmallVec<[Arc<Flight>; 1]> {
        let mut queries = SmallVec::new();
        for (index, key) in misses {
            let waiter = Waiter { slot: ticket.slot(index), deadline };
            let mut trace = |flight: &Arc<Flight>, joined: bool| {
                if let Some(traced) = traced.get_mut(index) {
                    traced.flight = Some(Arc::clone(flight));
                    traced.cache = if joined { CacheUse::Joined } else { traced.cache };
                }
            };
            if !is_cached {
                let flight = Flight::alone(key, arrived, waiter);
                trace(&flight, false);
                queries.push(flight);
                continue;
            }
            match self.plane.cache.lookup(key, arrived, waiter) {
                Lookup::Hit(output) => {
                    if let Some(traced) = traced.get_mut(index) {
                        traced.cache = CacheUse::Hit;
                    }
                    ticket.slot(index).fill(Answer::Output(output));
                }
                Lookup::Miss(flight) => {
                    trace(&flight, false);
                    queries.push(flight);
                }
                Lookup::Joined(flight) => {
                    trace(&flight, true);
                    // Queued behind somebody patient: queue it again by the earlier deadline.
                    if deadline < flight.deadline {
                        queries.push(flight);
                    }
                }
            }
        }
        queries
    }

    pub(super) fn enqueue(&self, model: &ModelHandle, arrival: Arrival<Arc<Flight>>) {
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
