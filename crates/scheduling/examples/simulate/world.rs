//! The surroundings of one dispatcher: callers, replicas, a timer, and a clock that nobody waits
//! for.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::ReplicaId;
use clipper_scheduling::dispatch::{Action, Arrival, BatchId, Departure, Event, Unanswered};
use clipper_scheduling::load::{Asking, Load};
use clipper_scheduling::share::AppId;

use crate::mutant::{Mutant, Mutation};
use crate::query::{End, Inner, SimQuery};
use crate::replica::{SimBatch, SimReplica};
use crate::scenario::{Kind, Scenario, Step};
use crate::tally::Tally;
use crate::violation::{Checked, Violation};

#[derive(Debug)]
enum Happening {
    Step(usize),
    Join(u32),
    Finish {
        replica: u32,
        connection: u64,
        batch: BatchId,
    },
    /// An answer comes once more.
    Again {
        replica: u32,
        batch: BatchId,
        message: u64,
    },
    Left {
        replica: u32,
        connection: u64,
        cause: Departure,
    },
    Timer(u64),
}

pub struct World {
    pub scenario: Scenario,
    pub start: Instant,
    pub now: Instant,
    pub dispatcher: Mutant,
    mutation: Option<Mutation>,
    happenings: BinaryHeap<Reverse<(Instant, u64)>>,
    by_number: BTreeMap<u64, Happening>,
    next_number: u64,
    /// What the dispatcher knows of.
    pub replicas: BTreeMap<u32, SimReplica>,
    /// Handed over and not ended.
    pub open: Vec<SimQuery>,
    pub load: Arc<Load>,
    timer: u64,
    stalled_until: Instant,
    queries: usize,
    next_replica: u32,
    pub tally: Tally,
    pub trace: Option<Vec<String>>,
}

impl World {
    /// The start of a scenario.
    pub fn new(scenario: Scenario, mutation: Option<Mutation>, start: Instant) -> Self {
        let dispatcher = Mutant::new(scenario.limits.clone(), scenario.seed, mutation);
        let tally = Tally::new(&scenario);
        let mut world = Self {
            start,
            now: start,
            dispatcher,
            mutation,
            happenings: BinaryHeap::new(),
            by_number: BTreeMap::new(),
            next_number: 0,
            replicas: BTreeMap::new(),
            open: Vec::new(),
            load: Arc::default(),
            timer: 0,
            stalled_until: start,
            queries: 0,
            next_replica: 1_000,
            tally,
            trace: None,
            scenario,
        };
        for step in 0..world.scenario.steps.len() {
            let at = start + world.scenario.steps[step].0;
            world.plan(at, Happening::Step(step));
        }
        world
    }

    /// Runs until nothing more happens.
    pub fn run(&mut self) -> Checked {
        const HAPPENINGS_MAX: u32 = 20_000;
        for _ in 0..HAPPENINGS_MAX {
            let Some(Reverse((at, number))) = self.happenings.pop() else { return self.at_end() };
            let Some(happening) = self.by_number.remove(&number) else { continue };
            self.now = self.now.max(at);
            self.happen(happening)?;
            self.check()?;
        }
        Err(self.violation("no end", String::new()))
    }

