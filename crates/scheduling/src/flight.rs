//! One computation of one input, shared by every query that asks for the same thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::batch_id::BatchId;
use super::cache_key::CacheKey;
use super::dispatch::Query;
use super::notes::TraceNotes;
use super::query_context::{AttemptOf, QueryContext};
use super::stream::Stream;
use super::ticket::{Answer, Slot};
use super::trace::{QueryTrace, TraceStep};
use clipper_clock::Instant;
use clipper_domain::{Input, TraceContext, TraceParent};

/// A query that waits for a flight.
#[derive(Debug)]
pub struct Waiter {
    /// Where its answer goes.
    pub slot: Slot,
    /// When its answer is due.
    pub deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlightStage {
    Queued,
    Running,
    Done,
}

#[derive(Debug)]
struct FlightState {
    stage: FlightStage,
    waiters: SmallVec<[Waiter; 1]>,
}

impl FlightState {
    fn live_until(&self, now: Instant) -> Option<Instant> {
        let live = self.waiters.iter().filter(|w| w.slot.is_awaited() && w.deadline > now);
        live.map(|w| w.deadline).max()
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.stage == FlightStage::Queued && self.live_until(now).is_none()
    }
}

/// Whose trace a container is told of.
#[derive(Debug)]
struct FirstTrace {
    query_id: u64,
    context: Arc<QueryContext>,
    has_spans: bool,
}

/// One computation. It is queued, runs on a replica (perhaps again on another), and ends once.
#[derive(Debug)]
pub struct Flight {
    /// What is computed and for which model version.
    pub key: CacheKey,
    /// When the first query asked.
    pub arrived: Instant,
    /// When the first query's answer is due.
    pub deadline: Instant,
    /// Equal queries may join it, and find its output later.
    pub(super) is_shared: bool,
    /// Its answer may come in pieces.
    stream: Option<Arc<Stream>>,
    /// That of the first query, if it belongs to one.
    trace: Option<FirstTrace>,
    /// Where its dispatcher keeps what it knows of it.
    note: AtomicU32,
    /// What has happened to it.
    notes: TraceNotes,
    state: Mutex<FlightState>,
}

impl Flight {
    /// A queued flight with its first waiter, for every query that is equal to its.
    #[must_use]
    pub fn new(key: CacheKey, arrived: Instant, first: Waiter) -> Arc<Self> {
        Self::start_with(key, arrived, first, (true, None))
    }

    /// A queued flight for one query alone: its output is not kept for others.
    #[must_use]
    pub fn alone(key: CacheKey, arrived: Instant, waiter: Waiter) -> Arc<Self> {
        Self::start_with(key, arrived, waiter, (false, None))
    }

    /// The same for one whose answer may come in pieces. Its first piece, or its answer if it has
    /// none, is due at the waiter's deadline.
    #[must_use]
    pub fn streamed(
        key: CacheKey,
        arrived: Instant,
        waiter: Waiter,
        stream: Arc<Stream>,
    ) -> Arc<Self> {
        Self::start_with(key, arrived, waiter, (false, Some(stream)))
    }

    fn start_with(
        key: CacheKey,
        arrived: Instant,
        first: Waiter,
        (is_shared, stream): (bool, Option<Arc<Stream>>),
    ) -> Arc<Self> {
        let deadline = first.deadline;
        let trace = first.slot.trace().map(|context| FirstTrace {
            query_id: first.slot.query_id(),
            context: Arc::clone(context),
            has_spans: first.slot.has_spans(),
        });
        let mut waiters = SmallVec::new();
        waiters.push(first);
        let state = Mutex::new(FlightState { stage: FlightStage::Queued, waiters });
        let note = AtomicU32::new(u32::MAX);
        let of = TraceNotes::default();
        Arc::new(Self { key, arrived, deadline, is_shared, stream, trace, note, notes: of, state })
    }

    /// The input, in wire form.
    #[must_use]
    pub fn input(&self) -> &Input {
        &self.key.input
    }

    /// Where the pieces of its answer go.
    #[must_use]
    pub fn stream(&self) -> Option<&Arc<Stream>> {
        self.stream.as_ref()
    }

