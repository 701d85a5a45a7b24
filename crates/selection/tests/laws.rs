//! What holds for every policy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use clipper_domain::{ModelName, PolicyParameters, PolicySpec};
use clipper_selection::bound::{BoundPolicy, Decided};
use clipper_selection::given::{AnswerOf, GivenAnswer};
use clipper_selection::loss::Truth;
use clipper_selection::policy::{Combination, Member, Members, Picks, SelectionQuery};
use clipper_selection::state::{Contribution, SelectionState};
use clipper_selection::sticky::{self, Sticky};
use clipper_selection::table::TABLE;
use clipper_selection::value::{ModelValue, OutputKind};
use proptest::prelude::*;
use serde_json::json;

fn models(count: usize) -> Vec<ModelName> {
    (0..count).map(|n| ModelName::parse(&format!("m{n}")).unwrap()).collect()
}

fn parameters(value: serde_json::Value) -> PolicyParameters {
    let serde_json::Value::Object(parameters) = value else { panic!("{value}") };
    parameters
}

fn spec(name: &str, value: serde_json::Value) -> PolicySpec {
    PolicySpec { name: name.to_owned(), parameters: parameters(value) }
}

/// Each policy with parameters that it accepts.
fn every_policy(window: bool) -> Vec<PolicySpec> {
    let own = |name: &str| match name {
        "fixed" => json!({"model": "m1"}),
        "weighted" => json!({"weights": {"m0": 1, "m2": 3}}),
        "average" | "median" => json!({"output": "number", "weights": "learned"}),
        "cascade" => json!({"output": "vector", "order": ["m2", "m0"]}),
        "majority" => json!({"weights": {"m0": 1, "m1": 2, "m2": 0}}),
        _ => json!({}),
    };
    TABLE
        .iter()
        .map(|kind| {
            let mut spec = spec(kind.name, own(kind.name));
            if window {
                spec.parameters.insert("window".to_owned(), json!(16));
            }
            spec
        })
        .collect()
}

fn value(kind: OutputKind, number: u8) -> ModelValue {
    match kind {
        OutputKind::Label => ModelValue::Label(number.to_string().into()),
        OutputKind::Number => ModelValue::Number(f64::from(number)),
        OutputKind::Vector => {
            let sure = f64::from(number) / 255.0;
            ModelValue::Vector(vec![sure, 1.0 - sure])
        }
    }
}

fn given(policy: &BoundPolicy, picks: Picks, members: Members, answer: AnswerOf) -> GivenAnswer {
    let models = policy.models().clone();
    GivenAnswer { uid: 0, input: 0, models, picks, members, answer, by: None }
}

/// One query with its answers and its feedback.
fn round(
    policy: &BoundPolicy,
    state: &SelectionState,
    seed: u64,
    said: &[u8],
    truth: u8,
) -> Option<Contribution> {
    let standing = policy.standing(state);
    let query = SelectionQuery { seed, uid: i64::from(truth), key: None };
    let picks = policy.select(&standing, &query);
    let members: Members = picks
        .iter()
        .map(|pick| match said[pick.arm % said.len()] {
            0 => Member::Failed,
            1 => Member::Waiting,
            number => Member::Value(value(policy.output(), number % 4)),
        })
        .collect();
    let decided = policy.combine(&standing, &picks, &members, Duration::ZERO);
    let answer = match decided {
        Decided::Policy(Combination::Wait | Combination::Ask(_)) => panic!("time is up"),
        Decided::Policy(Combination::Take { member, .. }) => AnswerOf::Member(member),
        Decided::Policy(Combination::Made { .. }) => AnswerOf::Several,
        _ => AnswerOf::Nobody,
    };
    let truth = match policy.output() {
        OutputKind::Number => Truth::Output(value(OutputKind::Number, truth % 4)),
        _ => Truth::Output(value(OutputKind::Label, truth % 2)),
    };
    policy.observe(&given(policy, picks, members, answer), &truth)
}

