//! The dispatcher's rules one by one; the simulation tries them together.

mod figures;
mod gathering;
mod hedges;
mod lanes;
mod retries;

use std::cell::Cell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::explain::BatchReason;
use clipper_domain::{BatchSize, ReplicaId};

use super::*;
use crate::latency::LatencyCurve;
use crate::load::Load;
use crate::share::{AppId, Share};
use crate::ticket::DefaultReason;
use crate::trace::{SentTo, TraceStep};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug)]
struct Inner {
    arrived: Instant,
    deadline: Instant,
    input: u64,
    /// Whoever asked for the same later waits until then.
    joined_until: Cell<Instant>,
    awaited: Cell<bool>,
    /// The first piece of its answer has gone out.
    begun: Cell<bool>,
    note: Cell<u32>,
    /// What was said of the batch that it was sent in last.
    sent: Cell<Option<SentTo>>,
}

#[derive(Debug, Clone)]
struct Asked(Rc<Inner>);

impl Asked {
    fn new(arrived: Instant, deadline: Instant, input: u64) -> Self {
        Self(Rc::new(Inner {
            arrived,
            deadline,
            input,
            joined_until: Cell::new(deadline),
            awaited: Cell::new(true),
            begun: Cell::new(false),
            note: Cell::new(0),
            sent: Cell::default(),
        }))
    }
}

impl Query for Asked {
    fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let until = self.0.joined_until.get();
        (self.0.awaited.get() && until > now).then_some(until)
    }
    fn take(&self, now: Instant) -> Option<Instant> {
        self.awaited_until(now)
    }
    fn put_back(&self) {}
    fn has_ended(&self) -> bool {
        false
    }
    fn has_begun(&self) -> bool {
        self.0.begun.get()
    }
    fn arrived(&self) -> Instant {
        self.0.arrived
    }
    fn objective(&self) -> Duration {
        self.0.deadline - self.0.arrived
    }
    fn fingerprint(&self) -> u64 {
        self.0.input
    }
    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
    fn note(&self) -> u32 {
        self.0.note.get()
    }
    fn set_note(&self, note: u32) {
        self.0.note.set(note);
    }
    fn note_step(&self, step: TraceStep, _now: Instant) {
        if let TraceStep::Sent(to) = step {
            self.0.sent.set(Some(to));
        }
    }
}

/// A dispatcher, a clock, and what was said last.
struct Bench {
    dispatcher: Dispatcher<Asked>,
    start: Instant,
    now: Instant,
    next_input: u64,
    sent: Vec<(ReplicaId, BatchId, Vec<u64>)>,
    resolved: Vec<(u64, DefaultReason)>,
    given_up: Vec<ReplicaId>,
    why_given_up: Vec<Arc<str>>,
    counts: Vec<Count>,
}

