//! Whom feedback counts for, and who leaves when there are too many.

use std::collections::BTreeMap;

use super::*;
use clipper_domain::ModelName;
use clipper_selection::state::ArmSums;

fn states(users: usize, users_in_sum: usize) -> LearnedStates {
    LearnedStates::new(LearnedLimits { users, users_in_sum, window: 10 })
}

fn app(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

fn taught() -> Contribution {
    let arms = BTreeMap::from([(ModelName::parse("m").unwrap(), ArmSums::of(1.0, 1.0))]);
    Contribution { window: None, arms }
}

fn learn(states: &LearnedStates, name: &str, uids: &[i64]) {
    let feedback: Vec<_> = uids.iter().map(|uid| (*uid, taught())).collect();
    states.learn(&app(name), &feedback);
}

#[test]
fn a_users_feedback_counts_for_the_user_and_for_everybody() {
    let states = states(10, 10);
    learn(&states, "a", &[7, 7, 8, 0]);
    let learned = states.of(&app("a"));
    let rounds = |uid| learned.of_user(uid).rounds();
    assert_eq!((rounds(0), rounds(7), rounds(8)), (4, 2, 1));
    // Who has given none goes by everybody's.
    assert_eq!((rounds(9), learned.of_user_alone(9)), (4, None));
    states.forget(&app("a"));
    assert_eq!((rounds(0), rounds(7), states.users()), (0, 0, 0));
    assert_eq!(states.of(&app("a")).of_user(0).rounds(), 0);
}

#[test]
fn the_least_recently_used_leave_and_are_asked_for_when_they_come_back() {
    let states = states(3, 100);
    learn(&states, "a", &[1, 2, 3]);
    let learned = states.of(&app("a"));
    assert!(states.too_many().is_empty());
    // A prediction is a use too.
    assert_eq!(learned.of_user(1).rounds(), 1);
    learn(&states, "a", &[4]);
    assert_eq!(states.too_many(), [(app("a"), 2)]);
    // Nobody leaves before they are saved.
    assert!(learned.knows(2) && !states.may_know_more());
    states.drop_saved(&[(app("a"), 2)]);
    assert!(!learned.knows(2) && states.may_know_more() && states.too_many().is_empty());
    assert_eq!((learned.of_user_alone(2), learned.of_user(2).rounds()), (None, 4));
    assert_eq!(states.take_wanted(), BTreeSet::from([(app("a"), 2)]));
    assert!(states.take_wanted().is_empty());
}

#[test]
fn users_are_bounded_in_sum_too() {
    let states = states(10, 4);
    learn(&states, "a", &[1, 2, 3]);
    learn(&states, "b", &[1, 2]);
    assert_eq!(states.too_many(), [(app("a"), 1)]);
    states.drop_saved(&states.too_many());
    learn(&states, "b", &[3]);
    assert_eq!(states.too_many(), [(app("a"), 2)]);
}

#[test]
fn what_other_frontends_were_told_counts_once() {
    let states = states(10, 10);
    learn(&states, "a", &[7]);
    let (me, other): (&str, Arc<str>) = ("me", "other".into());
    let part = states.of(&app("a")).own_part(7).unwrap();
    let hear = |version| {
        let part = Part { version, state: Arc::clone(&part.state) };
        states.hear(&app("a"), 7, me, [(Arc::clone(&other), part)].into_iter())
    };
    assert!(!hear(5) && !hear(5) && !hear(3));
    assert_eq!(states.of(&app("a")).of_user(7).rounds(), 2);
    learn(&states, "a", &[7]);
    let learned = states.of(&app("a"));
    assert_eq!((learned.of_user(7).rounds(), learned.own_part(7).unwrap().version), (3, 2));
    // Its own, from before it was set back.
    let own = Part { version: 9, state: Arc::clone(&learned.own_part(7).unwrap().state) };
    assert!(states.hear(&app("a"), 7, me, [("me".into(), own)].into_iter()));
}
