//! How long a check takes, by what was presented.
//!
//! The statistic: of each kind of secret the median time of many samples, a sample being some
//! checks in a row, the kinds in turn so that whatever else the machine does meets all of them
//! alike. Two kinds are told apart if their medians differ by more than [`APART`] in each of
//! [`ROUNDS`] rounds. That sees a check that takes other steps for one of them; it cannot see
//! single instructions, which the way of checking rules out: what is compared are hashes, which
//! nobody can choose.

use std::time::{Duration, Instant};

use super::*;
use clipper_domain::access::listed::parse;

const ROUNDS: usize = 10;
const SAMPLES: usize = 300;
const CHECKS: usize = 64;
const APART: f64 = 0.15;

/// Secrets that are none, by what they have in common with a good one.
fn kinds(good: &str) -> [(&'static str, Vec<u8>); 4] {
    let flipped = |at: usize| {
        let mut secret = good.as_bytes().to_vec();
        secret[at] ^= 1;
        secret
    };
    let unknown = new_secret().unwrap().into_bytes();
    let (first, last) = (flipped(4), flipped(good.len() - 1));
    [
        ("unknown", unknown),
        ("first letter", first),
        ("last letter", last),
        ("half", {
            let half = good.len() / 2;
            [&good.as_bytes()[..half], &new_secret().unwrap().as_bytes()[half..]].concat()
        }),
    ]
}

#[allow(clippy::disallowed_methods, reason = "what is measured is the real clock's")]
fn sample(access: &Access, secret: &[u8]) -> Duration {
    let start = Instant::now();
    for _ in 0..CHECKS {
        assert_eq!(
            access.identify(KnownBy::Secret, std::hint::black_box(secret)),
            Err(Refused::Unknown)
        );
    }
    start.elapsed()
}

fn medians(access: &Access, kinds: &[(&'static str, Vec<u8>); 4]) -> [f64; 4] {
    let mut samples = [const { Vec::new() }; 4];
    for at in 0..SAMPLES * kinds.len() {
        let kind = at % kinds.len();
        samples[kind].push(sample(access, &kinds[kind].1));
    }
    samples.map(|mut samples| {
        samples.sort_unstable();
        samples[samples.len() / 2].as_secs_f64()
    })
}

#[test]
fn unknown_and_almost_right_secrets_take_the_same_time() {
    let good = new_secret().unwrap();
    let others = (0..100).map(|n| format!("other-{n} predict {}\n", new_secret().unwrap()));
    let list = format!("{}good predict {good}\n", others.collect::<String>());
    let access = Access::new(&AccessConfig::default(), parse(&list, hash).unwrap(), true);
    assert!(access.identify(KnownBy::Secret, good.as_bytes()).is_ok());
    let mut worst = Vec::new();
    for _ in 0..ROUNDS {
        let kinds = kinds(&good);
        let medians = medians(&access, &kinds);
        let apart = medians.map(|median| median / medians[0] - 1.0);
        if apart.iter().all(|apart| apart.abs() < APART) {
            return;
        }
        worst.push(apart);
    }
    panic!("in all rounds, against an unknown one: {worst:?}");
}
