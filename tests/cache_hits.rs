//! The prediction cache keeps what is asked for again at least as well as CLOCK, the original's.
//!
//! Zipf(1.0) over 1,000,000 inputs, caches of 1, 2 and 5 % of them. Beside it: CLOCK, LRU, and
//! Belady's optimum, which knows the future and may decide not to keep an input at all.
//! `CLIPPER_TEST_ZIPF_QUERIES=5000000 cargo test --release --test all cache_hits -- --nocapture`
//! prints
//! the table of docs/benchmarks.md.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use clipper_clock as clock;
use clipper_domain::Input;
use clipper_scheduling::cache::{Lookup, PredictionCache};
use clipper_scheduling::flight::Waiter;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::Ticket;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const KEYS: u32 = 1_000_000;
/// Bytes of an entry: eight of the key, one of the output, and what the cache adds for itself.
const ENTRY_BYTES: u64 = 8 + 1 + 160;

fn zipf(queries: usize) -> Vec<u32> {
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=KEYS)
        .map(|k| {
            total += 1.0 / f64::from(k);
            total
        })
        .collect();
    let mut random = SmallRng::seed_from_u64(1);
    let mut draw = || {
        let at = random.random_range(0.0..total);
        u32::try_from(cumulative.partition_point(|sum| *sum <= at)).expect("below KEYS")
    };
    (0..queries).map(|_| draw()).collect()
}

/// The share of hits in the second half of the trace; the first half fills the cache.
fn hit_ratio(trace: &[u32], mut is_hit: impl FnMut(usize, u32) -> bool) -> f64 {
    let half = trace.len() / 2;
    let mut hits = 0;
    for (at, key) in trace.iter().enumerate() {
        hits += usize::from(is_hit(at, *key) && at >= half);
    }
    hits as f64 / (trace.len() - half) as f64
}

fn ours(trace: &[u32], entries: usize) -> f64 {
    let cache = PredictionCache::new(entries as u64 * ENTRY_BYTES);
    let output = Output::from_text(b"0").expect("text");
    hit_ratio(trace, |_, key| {
        let key = cache.key(1, Input(Arc::from(u64::from(key).to_le_bytes())));
        let (ticket, now) = (Ticket::new(1, 0), clock::now());
        let waiter = Waiter { slot: ticket.slot(0), deadline: now + Duration::from_secs(60) };
        match cache.lookup(key, now, waiter) {
            Lookup::Hit(_) => true,
            Lookup::Miss(flight) => {
                cache.land(&flight, output.clone());
                false
            }
            Lookup::Joined(_) => panic!("nothing else is under way"),
        }
    })
}

/// One reference bit for each page and a hand that goes round.
fn clock_algorithm(trace: &[u32], entries: usize) -> f64 {
    let mut pages: Vec<(u32, bool)> = Vec::with_capacity(entries);
    let mut place = HashMap::new();
    let mut hand = 0;
    hit_ratio(trace, |_, key| {
        if let Some(at) = place.get(&key) {
            let page: &mut (u32, bool) = &mut pages[*at];
            page.1 = true;
            return true;
        }
        if pages.len() < entries {
            place.insert(key, pages.len());
            pages.push((key, false));
            return false;
        }
        while pages[hand].1 {
            pages[hand].1 = false;
            hand = (hand + 1) % entries;
        }
        place.remove(&pages[hand].0);
        place.insert(key, hand);
        pages[hand] = (key, false);
        hand = (hand + 1) % entries;
        false
    })
}

fn least_recently_used(trace: &[u32], entries: usize) -> f64 {
    let mut used = HashMap::new();
    let mut by_age = BTreeSet::new();
    hit_ratio(trace, |at, key| {
        let before = used.insert(key, at);
        if let Some(before) = before {
            by_age.remove(&(before, key));
        }
        by_age.insert((at, key));
        if by_age.len() > entries {
            let (_, oldest) = by_age.pop_first().expect("not empty");
            used.remove(&oldest);
        }
        before.is_some()
    })
}

/// Keeps what will be asked for soonest.
fn optimum(trace: &[u32], entries: usize) -> f64 {
    let mut next_use = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, key) in trace.iter().enumerate().rev() {
        next_use[at] = seen.insert(*key, at).unwrap_or(usize::MAX);
    }
    let mut kept = BTreeSet::new();
    hit_ratio(trace, |at, key| {
        let hit = kept.remove(&(at, key));
        kept.insert((next_use[at], key));
        if kept.len() > entries {
            kept.pop_last();
        }
        hit
    })
}

#[test]
fn zipf_hit_ratio_is_at_least_that_of_clock() {
    let queries = std::env::var("CLIPPER_TEST_ZIPF_QUERIES").ok();
    let queries = queries.map_or(800_000, |n| n.parse().expect("a number of queries"));
    let trace = zipf(queries);
    println!("hit ratio at Zipf(1.0), {KEYS} inputs, second half of {queries} queries");
    println!("{:>9} {:>9} {:>9} {:>9} {:>9}", "entries", "clipper", "CLOCK", "LRU", "optimum");
    for entries in [10_000, 20_000, 50_000] {
        let (ours, clock) = (ours(&trace, entries), clock_algorithm(&trace, entries));
        let (lru, best) = (least_recently_used(&trace, entries), optimum(&trace, entries));
        println!("{entries:>9} {ours:>9.4} {clock:>9.4} {lru:>9.4} {best:>9.4}");
        assert!(ours >= clock && ours >= lru, "{entries}: {ours} of {clock} and {lru}");
        assert!(ours <= best, "{entries}: {ours} is better than the optimum {best}");
    }
}