fn fixed(n: u32) -> Limits {
    Limits {
        batch_size: BatchSize::Fixed(NonZeroU32::new(n).expect("not zero")),
        batch_max: 100,
        queue_max: 1_000,
        attempts_max: 2,
        hedge_share: 0.05,
        hedge_burst: ms(1_000),
        poison_keep: Duration::from_secs(60),
        poison_max: 16,
        busy: BusyLimits { min: Duration::from_secs(30), max: Duration::from_secs(600) },
    }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let now = clipper_clock::now();
        Self {
            dispatcher: Dispatcher::new(limits, LatencyCurve::default(), 7),
            start: now,
            now,
            next_input: 0,
            sent: Vec::new(),
            resolved: Vec::new(),
            given_up: Vec::new(),
            why_given_up: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn on(&mut self, event: Event<'_, Asked>) {
        for action in self.dispatcher.on(event, self.now) {
            match action {
                Action::Send { replica, batch, queries } => {
                    let inputs = queries.iter().map(|query| query.0.input).collect();
                    self.sent.push((replica, batch, inputs));
                }
                Action::Resolve { query, reason } => self.resolved.push((query.0.input, reason)),
                Action::GiveUp { replica, why } => {
                    self.given_up.push(replica);
                    self.why_given_up.push(why);
                }
                Action::Count(count) => self.counts.push(count),
                Action::Wake(_) | Action::Publish(_) => {}
            }
        }
    }

    fn at(&mut self, after_start: Duration) -> &mut Self {
        self.now = self.start + after_start;
        self
    }

    fn join(&mut self, replica: u32) {
        self.on(Event::Joined {
            replica: ReplicaId(replica),
            unanswered: Vec::new(),
            is_lane: false,
        });
    }

    /// Asks new inputs for an application; the first of them.
    fn ask(&mut self, app: u64, queries: u64, objective: Duration) -> Vec<Asked> {
        let first = self.next_input;
        self.next_input += queries;
        self.ask_inputs(app, first..first + queries, objective)
    }

    fn ask_inputs(
        &mut self,
        app: u64,
        inputs: std::ops::Range<u64>,
        objective: Duration,
    ) -> Vec<Asked> {
        let (arrived, deadline) = (self.now, self.now + objective);
        let queries: Vec<_> = inputs.map(|input| Asked::new(arrived, deadline, input)).collect();
        let (share, asked) = (Share::equal(AppId(app)), queries.iter().cloned().collect());
        self.on(Event::Arrived(&mut vec![Arrival { share, deadline, queries: asked }]));
        queries
    }

    fn last_sent(&self) -> (ReplicaId, BatchId, Vec<u64>) {
        self.sent.last().cloned().expect("sent")
    }

    /// The replica that was sent the last batch answers it.
    fn answer(&mut self) {
        let (replica, batch, _) = self.last_sent();
        self.on(Event::Done { replica, batch });
    }

    fn lose(&mut self, replica: ReplicaId, cause: Departure) {
        self.on(Event::Left { replica, cause });
    }

    /// The replicas learn that a query takes 10 ms.
    fn learn(&mut self) {
        for _ in 0..20 {
            self.ask(0, 1, ms(100));
            self.now += ms(10);
            self.answer();
        }
        self.start = self.now;
        self.sent.clear();
    }
}

fn died() -> Departure {
    Departure::Died("it died".into())
}

const LONG: Duration = Duration::from_secs(100);

#[test]
fn line_03_a_hedge_leaves_the_last_idle_replica_while_its_deadline_is_far() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.join(1);
    bench.learn();
    bench.ask(0, 1, ms(2_000));
    let (first, ..) = bench.last_sent();
    bench.at(ms(400)).on(Event::Time);
    assert_eq!(bench.sent.len(), 1, "it is suspected, and its deadline is far");
    bench.ask(1, 1, ms(100));
    assert_eq!(bench.sent.len(), 2, "the last idle replica is free for others");
    bench.now += ms(10);
    bench.answer();
    bench.at(ms(1_001)).on(Event::Time);
    let (second, _, inputs) = bench.last_sent();
    assert!(second != first && bench.sent.len() == 3, "its deadline is near");
    assert_eq!(inputs, bench.sent[0].2);
}

#[test]
fn line_03_hedges_have_a_budget() {
    let mut bench = Bench::new(Limits { hedge_burst: ms(25), ..fixed(1) });
    for replica in 0..8 {
        bench.join(replica);
    }
    bench.learn();
    bench.ask(0, 4, ms(500));
    assert_eq!(bench.sent.len(), 4);
    bench.at(ms(200));
    for _ in 0..5 {
        bench.on(Event::Time);
    }
    let hedged: usize =
        bench.counts.iter().map(|count| if let Count::Hedged(n) = count { *n } else { 0 }).sum();
    assert_eq!(hedged, 2, "25 ms are enough for two of 10");
}

#[test]
fn line_04_a_requests_own_size_counts_and_the_rest_holds_no_places() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    bench.ask(0, 100, ms(100));
    // 92 ms are planned with: 8 of 10 ms and a spread.
    assert_eq!((bench.resolved.len(), bench.dispatcher.load().waiting), (91, 8));
    assert!(matches!(bench.resolved[0].1, DefaultReason::Shed(_)));
}

#[test]
fn line_04_an_application_that_asks_little_is_served_beside_one_that_floods() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    let mut modest = Vec::new();
    for tick in 0..200_u64 {
        bench.at(ms(tick * 10));
        if tick > 0 {
            bench.answer();
        }
        if tick % 10 == 0 {
            bench.ask(0, 100, ms(100));
        }
        if tick % 7 == 0 {
            modest.extend(bench.ask(1, 1, ms(100)));
        }
    }
    let sent: Vec<u64> = bench.sent.iter().flat_map(|(_, _, inputs)| inputs.clone()).collect();
    let served = modest.iter().filter(|query| sent.contains(&query.0.input)).count();
    let greedy = sent.len() - served;
    assert!(served + 1 >= modest.len(), "{served} of {}", modest.len());
    assert!(sent.len() >= 195, "the replica is busy all the time: {served} + {greedy}");
}

