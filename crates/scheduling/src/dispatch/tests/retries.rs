//! What becomes of queries whose replica fails.

use super::*;

fn too_large() -> Departure {
    Departure::AnswerTooLarge("larger than rpc.message_max_bytes".into())
}

fn broke() -> Departure {
    Departure::Broke("it broke a rule".into())
}

impl Bench {
    /// Everything that was sent is answered; the sizes of its batches.
    fn finish(&mut self) -> Vec<usize> {
        let mut answered = 0;
        while let Some((replica, batch, _)) = self.sent.get(answered).cloned() {
            answered += 1;
            self.on(Event::Done { replica, batch });
        }
        assert_eq!(self.dispatcher.unfinished(), 0);
        self.sent.drain(..).map(|(_, _, inputs)| inputs.len()).collect()
    }

    /// How large the first batch of many queries is.
    fn next_batch(&mut self) -> usize {
        self.ask(0, 16, LONG);
        self.finish()[0]
    }
}

#[test]
fn an_answer_clears_an_input_of_suspicion() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask_inputs(0, 100..101, LONG);
    bench.lose(ReplicaId(0), died());
    bench.join(1);
    bench.answer();
    // It has killed nobody: a death later is its first one.
    bench.ask_inputs(0, 100..101, LONG);
    bench.lose(ReplicaId(1), died());
    bench.join(2);
    assert_eq!((bench.resolved.len(), bench.last_sent().0), (0, ReplicaId(2)));
}

#[test]
fn deaths_are_remembered_beyond_the_query() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    let asked = bench.ask_inputs(0, 100..101, LONG);
    asked[0].0.awaited.set(false);
    bench.lose(ReplicaId(0), died());
    assert_eq!(bench.resolved.len(), 1, "nobody waits for it");
    bench.join(1);
    bench.ask_inputs(0, 100..101, LONG);
    bench.lose(ReplicaId(1), died());
    assert_eq!(bench.resolved.len(), 2, "its second death, and it was alone");
    assert!(bench.resolved[1].1.to_string().contains("2 replicas have failed on this input"));
}

#[test]
fn a_query_is_tried_as_often_as_the_limit_says() {
    for attempts_max in 1..5 {
        let mut bench = Bench::new(Limits { attempts_max, ..fixed(1) });
        bench.join(0);
        bench.ask(0, 1, LONG);
        let mut tries = 0;
        for replica in 1..10 {
            if bench.resolved.is_empty() {
                tries += 1;
                bench.lose(bench.last_sent().0, broke());
                bench.join(replica);
            }
        }
        assert_eq!(tries, attempts_max);
        let (_, reason) = &bench.resolved[0];
        assert!(reason.to_string().contains("it broke a rule"), "{reason}");
    }
}

#[test]
fn a_broken_rule_is_not_held_against_the_input() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask_inputs(0, 100..101, LONG);
    for replica in 1..3 {
        bench.lose(bench.last_sent().0, broke());
        bench.join(replica);
    }
    assert_eq!(bench.resolved.len(), 1);
    bench.ask_inputs(0, 100..101, LONG);
    assert_eq!((bench.resolved.len(), bench.last_sent().2), (1, vec![100]), "it is tried again");
    bench.lose(bench.last_sent().0, died());
    assert_eq!(bench.resolved.len(), 1, "one death may be chance");
}

#[test]
fn innocent_queries_take_no_place_among_the_suspected() {
    let mut bench = Bench::new(Limits { poison_max: 1, ..fixed(1) });
    bench.join(0);
    let asked = bench.ask_inputs(0, 100..101, LONG);
    asked[0].0.awaited.set(false);
    bench.lose(ReplicaId(0), died());
    bench.join(1);
    bench.ask_inputs(0, 200..201, LONG);
    bench.lose(ReplicaId(1), Departure::Orderly("told to go".into()));
    bench.join(2);
    bench.answer();
    bench.ask_inputs(0, 100..101, LONG);
    bench.lose(ReplicaId(2), died());
    assert_eq!(bench.resolved.len(), 2, "its second death");
    assert!(bench.resolved[1].1.to_string().contains("2 replicas have failed on this input"));
}

#[test]
fn with_one_attempt_nobody_is_tried_again_not_even_alone() {
    let mut bench = Bench::new(Limits { attempts_max: 1, ..fixed(2) });
    bench.join(0);
    bench.ask(0, 2, LONG);
    bench.lose(ReplicaId(0), died());
    bench.join(1);
    assert_eq!((bench.resolved.len(), bench.sent.len()), (2, 1));
}

#[test]
fn replicas_that_are_told_to_go_cost_no_attempt_within_reason() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 1, LONG);
    let mut tries = 0;
    for replica in 1..10 {
        if bench.resolved.is_empty() {
            tries += 1;
            bench.lose(bench.last_sent().0, Departure::Orderly("told to go".into()));
            bench.join(replica);
        }
    }
    assert_eq!(tries, 3, "two, and once more");
}

