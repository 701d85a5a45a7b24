//! What the dispatcher counts, publishes and asks to be woken for.

use super::*;

impl Bench {
    /// As [`Bench::on`], and what was said of waking and publishing.
    pub(super) fn say(&mut self, event: Event<'_, Asked>) -> (Vec<Instant>, Vec<Arc<Load>>) {
        let (mut wakes, mut loads) = (Vec::new(), Vec::new());
        for action in self.dispatcher.on(event, self.now) {
            match action {
                Action::Wake(at) => wakes.push(at),
                Action::Publish(load) => loads.push(load),
                Action::Send { replica, batch, queries } => {
                    let inputs = queries.iter().map(|query| query.0.input).collect();
                    self.sent.push((replica, batch, inputs));
                }
                _ => {}
            }
        }
        (wakes, loads)
    }
}

#[test]
fn one_caller_at_a_time_is_told_from_two() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    for _ in 0..5 {
        bench.ask(0, 1, LONG);
        bench.now += ms(10);
        bench.answer();
        assert!(bench.dispatcher.has_lone_caller());
    }
    bench.ask(0, 1, LONG);
    bench.ask(0, 1, LONG);
    assert!(!bench.dispatcher.has_lone_caller(), "one runs, and one waits");
}

#[test]
fn a_caller_whose_replicas_fail_is_still_one() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    for replica in 1..4 {
        bench.ask(0, 1, LONG);
        bench.lose(bench.last_sent().0, died());
        bench.join(replica);
        bench.answer();
    }
    bench.ask(0, 1, LONG);
    assert!(bench.dispatcher.has_lone_caller());
}

#[test]
fn nothing_is_counted_that_has_not_happened() {
    let mut bench = Bench::new(fixed(2));
    bench.join(0);
    bench.ask(0, 3, LONG);
    bench.answer();
    bench.on(Event::Time);
    let nothing = |count: &Count| {
        matches!(
            count,
            Count::Skipped(0) | Count::Retried(0) | Count::Hedged(0) | Count::Poisonous(0)
        )
    };
    assert!(!bench.counts.iter().any(nothing), "{:?}", bench.counts);
}

#[test]
fn a_failed_batch_counts_what_is_tried_again() {
    let mut bench = Bench::new(fixed(4));
    bench.join(0);
    bench.ask(0, 4, LONG);
    bench.lose(ReplicaId(0), died());
    assert!(bench.counts.contains(&Count::Retried(4)), "{:?}", bench.counts);
}

#[test]
fn what_nobody_has_served_in_time_is_counted() {
    let mut bench = Bench::new(fixed(1));
    bench.ask(0, 3, ms(10));
    bench.at(ms(20)).on(Event::Time);
    assert_eq!((bench.resolved.len(), bench.dispatcher.load().waiting), (3, 0));
    assert!(bench.counts.contains(&Count::Skipped(3)), "{:?}", bench.counts);
}

#[test]
fn an_answer_is_counted_with_its_time_and_a_wait_with_its_length() {
    let mut bench = Bench::new(fixed(2));
    bench.ask(0, 2, LONG);
    bench.now += ms(5);
    bench.join(0);
    bench.now += ms(10);
    bench.answer();
    assert!(bench.counts.contains(&Count::Waited(2, ms(5))), "{:?}", bench.counts);
    assert!(bench.counts.contains(&Count::Answered(ReplicaId(0), 2, ms(10))));
}

#[test]
fn inputs_that_kill_are_refused_and_counted() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask_inputs(0, 100..101, LONG);
    for replica in 1..3 {
        bench.lose(bench.last_sent().0, died());
        bench.join(replica);
    }
    assert_eq!(bench.resolved.len(), 1, "alone, and twice dead");
    bench.ask_inputs(0, 100..102, LONG);
    assert!(bench.counts.contains(&Count::Poisonous(1)), "{:?}", bench.counts);
    assert_eq!(bench.last_sent().2, [101]);
}

#[test]
fn what_waits_keeps_its_deadline_from_one_dispatcher_to_the_next() {
    let mut bench = Bench::new(fixed(1));
    let asked = bench.ask(0, 1, ms(70));
    let next = Bench::new(fixed(1)).dispatcher;
    let last = std::mem::replace(&mut bench.dispatcher, next);
    let waiting: Vec<_> = last.into_waiting().collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].deadline, asked[0].0.deadline);
    assert_eq!(waiting[0].share, Share::equal(AppId(0)));
}