proptest! {
    #[test]
    fn choices_are_valid_and_follow_their_seed(
        rounds in prop::collection::vec((any::<u64>(), any::<[u8; 3]>(), any::<u8>()), 0..40),
        window: bool,
    ) {
        for spec in every_policy(window) {
            let policy = BoundPolicy::bind(&spec, &models(3)).unwrap();
            let mut state = SelectionState::default();
            for (seed, said, truth) in &rounds {
                let standing = policy.standing(&state);
                let query = SelectionQuery { seed: *seed, uid: 7, key: None };
                let picks = policy.select(&standing, &query);
                prop_assert_eq!(&picks, &policy.select(&standing, &query));
                let arms: BTreeSet<usize> = picks.iter().map(|pick| pick.arm).collect();
                prop_assert!(!picks.is_empty() && arms.len() == picks.len(), "{}", spec.name);
                prop_assert!(!policy.asks_one() || picks.len() == 1, "{}", spec.name);
                for pick in &picks {
                    prop_assert!(pick.arm < 3 && pick.probability > 0.0);
                    prop_assert!(pick.probability <= 1.0 + 1e-9, "{}", spec.name);
                }
                if let Some(change) = round(&policy, &state, *seed, said, *truth) {
                    state.learn(&change);
                }
            }
        }
    }

    /// Two servers, or three, that saw different feedback add up to the same, whoever adds first.
    #[test]
    fn states_add_up_in_any_order(
        rounds in prop::collection::vec(
            (any::<u64>(), any::<[u8; 3]>(), any::<u8>(), 0..3_usize), 1..60),
        order in Just([0, 1, 2]).prop_shuffle(),
        window: bool,
    ) {
        for spec in every_policy(window) {
            let policy = BoundPolicy::bind(&spec, &models(3)).unwrap();
            let mut servers = [(); 3].map(|()| SelectionState::default());
            let mut whole = SelectionState::default();
            for (seed, said, truth, server) in &rounds {
                if let Some(change) = round(&policy, &whole, *seed, said, *truth) {
                    // What it adds is decided once, by the sum.
                    let change = whole.next(&change);
                    whole.add(&change);
                    servers[*server].add(&change);
                }
            }
            let mut left = SelectionState::default();
            for n in order {
                left.add(&servers[n]);
            }
            let mut right = servers[order[2]].clone();
            let mut tail = servers[order[1]].clone();
            tail.add(&servers[order[0]]);
            right.add(&tail);
            prop_assert_eq!(&left, &whole);
            prop_assert_eq!(&right, &whole);
            let text = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<SelectionState>(&text).unwrap(), whole);
        }
    }
}

