//! Tests of [`super`]: who is admitted, and when a picture is worth being shown again.

use super::*;
use crate::share::{AppId, Class, Tenant};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn share(app: u64) -> Share {
    Share::equal(AppId(app))
}

/// Ten queries in ten milliseconds.
fn ten() -> Batches {
    Batches { queries: 10, time: ms(10), ..Batches::default() }
}

fn round_of(full: Batches) -> Round {
    Round { full, ..Round::default() }
}

fn round() -> Round {
    round_of(ten())
}

/// So many queries with an objective of 100 ms wait, of no application.
fn load(waiting: usize) -> Load {
    let mut objectives = ObjectiveCounts::default();
    (0..waiting).for_each(|_| objectives.add(ms(100)));
    Load { waiting, objectives, round: round(), ..Load::default() }
}

fn asking(queries: usize, now: Instant, due: Duration) -> Asking {
    Asking { share: share(1), queries, objective: ms(100), deadline: now + due }
}

#[test]
fn a_query_stands_behind_those_with_an_objective_as_tight_or_tighter() {
    let mut counts = ObjectiveCounts::default();
    counts.add(ms(1));
    counts.add(ms(1));
    counts.add(ms(100));
    assert_eq!((counts.ahead_of(ms(1)), counts.ahead_of(ms(100))), (2, 3));
    assert_eq!(counts.ahead_of(Duration::from_micros(100)), 0);
    counts.remove(ms(1));
    assert_eq!((counts.ahead_of(ms(1)), counts.ahead_of(ms(100))), (1, 2));
    let (long, longest) = (Duration::from_secs(600), Duration::from_secs(1 << 40));
    counts.add(longest);
    assert_eq!((counts.ahead_of(long), counts.ahead_of(longest)), (2, 3));
    counts.remove(Duration::from_secs(1));
    assert_eq!(counts.ahead_of(long), 2, "one that is not there takes nothing away");
}

#[test]
fn capacity_is_what_whole_rounds_hold_until_the_deadline() {
    let now = clipper_clock::now();
    let of = |round: Round, due: Duration| round.capacity(now, now + due);
    // 8 % of the time are not planned with.
    assert_eq!(of(round(), ms(100)), 90, "nine rounds in 92 ms");
    assert_eq!(of(round_of(Batches { time: ms(7), ..ten() }), ms(100)), 130, "13 of 7 ms");
    assert_eq!(of(round_of(Batches { spread: ms(3), ..ten() }), ms(100)), 80, "89 ms are left");
    let smaller = |time, spread| Batches { queries: 3, time: ms(time), spread: ms(spread) };
    let slow = |in_time| Round { in_time, ..round_of(Batches { time: ms(300), ..ten() }) };
    assert_eq!(of(slow(Batches::default()), ms(100)), 0, "a full one would be late");
    assert_eq!(of(slow(smaller(40, 0)), ms(100)), 6, "two smaller ones are not");
    assert_eq!(of(slow(smaller(40, 20)), ms(100)), 3);
    assert_eq!(of(slow(smaller(40, 0)), ms(400)), 27, "nine of them are more than one of ten");
    assert_eq!(of(slow(smaller(200, 0)), ms(400)), 10, "and one is not");
    let ends = |at: Instant| Round { ends: Some(at), ..round() };
    assert_eq!(of(ends(now + ms(5)), ms(100)), 80, "the round under way takes 5 ms");
    assert_eq!(of(ends(now + ms(50)), ms(100)), 80, "no round takes longer than one");
    let ago = |by| now.checked_sub(ms(by)).expect("the clock is not that young");
    assert_eq!(of(ends(ago(1)), ms(100)), 90, "it should have ended 1 ms ago");
    assert_eq!(of(ends(ago(4)), ms(100)), 80, "the longer overdue, the longer it may last");
    assert_eq!(of(ends(ago(500)), ms(100)), 80, "but not longer than a round");
    assert_eq!(of(round(), Duration::ZERO), 0);
}