#[test]
fn a_batch_that_fails_is_tried_again_in_halves_and_at_last_alone() {
    let mut bench = Bench::new(Limits { attempts_max: 3, ..fixed(9) });
    bench.join(0);
    bench.ask(0, 9, LONG);
    bench.lose(ReplicaId(0), died());
    bench.join(1);
    assert_eq!(bench.last_sent().2.len(), 5);
    bench.lose(ReplicaId(1), died());
    bench.join(2);
    // Four that were not in it come with the half of nine, or the five in smaller company.
    assert!(bench.last_sent().2.len() <= 5);
    let sizes: Vec<_> = bench.sent.iter().map(|(_, _, inputs)| inputs.len()).collect();
    assert!(sizes.iter().skip(1).all(|size| *size <= 5), "{sizes:?}");
}

#[test]
fn batches_are_limited_for_a_while_that_doubles() {
    let keep = fixed(8).poison_keep;
    let mut bench = Bench::new(fixed(8));
    bench.join(0);
    let (mut replica, mut expected) = (1, keep);
    for _ in 0..3 {
        bench.ask(0, 8, LONG);
        assert_eq!(bench.last_sent().2.len(), 8);
        bench.lose(bench.last_sent().0, too_large());
        bench.sent.clear();
        bench.join(replica);
        replica += 1;
        assert!(bench.finish().iter().all(|size| *size <= 4));
        let struck = bench.now;
        bench.now = struck + expected - ms(1);
        bench.on(Event::Time);
        assert_eq!(bench.next_batch(), 4, "{expected:?} are not over");
        bench.now = struck + expected;
        bench.on(Event::Time);
        assert_eq!(bench.next_batch(), 8, "{expected:?} are over");
        expected *= 2;
    }
}

#[test]
fn a_query_of_a_batch_that_was_too_large_stays_in_smaller_company() {
    let mut bench = Bench::new(Limits { poison_keep: ms(10), ..fixed(8) });
    bench.join(0);
    bench.ask(0, 8, LONG);
    bench.lose(ReplicaId(0), too_large());
    bench.at(ms(20)).on(Event::Time);
    bench.join(1);
    assert_eq!(bench.last_sent().2.len(), 4, "although batches are limited no more");
    bench.finish();
    assert_eq!(bench.next_batch(), 8);
}

#[test]
fn a_larger_batch_that_was_on_its_way_raises_no_limit() {
    let mut bench = Bench::new(fixed(16));
    bench.join(0);
    bench.ask(0, 4, LONG);
    bench.join(1);
    bench.ask(0, 16, LONG);
    let sizes: Vec<_> = bench.sent.iter().map(|(_, _, inputs)| inputs.len()).collect();
    assert_eq!(sizes, [4, 16]);
    bench.lose(ReplicaId(0), too_large());
    bench.lose(ReplicaId(1), too_large());
    bench.sent.clear();
    bench.join(2);
    let sizes = bench.finish();
    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");
}

#[test]
fn an_input_whose_answer_alone_is_too_large_is_not_tried_again() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask_inputs(0, 100..101, LONG);
    bench.lose(ReplicaId(0), too_large());
    bench.join(1);
    assert_eq!((bench.resolved.len(), bench.sent.len()), (1, 1));
    bench.ask_inputs(0, 100..101, LONG);
    assert_eq!((bench.resolved.len(), bench.sent.len()), (2, 1));
}

#[test]
fn a_hedged_query_survives_the_death_of_its_first_replica() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.join(1);
    bench.learn();
    bench.ask(0, 1, ms(200));
    let (first, ..) = bench.last_sent();
    bench.at(ms(150)).on(Event::Time);
    let (second, batch, inputs) = bench.last_sent();
    assert!(second != first && inputs == bench.sent[0].2);
    bench.lose(first, died());
    assert_eq!((bench.resolved.len(), bench.sent.len()), (0, 2), "the second one has it");
    assert_eq!(bench.dispatcher.load().waiting, 0, "and nobody else is to have it");
    bench.on(Event::Done { replica: second, batch });
    assert_eq!(bench.dispatcher.unfinished(), 0);
}

#[test]
fn the_first_answer_of_two_counts_and_the_second_frees_its_replica() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.join(1);
    bench.learn();
    bench.ask(0, 1, ms(200));
    bench.at(ms(150)).on(Event::Time);
    let sent: Vec<_> = bench.sent.iter().map(|(replica, batch, _)| (*replica, *batch)).collect();
    assert_eq!(sent.len(), 2);
    for (replica, batch) in sent {
        bench.on(Event::Done { replica, batch });
        assert_eq!(bench.dispatcher.unfinished(), 0);
    }
    bench.ask(0, 2, ms(200));
    assert_eq!(bench.sent.len(), 4, "both are free");
}

#[test]
fn a_replica_that_joins_again_has_left_before() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 1, LONG);
    bench.join(0);
    assert_eq!(bench.sent.len(), 2, "what it had is sent again");
    assert_eq!(bench.dispatcher.load().replicas, 1);
}
