//! Second attempts: for whom, how often, and what they cost.

use super::*;

/// Two replicas that take 10 ms a query, both idle.
fn two(limits: Limits) -> Bench {
    let mut bench = Bench::new(limits);
    bench.join(0);
    bench.join(1);
    bench.learn();
    bench
}

impl Bench {
    fn hedged(&self) -> usize {
        let hedged = self.counts.iter();
        hedged.map(|count| if let Count::Hedged(n) = count { *n } else { 0 }).sum()
    }

    /// A batch of four whose replica is slow, and dies when another may have answered in 40 ms.
    fn hedge_four(&mut self, next: u32) {
        self.ask(0, 4, ms(500));
        let (slow, ..) = self.last_sent();
        self.at(ms(300)).on(Event::Time);
        self.at(ms(340)).answer();
        self.lose(slow, died());
        self.join(next);
        self.start = self.now;
    }
}

#[test]
fn it_is_woken_when_a_deadline_is_near() {
    let mut bench = two(fixed(1));
    bench.ask(0, 1, ms(2_000));
    let (wakes, _) = bench.at(ms(400)).say(Event::Time);
    assert_eq!(wakes, [bench.start + ms(1_000)]);
}

#[test]
fn nothing_is_kept_of_a_slow_query_that_was_answered_after_all() {
    let mut bench = two(fixed(1));
    bench.ask(0, 1, ms(2_000));
    bench.at(ms(400)).on(Event::Time);
    bench.at(ms(500)).answer();
    let (wakes, _) = bench.say(Event::Time);
    assert_eq!(wakes, [], "nothing is due any more");
}

#[test]
fn a_slow_query_is_computed_twice_at_most_and_within_its_attempts() {
    for attempts_max in 1..4 {
        let mut bench = two(Limits { attempts_max, ..fixed(1) });
        (2..5).for_each(|replica| bench.join(replica));
        bench.ask(0, 1, ms(400));
        (1..40).for_each(|tick| bench.at(ms(tick * 10)).on(Event::Time));
        let sent = u32::try_from(bench.sent.len()).unwrap_or(u32::MAX);
        assert_eq!(sent, attempts_max.min(2), "of {attempts_max} attempts");
    }
}

#[test]
fn a_query_that_waits_for_its_second_replica_costs_the_budget_once() {
    let mut bench = two(fixed(1));
    bench.ask(0, 2, ms(2_000));
    bench.at(ms(9)).ask(0, 1, ms(2_000));
    assert_eq!(bench.sent.len(), 3, "one is sent ahead");
    bench.at(ms(1_500)).on(Event::Time);
    assert_eq!(bench.hedged(), 3, "their deadlines are near");
    let (slow, ..) = bench.last_sent();
    let (_, batch, _) =
        bench.sent.iter().find(|(replica, ..)| *replica == slow).expect("its first");
    let first = Event::Done { replica: slow, batch: *batch };
    bench.on(first);
    bench.at(ms(1_600)).on(Event::Time);
    assert_eq!(bench.hedged(), 3, "the one that was ahead waits already");
}

#[test]
fn a_hedge_costs_its_part_of_a_batch() {
    let mut bench = two(Limits { hedge_burst: ms(45), ..fixed(4) });
    bench.ask(0, 4, ms(500));
    assert_eq!(bench.sent.len(), 1);
    bench.at(ms(300)).on(Event::Time);
    assert_eq!(bench.hedged(), 4, "four of 10 ms");
}

#[test]
fn a_hedge_that_took_what_was_expected_settles_for_that() {
    let mut bench = two(Limits { hedge_share: 1.0, hedge_burst: ms(45), ..fixed(4) });
    bench.hedge_four(2);
    assert_eq!(bench.hedged(), 4, "four of 10 ms");
    bench.hedge_four(3);
    assert_eq!(bench.hedged(), 8, "which have been earned again");
}

#[test]
fn what_a_hedge_has_cost_is_gone() {
    let mut bench = two(Limits { hedge_share: 0.001, hedge_burst: ms(45), ..fixed(4) });
    bench.hedge_four(2);
    bench.hedge_four(3);
    assert_eq!(bench.hedged(), 4, "5 ms are left");
}

#[test]
fn a_hedge_costs_half_its_objective_where_no_latency_is_known() {
    for (burst, hedged) in [(ms(60), 1), (ms(40), 0)] {
        let mut bench = Bench::new(Limits { hedge_burst: burst, ..fixed(1) });
        bench.join(0);
        bench.join(1);
        bench.ask(0, 1, ms(100));
        bench.at(ms(60)).on(Event::Time);
        assert_eq!(bench.hedged(), hedged, "of {burst:?}");
    }
}