    /// The first piece of its answer has come, or another one: from now on the whole of it is due
    /// when the stream ends at the latest. Whether anybody waits for it.
    pub fn begin_stream(&self, now: Instant) -> bool {
        let Some(stream) = &self.stream else { return false };
        let mut state = self.state.lock();
        if stream.has_begun() {
            return state.live_until(now).is_some();
        }
        if state.live_until(now).is_none() {
            return false;
        }
        for waiter in &mut state.waiters {
            waiter.deadline = stream.until;
        }
        stream.begin();
        true
    }

    /// The first query's latency objective.
    #[must_use]
    pub fn objective(&self) -> Duration {
        self.deadline - self.arrived
    }

    /// Adds a waiter. Gives it back if the flight has ended, or waits in a queue although everybody
    /// who asked for it has gone: the queue may drop it at any moment.
    ///
    /// # Errors
    /// The waiter, for a new flight.
    pub fn join(&self, waiter: Waiter, now: Instant) -> Result<(), Waiter> {
        let mut state = self.state.lock();
        if state.stage == FlightStage::Done || state.is_forgotten(now) {
            return Err(waiter);
        }
        state.waiters.push(waiter);
        Ok(())
    }

    /// Whether it waits to be run although nobody waits for it.
    #[must_use]
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.state.lock().is_forgotten(now)
    }

    /// The ids of the queries that wait for it; for logs.
    #[must_use]
    pub fn query_ids(&self) -> SmallVec<[u64; 1]> {
        self.state.lock().waiters.iter().map(|w| w.slot.query_id()).collect()
    }

    /// The trace that a container is told of which gets it in `batch`: the first query's. Of one
    /// without spans of its own the request's is what the container's are below.
    #[must_use]
    pub fn handed_on(&self, batch: BatchId) -> Option<TraceContext> {
        let FirstTrace { query_id, context, has_spans } = self.trace.as_ref()?;
        if !has_spans {
            return Some(context.context().clone());
        }
        Some(context.handed_on(self.attempt(*query_id, batch)))
    }

    /// Adds the spans of all who wait for it while a container has it in `batch`, those that are
    /// made, as long as there are less than `max`; gives how many are left out.
    pub fn add_spans(&self, batch: BatchId, spans: &mut Vec<TraceParent>, max: usize) -> usize {
        let state = self.state.lock();
        let slots = state.waiters.iter().map(|waiter| &waiter.slot);
        let recorded = slots.filter_map(|slot| Some((slot, slot.recorded()?)));
        let mut left_out = 0;
        for (slot, trace) in recorded {
            if spans.len() < max {
                let of = self.attempt(slot.query_id(), batch);
                spans.push(trace.handed_on(of).parent);
            } else {
                left_out += 1;
            }
        }
        left_out
    }

    fn attempt(&self, query_id: u64, batch: BatchId) -> AttemptOf {
        AttemptOf { query_id, model: self.key.model, batch }
    }

    /// What has happened to it so far.
    #[must_use]
    pub fn trace(&self) -> QueryTrace {
        self.notes.read(self.arrived)
    }

    /// Ends it: every waiter gets `answer`. Later calls do nothing (invariant P1). Through the
    /// cache ([`super::cache::PredictionCache::land`], `abort`), which forgets it first.
    pub(super) fn end(&self, answer: &Answer) {
        let waiters = {
            let mut state = self.state.lock();
            state.stage = FlightStage::Done;
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            waiter.slot.fill(answer.clone());
        }
    }
}

impl Query for Arc<Flight> {
    fn awaited_until(&self, now: Instant) -> Option<Instant> {
        self.state.lock().live_until(now)
    }

    fn take(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let until = state.live_until(now)?;
        if state.stage == FlightStage::Queued {
            state.stage = FlightStage::Running;
        }
        Some(until)
    }

    fn put_back(&self) {
        let mut state = self.state.lock();
        if state.stage == FlightStage::Running {
            state.stage = FlightStage::Queued;
        }
    }

    fn has_ended(&self) -> bool {
        self.state.lock().stage == FlightStage::Done
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn objective(&self) -> Duration {
        Flight::objective(self)
    }

    fn is_streamed(&self) -> bool {
        self.stream.is_some()
    }

    fn has_begun(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.has_begun())
    }

    fn fingerprint(&self) -> u64 {
        self.key.fingerprint()
    }

    fn note_step(&self, step: TraceStep, now: Instant) {
        self.notes.note(step, self.arrived, now);
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }

    fn note(&self) -> u32 {
        self.note.load(Ordering::Relaxed)
    }

    fn set_note(&self, note: u32) {
        self.note.store(note, Ordering::Relaxed);
    }
}
