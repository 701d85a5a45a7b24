//! A recent request for each bucket of a latency histogram, so that whoever sees a slow bucket
//! finds a query that was in it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_domain::{RequestId, TraceParent};
use parking_lot::Mutex;
use smol_str::{SmolStr, format_smolstr};

use super::histogram::micros;
use super::table::DURATION_BOUNDS_US;

/// A bucket has another one after so long, milliseconds. Until then a query costs two loads.
const EVERY_MS: u64 = 1_000;

/// One of each bound, and one for what is above all of them.
const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// How long it took.
    pub micros: u64,
    pub request_id: SmolStr,
    /// Where its span is, if it has one.
    pub span: Option<TraceParent>,
    /// When it was answered, Unix.
    pub at_ms: u64,
}

#[derive(Debug, Default)]
struct ExemplarSlot {
    /// From when another one is taken, milliseconds after `since`.
    due_ms: AtomicU64,
    /// What is kept has a span.
    has_span: AtomicBool,
    kept: Mutex<Option<Exemplar>>,
}

/// Those of one histogram; made by the first.
#[derive(Debug)]
pub struct Exemplars {
    since: Instant,
    slots: OnceLock<Box<[ExemplarSlot; BUCKETS]>>,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { since: clock::now(), slots: OnceLock::new() }
    }
}

impl Exemplars {
    /// A request that was answered `now`. Mostly there is one of its bucket; one with a span takes
    /// the place of one without.
    pub fn offer(
        &self,
        latency: Duration,
        request_id: Option<&RequestId>,
        span: Option<TraceParent>,
        now: Instant,
    ) {
        let Some(request_id) = request_id else { return };
        let micros = micros(latency);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < micros);
        let slots = self.slots.get_or_init(Box::default);
        let Some(slot) = slots.get(bucket) else { return };
        let since = now.saturating_duration_since(self.since).as_millis();
        let now_ms = u64::try_from(since).unwrap_or(u64::MAX);
        let due_ms = slot.due_ms.load(Relaxed);
        let is_better = || span.is_some() && !slot.has_span.load(Relaxed);
        if now_ms < due_ms && !is_better() {
            return;
        }
        let next = now_ms.saturating_add(EVERY_MS);
        // One of those who come at once.
        if slot.due_ms.compare_exchange(due_ms, next, Relaxed, Relaxed).is_ok()
            && let Some(mut kept) = slot.kept.try_lock()
        {
            let (request_id, at_ms) = (format_smolstr!("{request_id}"), clock::unix_millis());
            *kept = Some(Exemplar { micros, request_id, span, at_ms });
            slot.has_span.store(span.is_some(), Relaxed);
        }
    }

    /// What there is, by the index of its bucket.
    #[must_use]
    pub fn all(&self) -> Vec<(usize, Exemplar)> {
        let Some(slots) = self.slots.get() else { return Vec::new() };
        let kept =
            |(bucket, slot): (usize, &ExemplarSlot)| Some((bucket, slot.kept.lock().clone()?));
        slots.iter().enumerate().filter_map(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_one_for_a_while() {
        let exemplars = Exemplars::default();
        let start = exemplars.since;
        let offer = |ms: u64, id: &str, after_ms: u64| {
            let (took, now) = (Duration::from_millis(ms), start + Duration::from_millis(after_ms));
            exemplars.offer(took, Some(&RequestId::Given(id.into())), None, now);
        };
        let ids = || {
            let all = exemplars.all();
            all.iter().map(|(at, kept)| (*at, kept.request_id.to_string())).collect::<Vec<_>>()
        };
        exemplars.offer(Duration::from_millis(1), None, None, start);
        assert_eq!(ids(), []);
        offer(2, "a", 0);
        offer(2, "b", 999);
        offer(40_000, "above", 999);
        let slow = |id: &str| (BUCKETS - 1, id.to_owned());
        assert_eq!(ids(), [(4, "a".to_owned()), slow("above")]);
        offer(2, "c", 1_000);
        assert_eq!(ids(), [(4, "c".to_owned()), slow("above")]);
        assert_eq!(exemplars.all()[0].1.micros, 2_000);
    }

    #[test]
    fn one_with_a_span_is_kept_rather_than_one_without() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = TraceParent::parse(text);
        let exemplars = Exemplars::default();
        for (id, span) in [("a", None), ("b", span), ("c", span), ("d", None)] {
            let id = RequestId::Given(id.into());
            exemplars.offer(Duration::from_millis(2), Some(&id), span, exemplars.since);
        }
        let (_, kept) = &exemplars.all()[0];
        assert_eq!((kept.request_id.as_str(), kept.span), ("b", span));
    }
}