#[test]
fn line_05_what_nobody_waits_for_is_skipped_and_counted() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 1, LONG);
    let gone = bench.ask(0, 30, LONG);
    for query in gone {
        query.0.awaited.set(false);
    }
    let fresh = bench.ask(0, 1, LONG);
    bench.at(ms(10)).answer();
    assert_eq!(bench.last_sent().2, [fresh[0].0.input]);
    assert!(bench.counts.contains(&Count::Skipped(30)));
    assert_eq!(bench.dispatcher.unfinished(), 1);
}

#[test]
fn line_05a_a_batch_whose_answer_was_too_large_is_split() {
    let too_large = || Departure::AnswerTooLarge("larger than rpc.message_max_bytes".into());
    let mut bench = Bench::new(fixed(10));
    bench.join(0);
    bench.ask(0, 10, LONG);
    bench.lose(ReplicaId(0), too_large());
    bench.join(1);
    assert_eq!(bench.last_sent().2.len(), 5);
    bench.at(ms(10)).answer();
    assert_eq!(bench.last_sent().2.len(), 5);
    bench.at(ms(20)).answer();
    bench.ask(0, 10, LONG);
    assert_eq!(bench.last_sent().2.len(), 5, "later batches do not repeat it either");
    bench.lose(ReplicaId(1), too_large());
    bench.join(2);
    for size in [2, 1] {
        assert_eq!(bench.last_sent().2.len(), size);
        bench.lose(bench.last_sent().0, too_large());
        bench.join(3 + u32::try_from(size).unwrap_or(0));
    }
    let (_, reason) = bench.resolved.last().expect("it was alone");
    assert!(reason.to_string().contains("rpc.message_max_bytes"), "{reason}");
}

#[test]
fn line_02_an_input_that_kills_is_found_out_and_answered_with_the_reason() {
    let mut bench = Bench::new(fixed(4));
    bench.join(0);
    let killer = bench.ask_inputs(0, 100..104, LONG)[0].clone();
    let (mut deaths, mut seen) = (0, 0);
    for replica in 1..20 {
        bench.join(replica);
        while bench.sent.len() > seen {
            let (sent_to, batch, inputs) = bench.sent[seen].clone();
            seen += 1;
            bench.now += ms(10);
            if inputs.contains(&killer.0.input) {
                deaths += 1;
                bench.lose(sent_to, died());
            } else {
                bench.on(Event::Done { replica: sent_to, batch });
            }
        }
    }
    assert_eq!(deaths, 3, "in company, in smaller company, alone");
    assert_eq!(bench.resolved.len(), 1, "the others are answered");
    let (input, reason) = &bench.resolved[0];
    assert_eq!(*input, killer.0.input);
    assert!(reason.to_string().contains("failed on this input"), "{reason}");
    bench.ask_inputs(0, 100..101, LONG);
    assert_eq!(bench.resolved.len(), 2, "the same input kills nobody any more");
    bench.now += Duration::from_secs(61);
    bench.ask_inputs(0, 100..101, LONG);
    bench.now += ms(2);
    bench.on(Event::Time);
    assert_eq!(bench.last_sent().2, [100], "for a while");
}

#[test]
fn line_02_queries_behind_a_poisonous_batch_lose_nothing() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.learn();
    bench.ask(0, 2, LONG);
    bench.at(ms(9)).on(Event::Time);
    assert_eq!(bench.sent.len(), 2, "one is sent ahead");
    bench.lose(ReplicaId(0), died());
    let ahead = bench.sent[1].2.clone();
    for replica in 1..3 {
        bench.join(replica);
    }
    let tried = bench.sent[2..].iter().filter(|(_, _, inputs)| *inputs == ahead).count();
    assert_eq!((tried, bench.resolved.len()), (1, 0));
    let at = bench.sent.iter().rposition(|(_, _, inputs)| *inputs == ahead).expect("sent again");
    bench.lose(bench.sent[at].0, died());
    bench.join(9);
    assert_eq!(bench.resolved.len(), 0, "this was its first attempt");
}

