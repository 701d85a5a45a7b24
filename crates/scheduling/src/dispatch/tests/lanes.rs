//! Lanes of containers that answer in pieces.

use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new(fixed(8));
    for lane in 0..2 {
        let (replica, unanswered) = (ReplicaId(lane), Vec::new());
        bench.on(Event::Joined { replica, unanswered, is_lane: true });
    }
    bench
}

#[test]
fn each_lane_takes_one_query_and_nothing_ahead() {
    let mut bench = bench();
    bench.ask(1, 5, ms(1_000));
    let sizes = |bench: &Bench| bench.sent.iter().map(|(_, _, n)| n.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&bench), [1, 1]);
    for after in [10, 100, 900] {
        bench.at(ms(after)).on(Event::Time);
    }
    assert_eq!(sizes(&bench), [1, 1], "a lane that takes long gets no more, and nobody hedges");
    bench.answer();
    assert_eq!(sizes(&bench), [1, 1, 1]);
}

#[test]
fn how_long_an_answer_in_pieces_takes_teaches_nothing() {
    let mut bench = bench();
    bench.ask(1, 1, ms(1_000));
    bench.at(Duration::from_secs(60)).answer();
    assert!(!bench.dispatcher.load().curve.is_known());
    bench.ask(1, 3, ms(1_000));
    assert_eq!((bench.sent.len(), bench.resolved.len()), (3, 0), "nobody is turned away");
}

#[test]
fn a_lane_may_take_until_the_longest_that_any_may() {
    let mut bench = bench();
    bench.ask(1, 1, ms(1_000));
    bench.at(Duration::from_secs(599)).on(Event::Time);
    assert!(bench.given_up.is_empty());
    bench.at(Duration::from_secs(601)).on(Event::Time);
    assert_eq!(bench.given_up.len(), 1);
}
