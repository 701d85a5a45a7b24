//! Queries of an application while one of its models is rolled out, drawn from a seed: 200 a
//! second, each judged by feedback, steps of 1, 5, 25, 50 and 100 % held for five minutes.

use std::fmt::Write as _;
use std::time::Duration;

use clipper_domain::ModelId;
use clipper_domain::rollout::guard::Guard;
use clipper_domain::rollout::percent::Percent;
use clipper_domain::rollout::plan::{MIN_QUERIES, RolloutKind, RolloutPlan};
use clipper_domain::rollout::{Rollout, RolloutEnd};
use clipper_selection::beta::normal;
use clipper_selection::rollout::machine::{RolloutAction, RolloutInput, RolloutMachine};
use clipper_selection::rollout::pairs::LossPairs;
use clipper_selection::rollout::split::{Drawn, Side, side};
use clipper_selection::rollout::sums::RolloutSums;
use clipper_selection::weights::rng;
use rand::Rng;

const QUERIES_A_SECOND: u64 = 200;
const HOLD: Duration = Duration::from_secs(300);
/// Guards are looked at as often as the server does.
const LOOKS_A_SECOND: u64 = 4;
const LOOK: Duration = Duration::from_millis(1_000 / LOOKS_A_SECOND);

/// What a version does.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    pub errors: f64,
    /// The 99th percentile of its latency, in objectives.
    pub p99: f64,
    /// How often its answer is another one than the first version's.
    pub other_answers: f64,
    pub loss: f64,
}

/// The version that runs.
const OLD: Version = Version { errors: 0.001, p99: 0.8, other_answers: 0.0, loss: 0.1 };

/// Versions by name; the first ones are as good as promised.
pub fn versions() -> [(&'static str, Version, bool); 7] {
    let at_the_bounds = Version { errors: 0.01, p99: 1.0, other_answers: 0.02, loss: 0.1 };
    [
        ("equal", OLD, true),
        ("equal, 1 % of the answers others", Version { other_answers: 0.01, ..OLD }, true),
        ("at every bound, not above", at_the_bounds, true),
        ("3 % errors", Version { errors: 0.03, ..OLD }, false),
        ("p99 of 1.5 objectives", Version { p99: 1.5, ..OLD }, false),
        ("5 % other answers", Version { other_answers: 0.05, ..OLD }, false),
        ("a loss of 0.12 instead of 0.10", Version { loss: 0.12, ..OLD }, false),
    ]
}

fn plan() -> RolloutPlan {
    let percent = |percent: f64| Percent::try_from(percent).unwrap_or(Percent::ALL);
    let guards = ["errors<1%", "p99<slo", "disagreement<2%", "loss<=baseline"];
    RolloutPlan {
        kind: RolloutKind::Canary,
        from: version("m:1"),
        to: version("m:2"),
        steps: [1.0, 5.0, 25.0, 50.0, 100.0].map(percent).to_vec(),
        hold_ms: 300_000,
        guards: guards.iter().filter_map(|guard| Guard::parse(guard).ok()).collect(),
        min_queries: MIN_QUERIES,
    }
}

#[allow(clippy::expect_used, reason = "a constant")]
fn version(id: &str) -> ModelId {
    ModelId::parse(id).expect("it is one")
}

/// A latency in objectives: log-normal, its median a fourth of its 99th percentile.
fn is_late(rng: &mut impl Rng, p99: f64) -> bool {
    // The 99th percentile of the standard normal distribution.
    let deviation = 4f64.ln() / 2.326_35;
    p99 / 4.0 * (deviation * normal(rng)).exp() > 1.0
}

/// How one rollout ended.
#[derive(Debug)]
pub struct Ended {
    pub end: RolloutEnd,
    /// Queries of the new version.
    pub exposed: u64,
    /// The step it ended at, from 1.
    pub step: u32,
}

/// One rollout to its end.
pub fn roll(new: Version, seed: u64) -> Ended {
    let mut rng = rng(seed);
    let mut machine = RolloutMachine::new(Rollout::new(seed, plan()));
    let mut sums = RolloutSums::none(&plan());
    let mut losses = LossPairs::default();
    let queries = QUERIES_A_SECOND / LOOKS_A_SECOND;
    let (mut now, mut query_id) = (Duration::ZERO, 0);
    loop {
        for _ in 0..queries {
            query_id += 1;
            let (percent, rollout) = (machine.rollout().percent(), machine.rollout().id);
            let of = side(percent, rollout, Drawn { uid: 0, query_id });
            let version = if of == Side::New { new } else { OLD };
            let wrong = f64::from(u8::from(rng.random::<f64>() < version.loss));
            losses.add(of, wrong);
            if of == Side::New {
                let mut count = |guard: usize, bad: bool| {
                    sums.guards[guard].count(Side::New, f64::from(u8::from(bad)));
                };
                count(0, rng.random::<f64>() < new.errors);
                count(1, is_late(&mut rng, new.p99));
                count(2, rng.random::<f64>() < new.other_answers);
                sums.exposed += 1;
            }
        }
        now += LOOK;
        sums.guards[3] = losses.sums().clone();
        let step = machine.rollout().step;
        match machine.on(RolloutInput::Look { sums: &sums, obstacle: None }, now) {
            Some(RolloutAction::Step(step)) => {
                let rollout = Rollout { step, ..machine.rollout().clone() };
                machine.on(RolloutInput::Metadata(&rollout), now);
            }
            Some(RolloutAction::End(end)) => {
                return Ended { end, exposed: sums.exposed, step: step + 1 };
            }
            None => assert!(now < HOLD * 100, "it does not end"),
        }
    }
}

/// The table, and whether it says what is promised.
#[derive(Debug)]
pub struct Report {
    pub table: String,
    pub is_as_promised: bool,
}

/// At most 5 % of good versions are rolled back, and every bad one is.
pub fn report(rollouts: u64, seed: u64) -> Report {
    let mut table = String::from(
        "| new version | rolled back | at step 1, 2, 3, 4, 5 | queries exposed: median, 95 %, \
         most |\n|---|---|---|---|\n",
    );
    let mut is_as_promised = true;
    for (at, (name, version, is_good)) in (0_u64..).zip(versions()) {
        let seeds = (0..rollouts).map(|n| seed * 1_000_003 + at * 100_003 + n);
        let back: Vec<Ended> = seeds
            .map(|seed| roll(version, seed))
            .filter(|ended| matches!(ended.end, RolloutEnd::RolledBack { .. }))
            .collect();
        let share = back.len() as f64 / rollouts as f64;
        is_as_promised &= if is_good { share <= 0.05 } else { back.len() as u64 == rollouts };
        let mut exposed: Vec<u64> = back.iter().map(|ended| ended.exposed).collect();
        exposed.sort_unstable();
        let at_step = |step| back.iter().filter(|ended| ended.step == step).count();
        let steps: Vec<String> = (1..=5).map(|step| at_step(step).to_string()).collect();
        let quantile = |part: f64| {
            let last = exposed.len().saturating_sub(1);
            exposed.get(index(part, last)).map_or("-".to_owned(), ToString::to_string)
        };
        // A text takes everything.
        let _ = writeln!(
            table,
            "| {name} | {} of {rollouts} | {} | {}, {}, {} |",
            back.len(),
            steps.join(", "),
            quantile(0.5),
            quantile(0.95),
            quantile(1.0)
        );
    }
    Report { table, is_as_promised }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of an index")]
fn index(part: f64, last: usize) -> usize {
    (part * last as f64).round() as usize
}
