//! The latest queries that may be asked about: the slow ones and those that got the default output,
//! and a sample of the others. Bounded, and pure.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use clipper_clock::{Instant, Second};
use clipper_domain::explain::KeptAs;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::explain::{ModelRecord, QueryRecord};
use super::ticket::DefaultReason;

/// What one worker keeps.
#[derive(Debug, Clone, Copy)]
pub struct RecentLimits {
    /// Queries; 0: none.
    pub queries_max: usize,
    pub max_bytes: usize,
    /// Of the objective: a query that takes so much of it is slow.
    pub slow_share: f64,
    /// Others that are taken in a second.
    pub samples_per_second: u32,
    /// Slow ones and defaults that are taken in a second.
    pub records_per_second: u32,
}

/// What a query is kept as, in the order in which the oldest gives way.
const KINDS: [KeptAs; 3] = [KeptAs::Sample, KeptAs::Slow, KeptAs::Default];

/// Those of one worker.
#[derive(Debug)]
pub struct RecentQueries {
    limits: RecentLimits,
    kept: [VecDeque<QueryRecord>; KINDS.len()],
    bytes: usize,
    samples: Second,
    records: Second,
}

/// Who is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub query_id: Option<u64>,
    /// `None`: whatever it is kept as.
    pub kept_as: Option<KeptAs>,
    pub app: Option<String>,
    /// So many, the newest.
    pub limit: usize,
}

impl Wanted {
    fn is(&self, record: &QueryRecord) -> bool {
        self.query_id.is_none_or(|id| id == record.query_id)
            && self.app.as_ref().is_none_or(|app| app == record.app.as_str())
    }
}

impl RecentQueries {
    #[must_use]
    pub fn new(limits: RecentLimits) -> Self {
        Self {
            limits,
            kept: Default::default(),
            bytes: 0,
            samples: Second::default(),
            records: Second::default(),
        }
    }

    /// What a query is that took so long, if there is room for one more of its kind now.
    pub fn takes(
        &mut self,
        default: bool,
        (latency, objective): (Duration, Duration),
        now: Instant,
    ) -> Option<KeptAs> {
        let kind = if default {
            KeptAs::Default
        } else if latency >= objective.mul_f64(self.limits.slow_share) {
            KeptAs::Slow
        } else {
            KeptAs::Sample
        };
        let RecentLimits { samples_per_second, records_per_second, .. } = self.limits;
        let (second, max) = match kind {
            KeptAs::Sample => (&mut self.samples, samples_per_second),
            KeptAs::Slow | KeptAs::Default => (&mut self.records, records_per_second),
        };
        (second.count(now) <= max).then_some(kind)
    }

    /// Keeps one; the oldest samples give way, and then the oldest of that kind of which there are
    /// more, or of its own where there are as many.
    pub fn keep(&mut self, kind: KeptAs, record: QueryRecord) {
        let bytes = bytes(&record);
        if bytes > self.limits.max_bytes || self.limits.queries_max == 0 {
            return;
        }
        while self.len() >= self.limits.queries_max || self.bytes + bytes > self.limits.max_bytes {
            let [samples, slow, defaults] = &mut self.kept;
            let oldest = match slow.len().cmp(&defaults.len()) {
                _ if !samples.is_empty() => samples,
                // Nothing gives way for a sample but a sample.
                _ if kind == KeptAs::Sample => return,
                Ordering::Greater => slow,
                Ordering::Equal if kind == KeptAs::Slow => slow,
                Ordering::Less | Ordering::Equal => defaults,
            };
            let Some(gone) = oldest.pop_front() else { break };
            self.bytes -= self::bytes(&gone);
        }
        self.bytes += bytes;
        self.kept[place(kind)].push_back(record);
    }