#[test]
fn wrong_parameters_are_refused_by_their_name() {
    let cases = [
        ("no_such", json!({}), "policy: there is no policy 'no_such'"),
        ("fixed", json!({}), "model: it is missing"),
        ("fixed", json!({"model": "a:b"}), "model: it must be the name of a model"),
        ("fixed", json!({"model": "a", "extra": 1}), "extra: the policy has no such parameter"),
        ("weighted", json!({"weights": {"a": -1}}), "weights: it must be an object"),
        ("weighted", json!({"weights": {"a": 0}}), "weights: it must be an object"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "ip"}), "sticky: it must be one of"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": 1}), "sticky: it must be one of"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "field:"}), "sticky: it must be"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "field:input"}), "sticky: it must"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "field:a b"}), "sticky: it must be"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "header:"}), "sticky: it must be"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "header:a b"}), "sticky: it must be"),
        ("weighted", json!({"weights": {"a": 1}, "sticky": "cookie:a"}), "sticky: it must be"),
        ("exp3", json!({"explore": 1.5}), "explore: it must be a number from 0 to 1, not 1.5"),
        ("exp3", json!({"explore": "x"}), "explore: it must be a number"),
        ("exp3", json!({"min_confidence": 0.5}), "min_confidence: the policy has no confidence"),
        ("exp3", json!({"loss": "absolute"}), "loss: outputs that are a label"),
        ("exp3", json!({"output": "text"}), "output: it must be one of"),
        ("exp3", json!({"window": 2.5}), "window: it must be a whole number"),
        ("average", json!({}), "output: labels have no mean"),
        ("majority", json!({"output": "number"}), "output: `majority` votes on labels"),
        ("majority", json!({"weights": "best"}), "weights: it must be one of"),
        ("cascade", json!({"output": "vector"}), "order: it is missing"),
        ("cascade", json!({"output": "vector", "order": ["a", "a"]}), "order: it must be a list"),
        ("DefaultOutputSelectionPolicy", json!({"window": 9}), "window: the policy has no such"),
    ];
    for (name, value, expected) in cases {
        let error = BoundPolicy::check(&spec(name, value)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for spec in every_policy(true) {
        assert_eq!(BoundPolicy::check(&spec), Ok(()), "{}", spec.name);
    }
    assert_eq!(BoundPolicy::check(&PolicySpec::usual()), Ok(()));
}

fn labels(policy: &BoundPolicy, said: &[Option<&str>], time_left: Duration) -> Decided {
    let standing = policy.standing(&SelectionState::default());
    let picks = policy.select(&standing, &SelectionQuery { seed: 1, uid: 0, key: None });
    let member = |text: Option<&str>| match text {
        Some(text) => policy.member(text.as_bytes()),
        None => Member::Waiting,
    };
    let members: Vec<Member> = said.iter().copied().map(member).collect();
    policy.combine(&standing, &picks, &members, time_left)
}

#[test]
fn an_ensemble_waits_until_time_is_up_and_its_stragglers_lower_the_confidence() {
    let policy = BoundPolicy::bind(&spec("majority", json!({})), &models(5)).unwrap();
    let said = [Some("1"), Some("1"), Some("1.0"), Some("2"), None];
    let soon = Duration::from_millis(5);
    assert_eq!(labels(&policy, &said, soon), Decided::Policy(Combination::Wait));
    let up = labels(&policy, &said, Duration::ZERO);
    let Decided::Policy(Combination::Take { member, confidence }) = &up else { panic!("{up:?}") };
    assert!(*member == 0 && (confidence.unwrap() - 0.6).abs() < 1e-9, "{up:?}");
    let parameters = json!({"min_confidence": 0.7});
    let strict = BoundPolicy::bind(&spec("majority", parameters), &models(5)).unwrap();
    assert!(
        matches!(labels(&strict, &said, Duration::ZERO), Decided::Doubtful(sure) if sure < 0.7)
    );
    let none = labels(&policy, &[None, None, None, None, None], Duration::ZERO);
    assert_eq!(none, Decided::Policy(Combination::Nothing));
}

#[test]
fn a_cascade_asks_the_next_model_only_if_it_is_needed_and_there_is_time() {
    let parameters = json!({"output": "vector", "order": ["m1", "m0"], "next_needs_ms": 10});
    let policy = BoundPolicy::bind(&spec("cascade", parameters), &models(2)).unwrap();
    let (sure, unsure) = (Some("[0.1, 0.9]"), Some("[0.4, 0.6]"));
    let long = Duration::from_millis(50);
    let take = |member, confidence| {
        Decided::Policy(Combination::Take { member, confidence: Some(confidence) })
    };
    assert_eq!(labels(&policy, &[sure], long), take(0, 0.9));
    assert!(matches!(
        labels(&policy, &[unsure], long),
        Decided::Policy(Combination::Ask(pick)) if pick.arm == 0
    ));
    assert_eq!(labels(&policy, &[unsure], Duration::from_millis(9)), take(0, 0.6));
    assert_eq!(labels(&policy, &[None], long), Decided::Policy(Combination::Wait));
}

#[test]
fn a_user_stays_with_a_model() {
    let parameters = json!({"weights": {"m0": 1, "m1": 1}, "sticky": "uid"});
    let policy = BoundPolicy::bind(&spec("weighted", parameters), &models(2)).unwrap();
    let standing = policy.standing(&SelectionState::default());
    let arm = |seed, uid| policy.select(&standing, &SelectionQuery { seed, uid, key: None })[0].arm;
    let users: Vec<usize> = (1..1_001).map(|uid| arm(1, uid)).collect();
    assert!((1..1_001).zip(&users).all(|(uid, first)| arm(2, uid) == *first));
    let first = users.iter().filter(|arm| **arm == 0).count();
    assert!((400..600).contains(&first), "{first}");
    // Everybody is nobody in particular.
    let nobody: BTreeSet<usize> = (0..64).map(|seed| arm(seed, 0)).collect();
    assert_eq!(nobody.len(), 2);
}

#[test]
fn queries_with_the_same_key_stay_with_a_model() {
    let of = |sticky| spec("weighted", json!({"weights": {"m0": 1, "m1": 3}, "sticky": sticky}));
    // Names of headers are the same in upper and lower case; other headers than these are not.
    assert_eq!(Sticky::of(&of("header:X-Session")), Sticky::Header("x-session".to_owned()));
    assert_eq!(Sticky::of(&of("header:input")), Sticky::Header("input".to_owned()));
    let spec = of("field:session");
    assert_eq!(Sticky::of(&spec), Sticky::Field("session".to_owned()));
    let policy = BoundPolicy::bind(&spec, &models(2)).unwrap();
    let standing = policy.standing(&SelectionState::default());
    let arm = |seed, key: Option<&str>| {
        let key = key.map(sticky::key);
        policy.select(&standing, &SelectionQuery { seed, uid: 7, key })[0].arm
    };
    let of = |n: u32, seed| arm(seed, Some(&format!("session {n}")));
    let first = (0..1_000).filter(|n| of(*n, 1) == 0).count();
    assert!((200..300).contains(&first), "{first}");
    assert!((0..1_000).all(|n| of(n, 1) == of(n, 2)));
    let without: BTreeSet<usize> = (0..64).map(|seed| arm(seed, None)).collect();
    assert_eq!(without.len(), 2, "drawn anew");
}

#[test]
fn a_window_finds_a_model_that_was_broken_and_repaired() {
    let truth = Truth::Output(ModelValue::Label("1".into()));
    let picks_of = |window: Option<u64>| {
        let mut parameters = json!({});
        if let Some(window) = window {
            parameters = json!({"window": window});
        }
        let policy = BoundPolicy::bind(&spec("exp3", parameters), &models(2)).unwrap();
        let mut state = SelectionState::default();
        let mut on_best = 0;
        for round in 0..6_000_u64 {
            let standing = policy.standing(&state);
            let seed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let picks = policy.select(&standing, &SelectionQuery { seed, uid: 0, key: None });
            let is_broken = (1_500..3_000).contains(&round);
            let is_right = match picks[0].arm {
                0 => !is_broken,
                _ => round % 3 != 0,
            };
            on_best += u64::from(round >= 5_000 && picks[0].arm == 0);
            let member = Member::Value(ModelValue::Label(u8::from(is_right).to_string().into()));
            let given = given(&policy, picks, Members::from_elem(member, 1), AnswerOf::Member(0));
            state.learn(&policy.observe(&given, &truth).unwrap());
        }
        on_best
    };
    assert!(picks_of(Some(800)) > 700, "{}", picks_of(Some(800)));
    assert!(picks_of(None) < picks_of(Some(800)));
}
