//! What goes into a batch, and when it is sent.

use super::*;
use crate::gather::WAIT;

const OBJECTIVE: Duration = ms(200);

impl Bench {
    /// So many callers ask a new input each, at once.
    fn ask_each(&mut self, callers: u64, objective: Duration) {
        let (arrived, deadline) = (self.now, self.now + objective);
        let arrival = |input| {
            let queries = std::iter::once(Asked::new(arrived, deadline, input)).collect();
            Arrival { share: Share::equal(AppId(0)), deadline, queries }
        };
        let inputs = self.next_input..self.next_input + callers;
        self.next_input = inputs.end;
        let mut arrivals: Vec<_> = inputs.map(arrival).collect();
        self.on(Event::Arrived(&mut arrivals));
    }
}

/// Up to eight queries at a time were asked, and a batch takes 10 ms whatever is in it.
fn crowd() -> Bench {
    let mut bench = Bench::new(fixed(16));
    bench.join(0);
    for callers in (1..=8).cycle().take(160) {
        bench.ask_each(callers, OBJECTIVE);
        bench.now += WAIT;
        bench.on(Event::Time);
        bench.now += ms(10);
        bench.answer();
    }
    bench.sent.clear();
    bench
}

#[test]
fn a_small_batch_waits_for_callers_that_come_back() {
    let mut bench = crowd();
    for _ in 0..4 {
        bench.ask(0, 1, OBJECTIVE);
        assert_eq!(bench.sent.len(), 0);
    }
    bench.ask(0, 1, OBJECTIVE);
    assert_eq!((bench.sent.len(), bench.last_sent().2.len()), (1, 5), "most of the crowd is there");
}

#[test]
fn of_two_large_requests_none_waits_for_the_other() {
    let mut bench = Bench::new(fixed(100));
    bench.join(0);
    for _ in 0..20 {
        bench.ask(0, 30, OBJECTIVE);
        bench.ask(0, 30, OBJECTIVE);
        bench.now += ms(10);
        bench.answer();
        bench.answer();
    }
    bench.sent.clear();
    bench.ask(0, 30, OBJECTIVE);
    assert_eq!(bench.sent.len(), 1, "three quarters of two are one");
}

#[test]
fn a_request_that_nobody_else_would_join_goes_ahead() {
    let mut bench = Bench::new(fixed(100));
    bench.join(0);
    for _ in 0..20 {
        bench.ask(0, 30, OBJECTIVE);
        bench.now += ms(10);
        bench.answer();
    }
    bench.sent.clear();
    bench.ask(0, 30, OBJECTIVE);
    bench.now += ms(5);
    let second = bench.ask(0, 30, OBJECTIVE).remove(0);
    assert_eq!(bench.sent.len(), 1, "not earlier than need be");
    bench.now += ms(4);
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 2, "the first is about to end");
    assert_eq!(second.0.sent.get().map(|to| to.reason), Some(BatchReason::Ahead));
}

#[test]
fn callers_at_once_are_admitted_where_a_full_batch_of_a_fixed_size_would_be_late() {
    // It takes 10 ms whatever is in it, but that is not known before there was one of several.
    let mut bench = Bench::new(fixed(64));
    bench.join(0);
    bench.learn();
    bench.ask_each(5, OBJECTIVE);
    assert_eq!((bench.resolved.len(), bench.last_sent().2.len()), (0, 5));
}

#[test]
fn where_replicas_have_time_nobody_waits_for_a_crowd() {
    let sent_at_once_after = |quiet| {
        let mut bench = crowd();
        bench.now += quiet;
        bench.ask(0, 1, OBJECTIVE);
        bench.sent.len() == 1
    };
    assert!(!sent_at_once_after(ms(10)));
    assert!(sent_at_once_after(ms(1_000)), "one at a time would do");
}

#[test]
fn more_replicas_have_more_time() {
    let sent_at_once_with = |replicas| {
        let mut bench = crowd();
        (1..replicas).for_each(|replica| bench.join(replica));
        bench.ask(0, 1, OBJECTIVE);
        bench.sent.len() == 1
    };
    assert!(!sent_at_once_with(2) && sent_at_once_with(20));
}