#[test]
fn line_01_a_long_inference_is_no_hang_and_an_endless_one_ends_with_the_last_deadline() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 1, Duration::from_secs(120));
    bench.at(Duration::from_secs(38)).on(Event::Time);
    assert_eq!(bench.given_up, [], "it is busy");
    bench.answer();
    bench.ask(0, 1, Duration::from_secs(120));
    bench.at(Duration::from_secs(38 + 119)).on(Event::Time);
    assert_eq!(bench.given_up, []);
    bench.at(Duration::from_secs(38 + 121)).on(Event::Time);
    assert_eq!(bench.given_up, [ReplicaId(0)]);
    assert!(matches!(bench.resolved[..], [(1, DefaultReason::Late)]));
}

#[test]
fn a_replica_computes_on_for_a_caller_who_has_joined_later() {
    let s = Duration::from_secs;
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    let asked = bench.ask(0, 1, s(40));
    asked[0].0.joined_until.set(bench.start + s(100));
    for second in [41, 99] {
        bench.at(s(second)).on(Event::Time);
        assert_eq!(bench.given_up, [], "after {second} s");
    }
    bench.at(s(101)).on(Event::Time);
    assert_eq!(bench.given_up, [ReplicaId(0)]);
}

#[test]
fn the_limit_that_a_hung_replica_has_reached_is_named() {
    let s = Duration::from_secs;
    let cases = [
        (1, 30, "rpc.silence_timeout_ms"),
        (40, 40, "the latest objective of its batch"),
        (3_600, 600, "rpc.busy_max_ms"),
    ];
    for (objective, after, named) in cases {
        let mut bench = Bench::new(fixed(1));
        bench.join(0);
        bench.ask(0, 1, s(objective));
        bench.at(s(after)).on(Event::Time);
        assert_eq!(bench.given_up, [ReplicaId(0)], "an objective of {objective} s");
        let why = &bench.why_given_up[0];
        assert!(why.contains(named), "an objective of {objective} s: {why}");
    }
}

#[test]
fn an_answer_out_of_turn_and_one_of_a_gone_replica_change_nothing() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    bench.ask(0, 1, LONG);
    bench.on(Event::Done { replica: ReplicaId(7), batch: BatchId(0) });
    bench.on(Event::Done { replica: ReplicaId(0), batch: BatchId(99) });
    assert_eq!(bench.dispatcher.unfinished(), 1);
    bench.answer();
    bench.answer();
    assert_eq!(bench.dispatcher.unfinished(), 0);
}

#[test]
fn what_waits_and_what_replicas_have_passes_to_another_dispatcher() {
    let mut bench = Bench::new(fixed(1));
    bench.join(0);
    let asked = bench.ask(0, 3, LONG);
    let (replica, batch, _) = bench.last_sent();
    let next = Bench::new(fixed(1));
    let last = std::mem::replace(&mut bench.dispatcher, next.dispatcher);
    let mut waiting: Vec<_> = last.into_waiting().collect();
    assert_eq!(waiting.len(), 2);
    bench.on(Event::Arrived(&mut waiting));
    let unanswered = vec![Unanswered { batch, queries: asked[..1].to_vec().into() }];
    bench.on(Event::Joined { replica, unanswered, is_lane: false });
    assert_eq!((bench.sent.len(), bench.dispatcher.unfinished()), (1, 3), "it is busy");
    bench.lose(replica, died());
    bench.join(1);
    assert_eq!(bench.last_sent().0, ReplicaId(1));
    assert_eq!(bench.dispatcher.unfinished(), 3);
}

#[test]
fn a_batch_after_one_of_another_dispatcher_has_a_name_of_its_own() {
    let asked = Bench::new(fixed(1)).ask(0, 1, LONG);
    let mut bench = Bench::new(fixed(1));
    let unanswered = vec![Unanswered { batch: BatchId(7), queries: asked.into() }];
    bench.on(Event::Joined { replica: ReplicaId(0), unanswered, is_lane: false });
    bench.on(Event::Done { replica: ReplicaId(0), batch: BatchId(7) });
    bench.ask(0, 1, LONG);
    assert_eq!(bench.last_sent().1, BatchId(8));
}
