//! Policies at play, as a server would use them.

#![allow(clippy::unwrap_used, reason = "nothing here comes from outside")]

use clipper_domain::{ModelName, PolicyParameters, PolicySpec};
use clipper_selection::bound::BoundPolicy;
use clipper_selection::given::{AnswerOf, GivenAnswer};
use clipper_selection::loss::Truth;
use clipper_selection::policy::{Member, Members, SelectionQuery};
use clipper_selection::state::{ArmSums, Contribution, SelectionState};
use clipper_selection::value::ModelValue;
use clipper_selection::weights::{learned, spread};

use crate::game::{ARMS, GAP, Game};

pub const LEARNERS: [&str; 5] = ["exp3", "exp4", "epsilon_greedy", "ucb1", "thompson"];

fn policy(name: &str) -> BoundPolicy {
    let mut parameters = PolicyParameters::new();
    parameters.insert("loss".to_owned(), "given".into());
    let spec = PolicySpec { name: name.to_owned(), parameters };
    let models: Vec<ModelName> =
        (0..ARMS).map(|arm| ModelName::parse(&format!("m{arm}")).unwrap()).collect();
    BoundPolicy::bind(&spec, &models).unwrap()
}

/// How much more a policy loses than the best model.
pub fn regret(name: &str, game: Game, rounds: u64, seed: u64) -> f64 {
    let policy = policy(name);
    let mut state = SelectionState::default();
    let mut sums = [0.0; ARMS];
    let mut own = 0.0;
    for round in 0..rounds {
        let losses: [f64; ARMS] = std::array::from_fn(|arm| game.loss(seed, round, arm));
        for (sum, loss) in sums.iter_mut().zip(losses) {
            *sum += loss;
        }
        let standing = policy.standing(&state);
        let query = SelectionQuery { seed: spread(seed ^ spread(round)), uid: 0, key: None };
        let picks = policy.select(&standing, &query);
        let member = Member::Value(ModelValue::Label("0".into()));
        if let [pick] = picks.as_slice() {
            let loss = losses[pick.arm];
            own += loss;
            let (models, members) = (policy.models().clone(), Members::from_elem(member, 1));
            let answer = AnswerOf::Member(0);
            let given = GivenAnswer { uid: 0, input: 0, models, picks, members, answer, by: None };
            state.learn(&policy.observe(&given, &Truth::Loss(loss)).unwrap());
        } else {
            // All are asked: the loss is that of the weights, and each model learns its own.
            let weights = learned(&standing, None);
            own += weights.iter().zip(losses).map(|(weight, loss)| weight * loss).sum::<f64>();
            let arms = picks.iter().map(|pick| {
                (policy.models()[pick.arm].clone(), ArmSums::of(losses[pick.arm], 1.0))
            });
            state.learn(&Contribution { window: None, arms: arms.collect() });
        }
    }
    own - sums.into_iter().fold(f64::INFINITY, f64::min)
}

/// What theory allows, in expectation; `None`: nothing below a part of all rounds.
pub fn bound(name: &str, game: Game, rounds: u64) -> Option<f64> {
    let (n, k) = (rounds as f64, ARMS as f64);
    let worse = k - 1.0;
    match (name, game) {
        // Exploring evenly costs its part of the gap besides.
        ("exp3", _) => Some(2.0 * (n * k * k.ln()).sqrt() + 0.01 * n * GAP),
        ("exp4", _) => Some(2.0 * (n / 2.0 * k.ln()).sqrt() + (k.ln() / 8.0).sqrt()),
        ("epsilon_greedy", Game::Stochastic) => {
            // What exploring costs for ever, and what finding the best one costs, generously.
            Some(0.1 * n * GAP * worse / k + 50.0 * k / GAP)
        }
        ("ucb1", Game::Stochastic) => {
            let pi = std::f64::consts::PI;
            Some(worse * (8.0 * n.ln() / GAP + (1.0 + pi * pi / 3.0) * GAP))
        }
        ("thompson", Game::Stochastic) => {
            // Agrawal and Goyal (2013), theorem 1, with their epsilon at 1.
            let (best, other): (f64, f64) = (0.5 - GAP, 0.5);
            let apart =
                best * (best / other).ln() + (1.0 - best) * ((1.0 - best) / (1.0 - other)).ln();
            Some(2.0 * worse * GAP * n.ln() / apart + k)
        }
        _ => None,
    }
}