    pub fn violation(&self, what: &'static str, detail: String) -> Violation {
        Violation { what, at: self.now - self.start, detail }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>10.3} ms  {}",
                (self.now - self.start).as_secs_f64() * 1e3,
                text()
            ));
        }
    }

    fn plan(&mut self, at: Instant, happening: Happening) {
        let number = self.next_number;
        self.next_number += 1;
        self.happenings.push(Reverse((at, number)));
        self.by_number.insert(number, happening);
    }

    /// A number from 0 to `below`, the same in each run for the same things.
    fn chance(&self, a: u64, b: u64, below: u64) -> u64 {
        let mut x = self.scenario.seed ^ a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b << 17);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % below.max(1)
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Step(step) => self.step(step),
            Happening::Join(replica) => self.join(replica),
            Happening::Finish { replica, connection, batch } => {
                self.finish(replica, connection, batch)
            }
            Happening::Again { replica, batch, message } => self.again(replica, batch, message),
            Happening::Left { replica, connection, cause } => self.left(replica, connection, cause),
            Happening::Timer(timer) => {
                if timer != self.timer {
                    return Ok(());
                }
                if self.now < self.stalled_until {
                    self.plan(self.stalled_until, Happening::Timer(timer));
                    return Ok(());
                }
                self.note(|| "timer".to_owned());
                self.tell(Event::Time)
            }
        }
    }

    fn step(&mut self, step: usize) -> Checked {
        let step = self.scenario.steps[step].1.clone();
        self.note(|| format!("{step:?}"));
        match step {
            Step::Ask { app, queries, kind } => return self.ask(app, queries, kind),
            Step::Cancel { app } => {
                let app = AppId(app as u64);
                let its = self.open.iter().filter(|query| query.share.app == app);
                its.for_each(|query| query.is_cancelled.set(true));
            }
            Step::Join { replica } => return self.join(replica),
            Step::Die { replica } => self.die(replica, Departure::Died("it died".into())),
            Step::Retire { replica } => self.die(replica, Departure::Orderly("told to go".into())),
            Step::Hang { replica } => {
                if let Some(replica) = self.replicas.get_mut(&replica) {
                    replica.is_hung = true;
                }
            }
            Step::Slow { replica, times } => {
                if let Some(replica) = self.replicas.get_mut(&replica) {
                    replica.times = times;
                }
            }
            Step::Stall(time) => self.stalled_until = self.now + time,
            Step::Restart => return self.restart(),
        }
        Ok(())
    }

    fn ask(&mut self, app: usize, queries: usize, kind: Kind) -> Checked {
        let objective = self.scenario.objectives[app];
        let share = self.scenario.shares[app];
        let deadline = self.now + objective;
        self.tally.asked(app, queries);
        let asking = Asking { share, queries, objective, deadline };
        let room = self.load.room(&asking, 0, self.now);
        let mut arrival = Arrival { share, deadline, queries: smallvec::SmallVec::new() };
        for n in 0..room {
            // Equal inputs share one computation.
            let is_asked = |kind| self.open.iter().any(|query| query.kind == kind);
            let is_special = n == 0 && (matches!(kind, Kind::Large(_)) || !is_asked(kind));
            let query = Inner {
                id: self.queries,
                share,
                kind: if is_special { kind } else { Kind::Plain },
                arrived: self.now,
                deadline,
                end: Cell::new(None),
                is_cancelled: Cell::new(false),
                is_blind: Cell::new(false),
                computing: Cell::new(false),
                note: Cell::new(0),
                is_sent: Cell::new(false),
                begins: Cell::new(0),
                too_large: Cell::new(usize::MAX),
                waits_since: Cell::new(self.now),
                assigned: Cell::new(0),
                is_streamed: self.chance(self.queries as u64, 10, 2) == 0,
                has_begun: Cell::new(false),
                hides_begun: Cell::new(self.mutation == Some(Mutation::RepeatsBegun)),
            };
            self.queries += 1;
            arrival.queries.push(SimQuery(Rc::new(query)));
        }
        if arrival.queries.is_empty() {
            return Ok(());
        }
        self.open.extend(arrival.queries.iter().cloned());
        self.tell(Event::Arrived(&mut vec![arrival]))
    }

    fn join(&mut self, id: u32) -> Checked {
        self.note(|| format!("replica {id} joins"));
        self.give_back(id);
        self.next_number += 1;
        let is_lane = !self.scenario.is_contest && self.chance(u64::from(id), 9, 4) == 0;
        let replica = SimReplica {
            is_lane,
            connection: self.next_number,
            is_alive: true,
            is_hung: false,
            times: 1,
            batches: VecDeque::new(),
            idle_since: self.now,
        };
        self.replicas.insert(id, replica);
        self.tell(Event::Joined { replica: ReplicaId(id), unanswered: Vec::new(), is_lane })
    }

    /// The process ends; the dispatcher hears of it a little later.
    fn die(&mut self, id: u32, cause: Departure) {
        let delay = Duration::from_micros(self.chance(u64::from(id), 1, 3_000));
        let Some(replica) = self.replicas.get_mut(&id).filter(|replica| replica.is_alive) else {
            return;
        };
        replica.is_alive = false;
        let connection = replica.connection;
        self.plan(self.now + delay, Happening::Left { replica: id, connection, cause });
    }

    fn another_joins_later(&mut self) {
        let id = self.next_replica;
        self.next_replica += 1;
        let delay = Duration::from_micros(1_000 + self.chance(u64::from(id), 2, 9_000));
        self.plan(self.now + delay, Happening::Join(id));
    }

    fn left(&mut self, id: u32, connection: u64, cause: Departure) -> Checked {
        if self.replicas.get(&id).is_none_or(|replica| replica.connection != connection) {
            return Ok(());
        }
        self.note(|| format!("replica {id} has left: {cause:?}"));
        if let Departure::AnswerTooLarge(_) = cause
            && let Some(batch) = self.replicas.get(&id).and_then(|replica| replica.batches.front())
        {
            batch.queries.iter().for_each(|query| query.too_large.set(batch.queries.len()));
        }
        self.give_back(id);
        self.tell(Event::Left { replica: ReplicaId(id), cause })
    }

    /// Nobody computes what a replica had.
    fn give_back(&mut self, id: u32) {
        let Some(replica) = self.replicas.remove(&id) else { return };
        for query in replica.batches.iter().flat_map(|batch| batch.queries.iter()) {
            query.assigned.set(query.assigned.get() - 1);
            query.waits_since.set(self.now);
        }
    }

    /// The replica begins with its first batch, if it has not.
    fn begin(&mut self, id: u32) -> Checked {
        let Some(replica) = self.replicas.get_mut(&id) else { return Ok(()) };
        let SimReplica { connection, is_lane, .. } = *replica;
        let times = u64::from(replica.times);
        let Some(batch) = replica.batches.front_mut() else {
            replica.idle_since = self.now;
            return Ok(());
        };
        if batch.began.replace(self.now).is_some() {
            return Ok(());
        }
        let (batch_id, queries) = (batch.id, Arc::clone(&batch.queries));
        queries.iter().for_each(|query| query.begins.set(query.begins.get() + 1));
        let begins_to_stream = is_lane && self.chance(batch_id.0, 11, 3) > 0;
        for query in queries.iter().filter(|query| begins_to_stream && query.is_streamed) {
            query.has_begun.set(true);
        }
        self.tally.begun(&queries, self.violation("too many attempts", format!("{queries:?}")))?;
        let nominal = self.scenario.speed.nominal(queries.len());
        let noise = self.chance(batch_id.0, 3, self.scenario.speed.noise.max(1));
        let time = Duration::from_micros((nominal + nominal * noise / 100) * times + 1);
        let finish = Happening::Finish { replica: id, connection, batch: batch_id };
        self.plan(self.now + time, finish);
        Ok(())
    }

    /// The replica has computed its first batch.
    fn finish(&mut self, id: u32, connection: u64, batch: BatchId) -> Checked {
        let Some(replica) = self.replicas.get_mut(&id) else { return Ok(()) };
        let is_its = replica.connection == connection && replica.is_alive && !replica.is_hung;
        let Some(first) = replica.batches.front().filter(|first| is_its && first.id == batch)
        else {
            return Ok(());
        };
        let message = first.message;
        let has = |kind| first.queries.iter().any(|query| query.kind == kind);
        if has(Kind::Endless) {
            replica.is_hung = true;
            return Ok(());
        }
        let bytes = |query: &SimQuery| if let Kind::Large(n) = query.kind { n } else { 0 };
        let is_too_large = first.queries.iter().map(bytes).sum::<u32>() > 100;
        let deadly = has(Kind::Deadly);
        if deadly || is_too_large {
            let cause = if deadly {
                self.tally.killed(Kind::Deadly, self.now - self.start)?;
                Departure::Died("it died of an input".into())
            } else {
                Departure::AnswerTooLarge("too large".into())
            };
            self.die(id, cause);
            self.another_joins_later();
            return Ok(());
        }
        // Some answers come twice.
        if self.chance(batch.0, 4, 16) == 0 {
            let delay = Duration::from_micros(self.chance(batch.0, 5, 5_000));
            self.plan(self.now + delay, Happening::Again { replica: id, batch, message });
        }
        self.done(id, batch)
    }

    /// A connection passes no answer on that nobody has asked for. The dispatcher has to bear one
    /// nevertheless, unless it has begun anew and given another batch that name.
    fn again(&mut self, id: u32, batch: BatchId, message: u64) -> Checked {
        let is_other = |sent: &SimBatch| sent.id == batch && sent.message != message;
        if self.replicas.get(&id).is_some_and(|replica| replica.batches.iter().any(is_other)) {
            return Ok(());
        }
        self.done(id, batch)
    }

    fn done(&mut self, id: u32, batch: BatchId) -> Checked {
        let event = Event::Done { replica: ReplicaId(id), batch };
        let known = self.replicas.get_mut(&id).and_then(|replica| {
            let first = replica.batches.front().is_some_and(|first| first.id == batch);
            if first { replica.batches.pop_front() } else { None }
        });
        self.note(|| {
            format!("replica {id} answers {batch:?}{}", if known.is_none() { " again" } else { "" })
        });
        if let Some(batch) = known {
            for query in batch.queries.iter() {
                query.assigned.set(query.assigned.get() - 1);
                if query.end.get().is_none() {
                    query.end.set(Some(End::Answered));
                    self.tally.answered(query, self.now);
                }
            }
            let worked = batch.began.map(|began| self.now - began);
            self.tally.worked(worked.unwrap_or_default());
            self.begin(id)?;
        }
        self.tell(event)
    }

    fn restart(&mut self) -> Checked {
        let next = Mutant::new(self.scenario.limits.clone(), self.scenario.seed, self.mutation);
        let mut waiting = std::mem::replace(&mut self.dispatcher, next).into_waiting();
        self.timer += 1;
        self.tally.restarted();
        for query in &self.open {
            query.too_large.set(usize::MAX);
            query.begins.set(u32::from(query.assigned.get() > 0));
        }
        if !waiting.is_empty() {
            self.tell(Event::Arrived(&mut waiting))?;
        }
        let ids: Vec<u32> = self.replicas.keys().copied().collect();
        for id in ids {
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            let mut unanswered = Vec::new();
            for batch in &mut replica.batches {
                batch.began = batch.began.map(|_| self.now);
                unanswered
                    .push(Unanswered { batch: batch.id, queries: Arc::clone(&batch.queries) });
            }
            replica.idle_since = self.now;
            let is_lane = replica.is_lane;
            self.tell(Event::Joined { replica: ReplicaId(id), unanswered, is_lane })?;
        }
        Ok(())
    }

    /// Tells the dispatcher and does what it says.
    fn tell(&mut self, event: Event<'_, SimQuery>) -> Checked {
        self.tally.before(&self.replicas, self.now);
        for action in self.dispatcher.on(event, self.now) {
            self.act(action)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action<SimQuery>) -> Checked {
        match action {
            Action::Send { replica, batch, queries } => self.send(replica.0, batch, queries),
            Action::Resolve { query, reason } => {
                self.note(|| format!("query {} is resolved: {reason:?}", query.id));
                self.check_resolved(&query, &reason)?;
                query.end.set(Some(End::Resolved));
                Ok(())
            }
            Action::GiveUp { replica, why } => {
                self.note(|| format!("replica {replica} is given up: {why}"));
                self.check_given_up(replica.0, &why)?;
                self.give_back(replica.0);
                self.another_joins_later();
                Ok(())
            }
            Action::Wake(at) => {
                self.timer += 1;
                // The timer has ticks of a millisecond.
                let pause = at.saturating_duration_since(self.now).as_nanos().div_ceil(1_000_000);
                let pause = Duration::from_millis(u64::try_from(pause).unwrap_or(u64::MAX));
                self.plan(self.now + pause, Happening::Timer(self.timer));
                Ok(())
            }
            Action::Publish(load) => {
                self.load = load;
                Ok(())
            }
            Action::Count(_) => Ok(()),
        }
    }

    fn send(&mut self, id: u32, batch: BatchId, queries: Arc<[SimQuery]>) -> Checked {
        self.note(|| {
            let ids: Vec<_> = queries.iter().map(|query| query.id).collect();
            format!("{batch:?} to replica {id}: queries {ids:?}")
        });
        self.check_sent(id, batch, &queries)?;
        for query in queries.iter() {
            query.assigned.set(query.assigned.get() + 1);
            query.is_sent.set(true);
        }
        self.next_number += 1;
        let message = self.next_number;
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.batches.push_back(SimBatch { id: batch, message, queries, began: None });
            if replica.batches.len() == 1 {
                return self.begin(id);
            }
        }
        Ok(())
    }
}