#[test]
fn who_finds_nobody_before_it_can_always_make_it() {
    let now = clipper_clock::now();
    let (round, due) = (round(), now + ms(100));
    assert!(round.can_make_it(89, now, due) && !round.can_make_it(90, now, due));
    assert!(!round.can_make_it(91, now, due));
    assert!(round.can_make_it(0, now, now) && !round.can_make_it(1, now, now));
    let unknown = Round { full: Batches { queries: 0, ..ten() }, ..round };
    assert!(unknown.can_make_it(1_000, now, now), "nothing is known of the model");
}

#[test]
fn there_is_room_for_what_fits_behind_those_that_wait() {
    let now = clipper_clock::now();
    let room = |load: &Load, queries, more| load.room(&asking(queries, now, ms(100)), more, now);
    assert_eq!((room(&load(85), 10, 0), room(&load(85), 3, 0)), (5, 3));
    assert_eq!((room(&load(85), 10, 3), room(&load(85), 10, 5), room(&load(90), 1, 0)), (2, 0, 0));
    let unknown = Load { round: round_of(Batches { queries: 0, ..ten() }), ..load(85) };
    assert_eq!(room(&unknown, 1_000, 7), 1_000);
}

#[test]
fn somebody_finds_out_whether_the_model_has_become_faster() {
    let now = clipper_clock::now();
    let late = |load: &Load, queries| load.room(&asking(queries, now, ms(5)), 0, now);
    assert_eq!((late(&load(0), 1), late(&load(0), 2), late(&load(0), 20)), (1, 2, 10));
    assert_eq!((late(&load(1), 1), late(&load(1), 20)), (0, 0));
}

#[test]
fn a_guess_refuses_nobody_unless_there_is_no_room_at_all() {
    let now = clipper_clock::now();
    let guess = |waiting| Load { round: Round { is_guess: true, ..round() }, ..load(waiting) };
    assert_eq!(guess(85).room(&asking(50, now, ms(100)), 0, now), 50);
    assert_eq!(guess(90).room(&asking(50, now, ms(100)), 0, now), 0);
}

#[test]
fn an_application_gets_its_share_of_the_capacity_whatever_others_ask() {
    let now = clipper_clock::now();
    let of = |app, weight| Share { weight, ..share(app) };
    let app = |app, weight, waiting| AppLoad { share: of(app, weight), waiting };
    let mut load = load(88);
    load.apps = [app(1, 1, 3), app(2, 2, 85)].into_iter().collect();
    let ask = |load: &Load, weight, queries| {
        load.room(&Asking { share: of(1, weight), ..asking(queries, now, ms(100)) }, 0, now)
    };
    assert_eq!(ask(&load, 1, 50), 27, "a third of 90, less the three that wait");
    assert_eq!(ask(&load, 2, 50), 42, "a half");
    assert_eq!(ask(&load, 0, 50), 27, "nobody weighs less than 1");
    load.apps = [app(2, 2, 88)].into_iter().collect();
    assert_eq!(ask(&load, 1, 50), 30);
    load.apps = [app(1, 1, 88)].into_iter().collect();
    assert_eq!(ask(&load, 1, 50), 2, "alone it has everything, in the order of deadlines");
}

#[test]
fn classes_share_what_their_application_has_and_none_is_left_out() {
    let now = clipper_clock::now();
    let of = |app, class| Share { class, ..share(app) };
    let mut load = load(90);
    let app = |share, waiting| AppLoad { share, waiting };
    load.apps = [
        app(of(1, Class::High), 60),
        app(of(1, Class::Normal), 10),
        app(of(2, Class::Low), 10),
        app(of(2, Class::High), 10),
    ]
    .into_iter()
    .collect();
    let ask = |load: &Load, share| load.room(&Asking { share, ..asking(50, now, ms(100)) }, 0, now);
    // Application 1 has 45 of 90, whatever the classes of the other one are.
    assert_eq!(ask(&load, of(1, Class::High)), 0);
    assert_eq!(ask(&load, of(1, Class::Normal)), 0, "9 of 45, less the ten that wait");
    assert_eq!(ask(&load, of(1, Class::Low)), 3, "45 / 21, rounded up");
    assert_eq!(ask(&load, of(2, Class::High)), 33, "43 less ten");
    assert_eq!(ask(&load, of(3, Class::Low)), 30, "alone in its application");
    // Where there is a single place, it is not the highest class's alone.
    load.round.full.queries = 1;
    load.apps = [app(of(1, Class::High), 60)].into_iter().collect();
    assert_eq!(ask(&load, of(1, Class::Low)), 1);
}