    /// Those that are wanted, of each kind the newest.
    #[must_use]
    pub fn find(&self, wanted: &Wanted) -> Vec<(KeptAs, QueryRecord)> {
        let kinds = KINDS.into_iter().zip(&self.kept);
        let kinds = kinds.filter(|(kind, _)| wanted.kept_as.is_none_or(|only| only == *kind));
        let newest = kinds.flat_map(|(kind, records)| {
            let records = records.iter().rev().filter(|record| wanted.is(record));
            records.take(wanted.limit).map(move |record| (kind, record.clone()))
        });
        newest.collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.iter().map(VecDeque::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn place(kind: KeptAs) -> usize {
    match kind {
        KeptAs::Sample => 0,
        KeptAs::Slow => 1,
        KeptAs::Default => 2,
    }
}

/// What a record takes, about: itself, and what it does not share with others.
fn bytes(record: &QueryRecord) -> usize {
    let text = |reason: &Option<DefaultReason>| match reason {
        Some(
            DefaultReason::Failed(why) | DefaultReason::Model(why) | DefaultReason::Doubtful(why),
        ) => why.len(),
        _ => 0,
    };
    let of_model = |model: &ModelRecord| {
        let attempts = beyond_one(&model.trace.attempts);
        text(&model.default) + attempts
    };
    let models: usize = record.models.iter().map(of_model).sum();
    let id = record.request_id.as_ref().map_or(0, SmolStr::len);
    size_of::<QueryRecord>() + beyond_one(&record.models) + models + text(&record.default) + id
}

/// What is not in the record itself.
fn beyond_one<T>(list: &SmallVec<[T; 1]>) -> usize {
    if list.spilled() { list.capacity() * size_of::<T>() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clipper_clock as clock;
    use clipper_domain::AppName;

    use super::*;

    const LIMITS: RecentLimits = RecentLimits {
        queries_max: 10,
        max_bytes: 1 << 20,
        slow_share: 0.5,
        samples_per_second: 3,
        records_per_second: 5,
    };

    fn record(query_id: u64, app: &str, why: Option<&str>) -> QueryRecord {
        QueryRecord {
            query_id,
            request_id: None,
            app: AppName::parse(app).unwrap(),
            arrived: clock::now(),
            latency: Duration::ZERO,
            objective: Duration::from_secs(1),
            default: why.map(|why| DefaultReason::Failed(why.into())),
            policy: Arc::from("p"),
            confidence: None,
            models: SmallVec::new(),
        }
    }

    fn ids(recent: &RecentQueries, wanted: &Wanted) -> Vec<u64> {
        recent.find(wanted).iter().map(|(_, record)| record.query_id).collect()
    }

    fn all() -> Wanted {
        Wanted { limit: 100, ..Wanted::default() }
    }

    #[test]
    fn what_is_slow_is_a_share_of_the_objective() {
        let mut recent = RecentQueries::new(LIMITS);
        let (now, ms) = (clock::now(), Duration::from_millis);
        let takes = |recent: &mut RecentQueries, default, took| {
            recent.takes(default, (ms(took), ms(100)), now)
        };
        assert_eq!(takes(&mut recent, false, 50), Some(KeptAs::Slow));
        assert_eq!(takes(&mut recent, true, 1), Some(KeptAs::Default));
        for _ in 0..3 {
            assert_eq!(takes(&mut recent, false, 49), Some(KeptAs::Sample));
        }
        assert_eq!(takes(&mut recent, false, 49), None, "a sample only");
        for _ in 0..3 {
            assert_eq!(takes(&mut recent, true, 1), Some(KeptAs::Default));
        }
        assert_eq!(takes(&mut recent, true, 1), None, "not more in a second");
        let later = now + Duration::from_secs(1);
        assert_eq!(recent.takes(true, (ms(1), ms(1)), later), Some(KeptAs::Default));
    }

    #[test]
    fn samples_give_way_first_and_no_kind_drives_the_other_out() {
        let mut recent = RecentQueries::new(LIMITS);
        (0..10).for_each(|id| recent.keep(KeptAs::Sample, record(id, "a", None)));
        (10..14).for_each(|id| recent.keep(KeptAs::Slow, record(id, "a", None)));
        assert_eq!(ids(&recent, &all()), [9, 8, 7, 6, 5, 4, 13, 12, 11, 10]);
        (100..200).for_each(|id| recent.keep(KeptAs::Default, record(id, "b", Some("x"))));
        let slow = Wanted { kept_as: Some(KeptAs::Slow), ..all() };
        assert_eq!(ids(&recent, &slow), [13, 12, 11, 10], "a flood of defaults leaves them");
        recent.keep(KeptAs::Slow, record(14, "a", None));
        (200..300).for_each(|id| recent.keep(KeptAs::Slow, record(id, "a", None)));
        let defaults = Wanted { kept_as: Some(KeptAs::Default), ..all() };
        assert_eq!(ids(&recent, &defaults), [199, 198, 197, 196, 195]);
        assert_eq!((recent.len(), ids(&recent, &slow).len()), (10, 5));
        recent.keep(KeptAs::Sample, record(300, "a", None));
        assert_eq!(ids(&recent, &defaults).len() + ids(&recent, &slow).len(), 10);
    }

    #[test]
    fn queries_are_found_by_id_kind_and_application() {
        let mut recent = RecentQueries::new(LIMITS);
        recent.keep(KeptAs::Default, record(1, "a", Some("x")));
        recent.keep(KeptAs::Default, record(2, "b", Some("x")));
        recent.keep(KeptAs::Sample, record(3, "a", None));
        let of_app = Wanted { app: Some("a".to_owned()), ..all() };
        assert_eq!(ids(&recent, &of_app), [3, 1]);
        let newest = Wanted { limit: 1, kept_as: Some(KeptAs::Default), ..all() };
        assert_eq!(ids(&recent, &newest), [2]);
        assert_eq!(ids(&recent, &Wanted { query_id: Some(1), ..all() }), [1]);
        assert!(ids(&recent, &Wanted { query_id: Some(4), ..all() }).is_empty());
    }

    #[test]
    fn it_takes_no_more_bytes_than_it_may() {
        let max_bytes = 20 * size_of::<QueryRecord>();
        let mut recent =
            RecentQueries::new(RecentLimits { queries_max: 1_000, max_bytes, ..LIMITS });
        for id in 0..1_000 {
            let why = "x".repeat(usize::try_from(id).unwrap() * 7 % 5_000);
            recent.keep(KeptAs::Default, record(id, "a", Some(&why)));
            assert!(recent.bytes() <= max_bytes && !recent.is_empty(), "{id}");
        }
        let long = record(0, "a", Some(&"x".repeat(max_bytes)));
        let before = recent.len();
        recent.keep(KeptAs::Default, long);
        assert_eq!(recent.len(), before, "more than all the room there is");
        let none = RecentLimits { queries_max: 0, ..LIMITS };
        let mut none = RecentQueries::new(none);
        none.keep(KeptAs::Default, record(0, "a", None));
        assert!(none.is_empty());
    }
}
