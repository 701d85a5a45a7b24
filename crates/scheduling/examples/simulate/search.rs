//! Many runs: looking for a violation, making its scenario shorter, and showing it.

use std::collections::BTreeMap;

use clipper_clock::Instant;

use crate::mutant::Mutation;
use crate::scenario::Scenario;
use crate::violation::Violation;
use crate::world::World;

/// One run; its violation, if there is one.
pub fn run(scenario: Scenario, mutation: Option<Mutation>, start: Instant) -> Option<Violation> {
    World::new(scenario, mutation, start).run().err()
}

/// The first of these seeds that fails.
pub fn first_failure(
    seeds: std::ops::Range<u64>,
    mutation: Option<Mutation>,
) -> Option<(u64, Violation)> {
    let start = clipper_clock::now();
    let mut seeds = seeds;
    seeds.find_map(|seed| Some((seed, run(Scenario::draw(seed), mutation, start)?)))
}

/// Leaves out steps as long as the same thing goes wrong.
pub fn shorten(mut scenario: Scenario, what: &str, mutation: Option<Mutation>) -> Scenario {
    let start = clipper_clock::now();
    let mut chunk = scenario.steps.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < scenario.steps.len() {
            let mut shorter = scenario.clone();
            let end = (at + chunk).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            let violation = run(shorter.clone(), mutation, start);
            if violation.is_some_and(|violation| violation.what == what) {
                scenario = shorter;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    scenario
}

/// Looks for violations and shows the first of each kind. Whether there are none.
pub fn search(from: u64, seeds: u64) -> bool {
    let start = clipper_clock::now();
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in from..from + seeds {
        if let Some(violation) = run(Scenario::draw(seed), None, start) {
            found.entry(violation.what).or_insert(seed);
        }
    }
    for seed in found.values() {
        replay(*seed);
    }
    let (kinds, took) = (found.len(), clipper_clock::now() - start);
    println!("{seeds} seeds, {kinds} kinds of violations, {took:.1?}");
    found.is_empty()
}

/// Shows one run, as short as possible if it fails. Whether it does not.
pub fn replay(seed: u64) -> bool {
    let start = clipper_clock::now();
    let scenario = Scenario::draw(seed);
    let violation = run(scenario.clone(), None, start);
    let scenario = match &violation {
        Some(violation) => shorten(scenario, violation.what, None),
        None => scenario,
    };
    println!("{:?}\n{:?}\n{:?}", scenario.limits, scenario.speed, scenario.objectives);
    let mut world = World::new(scenario, None, start);
    world.trace = Some(Vec::new());
    let violation = world.run().err();
    for line in world.trace.iter().flatten() {
        println!("{line}");
    }
    match &violation {
        Some(violation) => println!("seed {seed}, shortened: {violation:?}"),
        None => println!("seed {seed}: no violation"),
    }
    violation.is_none()
}

/// Shows which wrong dispatchers are caught, and by what. Whether all are.
pub fn mutants_table(seeds: u64) -> bool {
    let mut all = true;
    println!("| wrong dispatcher | caught by | at seed |\n|---|---|---|");
    for (mutation, does) in Mutation::ALL {
        if let Some((seed, violation)) = first_failure(0..seeds, Some(*mutation)) {
            println!("| {mutation:?}:{does} | {} | {seed} |", violation.what);
        } else {
            println!("| {mutation:?}:{does} | **nothing** | |");
            all = false;
        }
    }
    all
}