#[test]
fn it_asks_to_be_woken_for_the_first_thing_that_is_due_and_once() {
    let mut bench = Bench::new(fixed(1));
    let due = bench.now + ms(80);
    let asked = bench.ask(0, 1, ms(80));
    let (wakes, _) = bench.say(Event::Done { replica: ReplicaId(7), batch: BatchId(0) });
    assert_eq!(wakes, [], "it has asked for {due:?} already");
    drop(asked);
    let (wakes, _) = bench.say(Event::Time);
    assert_eq!(wakes, [due], "whoever was woken has to be asked again");
    bench.ask(0, 1, ms(200));
    let (wakes, _) = bench.say(Event::Done { replica: ReplicaId(7), batch: BatchId(0) });
    assert_eq!(wakes, [], "a later deadline changes nothing");
    let sooner = bench.now + ms(20);
    let queries = std::iter::once(Asked::new(bench.now, sooner, 900)).collect();
    let arrival = Arrival { share: Share::equal(AppId(0)), deadline: sooner, queries };
    let (wakes, _) = bench.say(Event::Arrived(&mut vec![arrival]));
    assert_eq!(wakes, [sooner]);
}

#[test]
fn it_publishes_how_much_waits_and_when_a_round_ends() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    assert_eq!(bench.dispatcher.load().replicas, 1);
    bench.ask(0, 3, LONG);
    let load = Arc::clone(bench.dispatcher.load());
    assert_eq!((load.waiting, load.round.full.queries), (2, 1));
    let ends = load.round.ends.expect("the only replica is busy");
    let after = ends - bench.now;
    assert!(after > ms(9) && after < ms(11), "{after:?}");
    let (_, loads) = bench.say(Event::Done { replica: ReplicaId(7), batch: BatchId(0) });
    assert!(loads.is_empty(), "nothing has changed");
}

#[test]
fn a_query_that_is_wanted_earlier_goes_first() {
    let mut bench = Bench::new(fixed(1));
    bench.ask(0, 1, ms(500));
    let later = bench.ask(0, 1, ms(900));
    let deadline = bench.now + ms(100);
    let queries = later.iter().cloned().collect();
    let share = Share::equal(AppId(0));
    bench.on(Event::Arrived(&mut vec![Arrival { share, deadline, queries }]));
    assert_eq!(bench.dispatcher.unfinished(), 2, "it is the same query");
    bench.join(0);
    assert_eq!(bench.last_sent().2, [later[0].0.input]);
}

#[test]
fn a_query_that_cannot_make_it_behind_others_is_turned_away() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    bench.ask(0, 9, ms(100));
    assert_eq!(bench.resolved.len(), 0);
    bench.ask(0, 1, ms(100));
    assert_eq!(bench.resolved.len(), 1, "nine rounds of 10 ms are before it");
    assert!(matches!(bench.resolved[0].1, DefaultReason::Shed(_)));
    bench.ask(0, 1, ms(200));
    assert_eq!(bench.resolved.len(), 1, "there is time for this one");
}

#[test]
fn a_full_queue_takes_no_more() {
    let mut bench = Bench::new(Limits { queue_max: 3, ..fixed(1) });
    bench.ask(0, 5, LONG);
    assert_eq!((bench.resolved.len(), bench.dispatcher.load().waiting), (2, 3));
    assert!(bench.resolved[0].1.to_string().contains("serving.model_queue_max"));
}

#[test]
fn another_batch_size_holds_from_the_next_batch_on() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 10, LONG);
    bench.dispatcher.set_batch_size(fixed(4).batch_size);
    bench.at(ms(10)).answer();
    assert_eq!(bench.last_sent().2.len(), 4);
    bench.dispatcher.set_batch_size(fixed(2).batch_size);
    bench.join(1);
    assert_eq!(bench.last_sent().2.len(), 2, "a new replica's too");
}

#[test]
fn who_gives_up_for_good_gives_back_what_replicas_have_too() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 3, LONG);
    let mut left: Vec<u64> = bench.dispatcher.into_unfinished().map(|q| q.0.input).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2]);
}

#[test]
fn a_batch_says_whether_its_replica_was_free_and_new() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    let said = |queries: Vec<Asked>| queries[0].0.sent.get().map(|to| (to.reason, to.is_cold));
    let first = bench.ask(0, 1, ms(100));
    assert_eq!(said(first), Some((BatchReason::Full, true)));
    bench.at(ms(10)).answer();
    bench.learn();
    let next = bench.ask(0, 1, LONG);
    assert_eq!(said(next), Some((BatchReason::Full, false)));
    let behind = bench.at(ms(9)).ask(0, 1, LONG);
    assert_eq!(said(behind), Some((BatchReason::Ahead, false)));
}
