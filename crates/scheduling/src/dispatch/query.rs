//! What the dispatcher has to know of a query, and what it keeps of each one.

use std::time::Duration;

use clipper_clock::Instant;

use crate::share::Share;
use crate::trace::TraceStep;

/// A handle of a query. One handle may stand for several callers who asked for the same thing.
pub trait Query: Clone {
    /// The latest deadline of a caller who still waits at `now`; `None` if nobody does.
    fn awaited_until(&self, now: Instant) -> Option<Instant>;

    /// As [`Self::awaited_until`]; if anybody waits, later callers may join it from now on, because
    /// it will be computed.
    fn take(&self, now: Instant) -> Option<Instant>;

    /// No replica computes it any more: nobody may join it after its last caller has gone.
    fn put_back(&self);

    /// Whether it was answered, or resolved without an answer.
    fn has_ended(&self) -> bool;

    /// Whether its answer may come in pieces: then only one replica works at it.
    fn is_streamed(&self) -> bool {
        false
    }

    /// Whether some of its answer has gone out already: then no other replica can take it over.
    fn has_begun(&self) -> bool;

    fn arrived(&self) -> Instant;

    /// Something has happened to it, which whoever explains its answer may want to know.
    fn note_step(&self, _: TraceStep, _now: Instant) {}

    /// Its first caller's latency objective.
    fn objective(&self) -> Duration;

    /// Equal for equal inputs, and hardly ever for others.
    fn fingerprint(&self) -> u64;

    /// Whether both are handles of the same query.
    fn is(&self, other: &Self) -> bool;

    /// A number that the dispatcher has left with it, for the dispatcher only.
    fn note(&self) -> u32;

    /// Leaves such a number.
    fn set_note(&self, note: u32);
}

/// Where an [`QueryState`] is; never that of another one that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueryKey {
    index: u32,
    generation: u32,
}

impl QueryKey {
    pub const NONE: Self = Self { index: u32::MAX, generation: 0 };

    #[cfg(test)]
    pub const fn of(index: u32) -> Self {
        Self { index, generation: 0 }
    }

    #[cfg(test)]
    pub const fn number(self) -> u32 {
        self.index
    }
}

/// A query that has not ended.
#[derive(Debug)]
pub(super) struct QueryState<Q> {
    pub query: Q,
    pub share: Share,
    pub objective: Duration,
    /// Batches with it that a replica has begun.
    pub attempts: u32,
    /// Replicas that died meanwhile.
    pub deaths: u32,
    /// The most queries of a batch with it, itself included.
    pub batch_max: usize,
    /// Replicas that it was sent to and that have not answered.
    pub assigned: u32,
    /// It stands in the queue.
    pub is_waiting: bool,
    /// It has a place among the hedges that wait.
    pub is_hedging: bool,
    /// What its last hedge has taken from the budget.
    pub hedge_cost: Duration,
    generation: u32,
}

/// All queries that have not ended, in places that are used again.
#[derive(Debug)]
pub(super) struct QueryTable<Q> {
    places: Vec<Option<QueryState<Q>>>,
    free: Vec<u32>,
    next_generation: u32,
}

/// Places that are kept when all are free.
const KEPT_PLACES: usize = 4_096;

impl<Q: Query> QueryTable<Q> {
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), next_generation: 0 }
    }

    pub fn add(&mut self, query: Q, share: Share) -> QueryKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        query.set_note(index);
        let entry = QueryState {
            objective: query.objective(),
            query,
            share,
            attempts: 0,
            deaths: 0,
            batch_max: usize::MAX,
            assigned: 0,
            is_waiting: false,
            is_hedging: false,
            hedge_cost: Duration::ZERO,
            generation,
        };
        if let Some(place) = self.places.get_mut(index as usize) {
            *place = Some(entry);
        }
        QueryKey { index, generation }
    }

    pub fn get(&self, key: QueryKey) -> Option<&QueryState<Q>> {
        let entry = self.places.get(key.index as usize)?.as_ref()?;
        (entry.generation == key.generation).then_some(entry)
    }

    pub fn get_mut(&mut self, key: QueryKey) -> Option<&mut QueryState<Q>> {
        let entry = self.places.get_mut(key.index as usize)?.as_mut()?;
        (entry.generation == key.generation).then_some(entry)
    }

    pub fn is_waiting(&self, key: QueryKey) -> bool {
        self.get(key).is_some_and(|entry| entry.is_waiting)
    }

    /// The place of a query that has come before.
    pub fn find(&self, query: &Q) -> Option<QueryKey> {
        let index = query.note();
        let entry = self.places.get(index as usize)?.as_ref()?;
        entry.query.is(query).then_some(QueryKey { index, generation: entry.generation })
    }

    pub fn remove(&mut self, key: QueryKey) -> Option<QueryState<Q>> {
        let place = self.places.get_mut(key.index as usize)?;
        let entry = place.take_if(|entry| entry.generation == key.generation)?;
        self.free.push(key.index);
        if self.free.len() == self.places.len() && self.places.len() > KEPT_PLACES {
            self.places = Vec::new();
            self.free = Vec::new();
        }
        Some(entry)
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn drain(&mut self) -> impl Iterator<Item = QueryState<Q>> + use<'_, Q> {
        self.free.clear();
        self.places.drain(..).flatten()
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