#[test]
fn those_who_ask_an_application_share_its_room() {
    let now = clipper_clock::now();
    let of = |app, name| Share { tenant: Tenant::of(name), ..share(app) };
    let low = |share: Share| Share { class: Class::Low, ..share };
    let high = |share: Share| Share { class: Class::High, ..share };
    let mut load = load(90);
    let flood = of(1, "flood");
    load.apps = [(flood, 60), (low(flood), 10), (high(flood), 10), (share(2), 10)]
        .into_iter()
        .map(|(share, waiting)| AppLoad { share, waiting })
        .collect();
    let ask = |share| load.room(&Asking { share, ..asking(50, now, ms(100)) }, 0, now);
    assert_eq!(ask(flood), 0);
    assert_eq!(ask(of(1, "calm")), 22, "half of the 45 of its application");
    assert_eq!(ask(low(of(1, "calm"))), 22, "alone in what it asks");
    assert_eq!(ask(share(1)), 22, "those without a name count as one");
    assert_eq!(ask(share(2)), 35);
}

#[test]
fn a_picture_differs_where_somebody_may_decide_otherwise() {
    let now = clipper_clock::now();
    let idle = || Load {
        replicas: 1,
        round: round_of(Batches { time: ms(100), ..ten() }),
        ..Load::default()
    };
    assert!(!Load::default().differs(&Load::default()) && !idle().differs(&idle()));
    let changes: [fn(&mut Load); 8] = [
        |load| load.replicas += 1,
        |load| load.round.full.queries += 1,
        |load| load.round.is_guess = true,
        |load| load.curve.explored += 1,
        |load| load.round.full.time = ms(106),
        |load| load.round.full.spread = ms(30),
        |load| load.round.in_time.queries = 1,
        |load| load.round.in_time.time = ms(1),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut new = idle();
        change(&mut new);
        assert!(new.differs(&idle()) && idle().differs(&new), "{n}");
    }
    let near = |time, spread| Load {
        round: round_of(Batches { time: ms(time), spread: ms(spread), ..ten() }),
        ..idle()
    };
    assert!(!near(105, 0).differs(&near(100, 0)), "five hundredths are nothing");
    assert!(!near(100, 104).differs(&near(100, 100)), "of both together");
    assert!(near(100, 120).differs(&near(100, 100)) && near(100, 100).differs(&near(100, 120)));
    let ending = Load { round: Round { ends: Some(now), ..idle().round }, ..idle() };
    assert!(!ending.differs(&idle()), "when nobody waits, nobody asks when a round ends");
}

#[test]
fn while_queries_wait_a_picture_differs_by_whatever_they_are() {
    let now = clipper_clock::now();
    assert!(!load(3).differs(&load(3)));
    assert!(load(1).differs(&load(0)) && load(0).differs(&load(1)));
    let waiting = |waiting| Load { waiting, ..load(0) };
    assert!(waiting(1).differs(&waiting(0)) && waiting(0).differs(&waiting(1)));
    assert!(waiting(2).differs(&waiting(1)));
    let ending = Load { round: Round { ends: Some(now), ..round() }, ..load(3) };
    assert!(ending.differs(&load(3)));
    let apps = [AppLoad { share: share(1), waiting: 3 }].into_iter().collect();
    assert!(Load { apps, ..load(3) }.differs(&load(3)));
    let mut tighter = load(3);
    tighter.objectives.add(ms(1));
    tighter.objectives.remove(ms(100));
    assert!(tighter.differs(&load(3)));
}
