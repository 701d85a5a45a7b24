//! What is kept, and what gives way for it.

use std::sync::Arc;
use std::time::Duration;

use clipper_clock as clock;
use proptest::prelude::*;

use super::*;

const LIMITS: RecentLimits = RecentLimits { queries_max: 10, max_bytes: 1 << 20 };

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
fn samples_give_way_first_and_no_kind_drives_the_other_out() {
    let mut recent = RecentQueries::new(LIMITS);
    (0..10).for_each(|id| recent.keep(KeptAs::Sample, record(id, "a", None)));
    (10..14).for_each(|id| recent.keep(KeptAs::Slow, record(id, "a", None)));
    assert_eq!(ids(&recent, &all()), [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]);
    (100..200).for_each(|id| recent.keep(KeptAs::Default, record(id, "a", Some("x"))));
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
fn applications_that_come_later_get_their_part() {
    let mut recent = RecentQueries::new(LIMITS);
    let of = |app: &str| Wanted { app: Some(app.to_owned()), ..all() };
    (0..100).for_each(|id| recent.keep(KeptAs::Default, record(id, "flood", Some("x"))));
    assert_eq!(ids(&recent, &of("flood")).len(), 10, "as long as nobody else wants room");
    (100..110).for_each(|id| recent.keep(KeptAs::Slow, record(id, "other", None)));
    assert_eq!(ids(&recent, &of("other")), [109, 108, 107, 106, 105]);
    (110..200).for_each(|id| recent.keep(KeptAs::Default, record(id, "flood", Some("x"))));
    assert_eq!(ids(&recent, &of("other")), [109, 108, 107, 106, 105]);
    assert_eq!(ids(&recent, &of("flood")), [199, 198, 197, 196, 195]);
    // Of more applications than there are places, the newest.
    for id in 200..230 {
        recent.keep(KeptAs::Slow, record(id, &format!("app{id}"), None));
    }
    assert_eq!(ids(&recent, &all()), (220..230).rev().collect::<Vec<u64>>());
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
    let mut recent = RecentQueries::new(RecentLimits { queries_max: 1_000, max_bytes });
    for id in 0..1_000 {
        let why = "x".repeat(usize::try_from(id).unwrap() * 7 % 5_000);
        recent.keep(KeptAs::Default, record(id, "a", Some(&why)));
        assert!(recent.bytes() <= max_bytes && !recent.is_empty(), "{id}");
    }
    let long = record(0, "a", Some(&"x".repeat(max_bytes)));
    let before = recent.len();
    recent.keep(KeptAs::Default, long);
    assert_eq!(recent.len(), before, "more than all the room there is");
    let mut none = RecentQueries::new(RecentLimits { queries_max: 0, ..LIMITS });
    none.keep(KeptAs::Default, record(0, "a", None));
    assert!(none.is_empty());
}

const APPS: [&str; 4] = ["a", "b", "c", "d"];
const KINDS: [KeptAs; 3] = [KeptAs::Slow, KeptAs::Default, KeptAs::Sample];

proptest! {
    /// Whoever has no more than its part, of places and of bytes, loses nothing to others; and what
    /// there is stays within its limits.
    #[test]
    fn nobody_loses_his_part_to_others(
        queries_max in 8_usize..40,
        room in 8_usize..60,
        kept in proptest::collection::vec((0..APPS.len(), 0..KINDS.len(), 0_usize..600), 1..300),
    ) {
        let max_bytes = room * size_of::<QueryRecord>();
        let mut recent = RecentQueries::new(RecentLimits { queries_max, max_bytes });
        let groups_max = APPS.len() * 2;
        let (part, part_bytes) = (queries_max / groups_max, max_bytes / groups_max);
        for (id, (app, kind, long)) in (0..).zip(kept) {
            let (app, kind) = (APPS[app], KINDS[kind]);
            let of = |recent: &RecentQueries| -> HashMap<Whose, (usize, usize)> {
                let group = |(whose, group): (&Whose, &RecentGroup)| {
                    (whose.clone(), (group.records.len(), group.bytes))
                };
                recent.groups.iter().map(group).collect()
            };
            let before = of(&recent);
            recent.keep(kind, record(id, app, Some(&"x".repeat(long))));
            let after = of(&recent);
            for (whose, (queries, bytes)) in before {
                let is_other = (whose.0.as_str(), whose.1) != (app, kind);
                if is_other && queries <= part && bytes <= part_bytes {
                    prop_assert_eq!(after.get(&whose), Some(&(queries, bytes)), "{:?}", whose);
                }
            }
            let sum = |of: fn(&RecentGroup) -> usize| {
                recent.groups.values().map(of).sum::<usize>() + of(&recent.samples)
            };
            prop_assert_eq!(sum(|group| group.records.len()), recent.len());
            prop_assert_eq!(sum(|group| group.bytes), recent.bytes());
            prop_assert!(recent.len() <= queries_max && recent.bytes() <= max_bytes);
            prop_assert!(recent.groups.values().all(|group| !group.records.is_empty()));
        }
    }
}
