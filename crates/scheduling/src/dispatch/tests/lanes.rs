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

#[test]
fn line_02_an_input_that_kills_after_its_first_piece_kills_no_more_than_two() {
    let mut bench = bench();
    for lane in [10, 11] {
        let asked = bench.ask_inputs(1, 0..1, ms(1_000));
        let (replica, ..) = bench.last_sent();
        asked[0].0.begun.set(true);
        bench.lose(replica, died());
        let (replica, unanswered) = (ReplicaId(lane), Vec::new());
        bench.on(Event::Joined { replica, unanswered, is_lane: true });
    }
    assert_eq!((bench.sent.len(), bench.resolved.len()), (2, 2), "none is begun again");
    bench.ask_inputs(1, 0..1, ms(1_000));
    assert_eq!((bench.sent.len(), bench.resolved.len()), (2, 3), "known by now");
}

#[test]
fn line_03_hedges_that_fit_into_one_batch_leave_a_replica_beside_a_lane() {
    let mut bench = Bench::new(fixed(6));
    bench.join(9);
    bench.ask(0, 6, ms(2_000));
    bench.now += ms(10);
    bench.answer();
    bench.ask(0, 6, ms(2_000));
    let (replica, unanswered) = (ReplicaId(0), Vec::new());
    bench.on(Event::Joined { replica, unanswered, is_lane: true });
    bench.join(8);
    let before = bench.sent.len();
    for after in 1..20 {
        bench.at(ms(50 * after)).on(Event::Time);
    }
    assert_eq!(bench.sent.len(), before + 1, "one of the two is left to others");
}