#[test]
fn it_waits_for_one_tick() {
    let mut bench = crowd();
    bench.ask(0, 1, OBJECTIVE);
    bench.now += WAIT / 2;
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 0);
    bench.now += WAIT / 2;
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 1);
}

#[test]
fn a_batch_says_whether_and_how_long_it_has_waited() {
    let said = |query: &Asked| query.0.sent.get().map(|to| (to.reason, to.gathered));
    let mut bench = crowd();
    let first = bench.ask(0, 1, OBJECTIVE).remove(0);
    bench.now += WAIT / 4;
    bench.ask_each(4, OBJECTIVE);
    assert_eq!(said(&first), Some((BatchReason::Gathered, WAIT / 4)));
    bench.now += ms(1_000);
    bench.answer();
    let alone = bench.ask(0, 1, OBJECTIVE).remove(0);
    assert_eq!(said(&alone), Some((BatchReason::AllWaiting, Duration::ZERO)));
}

#[test]
fn a_wait_in_vain_makes_the_next_ones_shorter_and_another_does_not() {
    let sends_three_at_once_after = |more: u64| {
        let mut bench = crowd();
        bench.ask(0, 1, OBJECTIVE);
        if more > 0 {
            bench.ask_each(more, OBJECTIVE);
        }
        bench.now += WAIT;
        bench.on(Event::Time);
        assert_eq!(bench.sent.len(), 1);
        bench.now += ms(10);
        bench.answer();
        bench.ask(0, 3, OBJECTIVE);
        bench.sent.len() == 2
    };
    assert!(sends_three_at_once_after(0));
    assert!(!sends_three_at_once_after(1));
}

#[test]
fn a_second_attempt_does_not_wait_for_a_crowd() {
    let mut bench = crowd();
    bench.join(1);
    bench.join(2);
    bench.ask(0, 1, ms(2_000));
    bench.now += WAIT;
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 1);
    bench.now += ms(400);
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 2, "two replicas are idle now; they may not be later");
    assert_eq!(bench.sent[0].2, bench.sent[1].2);
}

#[test]
fn a_second_attempt_that_waits_hurries_nobody() {
    let mut bench = crowd();
    bench.join(1);
    bench.ask(0, 1, ms(2_000));
    bench.now += WAIT;
    bench.on(Event::Time);
    bench.now += ms(400);
    bench.on(Event::Time);
    assert_eq!(bench.sent.len(), 1, "there is no spare replica for it");
    bench.ask_each(16, OBJECTIVE);
    bench.now += ms(10);
    bench.answer();
    bench.ask(0, 1, OBJECTIVE);
    assert_eq!(bench.sent.len(), 2, "a small batch waits as ever");
}

/// One replica that takes 10 ms a query and has just begun with one.
fn busy() -> Bench {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    bench.ask(0, 1, LONG);
    bench
}

#[test]
fn a_query_that_would_be_late_gives_its_place_to_another() {
    let mut bench = busy();
    let late = bench.ask(0, 1, ms(12))[0].0.input;
    let other = bench.ask(0, 1, ms(900))[0].0.input;
    bench.now += ms(10);
    bench.answer();
    assert!(matches!(bench.resolved[..], [(input, DefaultReason::Shed(_))] if input == late));
    assert_eq!(bench.last_sent().2, [other]);
    assert!(bench.counts.contains(&Count::Skipped(1)), "{:?}", bench.counts);
}

#[test]
fn a_query_that_would_be_late_is_tried_if_no_other_waits() {
    let mut bench = busy();
    let late = bench.ask(0, 1, ms(12))[0].0.input;
    bench.now += ms(10);
    bench.answer();
    assert_eq!((bench.resolved.len(), bench.last_sent().2), (0, vec![late]));
}

#[test]
fn a_query_that_can_just_make_it_gives_no_place_away() {
    let mut bench = busy();
    let takes = bench.dispatcher.curve.mean(1);
    let just = bench.ask(0, 1, takes)[0].0.input;
    bench.ask(0, 1, ms(900));
    bench.join(1);
    assert_eq!((bench.resolved.len(), bench.last_sent().2), (0, vec![just]));
}
