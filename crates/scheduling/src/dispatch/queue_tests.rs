//! Tests of [`super`]: who is next.

use std::cell::RefCell;

use super::*;
use crate::share::{AppId, Class};

const OBJECTIVE: Duration = Duration::from_millis(100);

/// A queue and the moment from which deadlines count.
struct Line {
    queue: FairQueue,
    start: Instant,
}

fn share(app: u64) -> Share {
    Share::equal(AppId(app))
}

impl Line {
    fn new() -> Self {
        Self { queue: FairQueue::new(), start: clipper_clock::now() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Query `key` of an application waits until then.
    fn push(&mut self, app: u64, due_ms: u64, key: u32) {
        let deadline = self.at(due_ms);
        self.queue.push(share(app), deadline, QueryKey::of(key), OBJECTIVE, true);
    }

    /// Takes everything as a batch would, in this order.
    fn serve(&mut self, fair: bool, of: impl Fn(u32) -> Share) -> Vec<u32> {
        let gone = RefCell::new(Vec::new());
        let mut order = Vec::new();
        while let Some((_, key)) = self.queue.pop(fair, |key| !gone.borrow().contains(&key)) {
            gone.borrow_mut().push(key);
            let key = key.number();
            self.queue.charge(of(key));
            self.queue.forget(of(key), OBJECTIVE);
            order.push(key);
        }
        order
    }
}

/// Those of which something is remembered.
fn apps_of(line: &Line) -> Vec<u64> {
    line.queue.apps.iter().map(|app| app.share.app.0).collect()
}

#[test]
fn nodes_leave_by_deadline_then_by_arrival() {
    let (start, mut nodes) = (clipper_clock::now(), Nodes::default());
    for (order, ms) in [20, 10, 20, 10, 5, 30].into_iter().enumerate() {
        let deadline = start + Duration::from_millis(ms);
        nodes.push(Node { deadline, order: order as u64, key: QueryKey::NONE });
    }
    let orders: Vec<_> = std::iter::from_fn(|| nodes.pop()).map(|node| node.order).collect();
    assert_eq!(orders, [4, 1, 3, 0, 2, 5]);
    assert!(nodes.peek().is_none());
}

#[test]
fn nodes_are_equal_that_leave_together() {
    let start = clipper_clock::now();
    let node = |order| Node { deadline: start, order, key: QueryKey::NONE };
    assert!(node(1) == node(1) && node(1) != node(2));
    assert_eq!(node(1).partial_cmp(&node(2)), Some(Ordering::Greater));
}

#[test]
fn without_overload_the_earliest_deadline_is_next_whoever_asks() {
    let mut line = Line::new();
    for (app, due, key) in [(1, 30, 0), (2, 20, 1), (1, 10, 2), (2, 40, 3), (1, 25, 4)] {
        line.push(app, due, key);
    }
    assert_eq!(line.queue.len(), 5);
    assert_eq!(line.queue.objectives().ahead_of(OBJECTIVE), 5);
    let apps: Vec<_> = line.queue.apps().iter().map(|app| (app.share.app.0, app.waiting)).collect();
    assert_eq!(apps, [(1, 3), (2, 2)]);
    assert_eq!(line.queue.next_deadline(), Some(line.at(10)));
    let order = line.serve(false, |key| share(if key == 1 || key == 3 { 2 } else { 1 }));
    assert_eq!(order, [2, 1, 4, 0, 3]);
    assert_eq!((line.queue.len(), line.queue.objectives().ahead_of(OBJECTIVE)), (0, 0));
    assert!(line.queue.apps().is_empty() && line.queue.next_deadline().is_none());
}

#[test]
fn in_overload_applications_take_turns_by_their_weight() {
    let mut line = Line::new();
    (0..8).for_each(|key| line.push(1, 10, key));
    (8..12).for_each(|key| line.push(2, 50, key));
    let app = |key: u32| share(if key < 8 { 1 } else { 2 });
    assert_eq!(line.serve(true, app), [0, 8, 1, 9, 2, 10, 3, 11, 4, 5, 6, 7]);

    let mut line = Line::new();
    let heavy = Share { weight: 2, ..share(1) };
    let of = |key: u32| if key < 8 { heavy } else { share(2) };
    for key in 0..12 {
        let deadline = line.at(if key < 8 { 50 } else { 60 });
        line.queue.push(of(key), deadline, QueryKey::of(key), OBJECTIVE, true);
    }
    let order = line.serve(true, of);
    assert_eq!(order[..6].iter().filter(|key| **key < 8).count(), 4, "two of three: {order:?}");
}

#[test]
fn in_overload_the_classes_of_an_application_share_what_it_has() {
    let mut line = Line::new();
    let of = |key: u32| match key / 100 {
        0 => Share { class: Class::High, ..share(1) },
        1 => Share { class: Class::Low, ..share(1) },
        _ => share(2),
    };
    let keys = (0..100).chain(100..200).chain(200..300);
    for key in keys {
        // The low class is due first, and so is the other application.
        let deadline = line.at(if key < 100 { 60 } else { 50 });
        line.queue.push(of(key), deadline, QueryKey::of(key), OBJECTIVE, true);
    }
    let order = line.serve(true, of);
    let count = |first: u32| order[..68].iter().filter(|key| **key / 100 == first).count();
    assert_eq!(count(2), 34, "half for the other application: {order:?}");
    assert_eq!((count(0), count(1)), (32, 2), "16 to 1: {order:?}");
}

#[test]
fn in_overload_those_who_ask_an_application_share_what_it_has() {
    let mut line = Line::new();
    let flood = Share { tenant: Tenant::of("flood"), ..share(1) };
    let of = |key: u32| match key / 100 {
        0..=1 => flood,
        2 => Share { tenant: Tenant::of("calm"), ..share(1) },
        _ => share(2),
    };
    for key in 0..400 {
        // Whoever floods is due first.
        let deadline = line.at(if key < 200 { 50 } else { 60 });
        line.queue.push(of(key), deadline, QueryKey::of(key), OBJECTIVE, true);
    }
    let order = line.serve(true, of);
    let count = |part: Share| order[..80].iter().filter(|key| of(**key).is_same(&part)).count();
    assert_eq!((count(flood), count(of(200)), count(of(300))), (20, 20, 40), "{order:?}");
}

#[test]
fn beyond_some_those_who_ask_an_application_are_one() {
    let mut line = Line::new();
    let of = |n: usize| Share { tenant: Tenant::of(&n.to_string()), ..share(1) };
    for n in 0..100_000_usize {
        let part = line.queue.told_apart(of(n));
        let is_rest = part.tenant == Tenant::REST;
        assert_eq!(is_rest, n >= TENANTS_MAX, "{n}");
        let key = u32::try_from(n).unwrap();
        let due = line.at(50);
        line.queue.push(part, due, QueryKey::of(key), OBJECTIVE, true);
    }
    assert_eq!(line.queue.apps().len(), TENANTS_MAX + 1);
    assert_eq!(line.queue.told_apart(of(3)), of(3), "one of them stays");
    assert_eq!(line.queue.told_apart(share(1)), share(1), "so do those without a name");
    let elsewhere = Share { app: AppId(2), ..of(99_999) };
    assert_eq!(line.queue.told_apart(elsewhere), elsewhere);
}

#[test]
fn who_comes_later_starts_where_the_others_are() {
    let mut line = Line::new();
    (0..20).for_each(|key| line.push(1, 10, key));
    line.push(2, 20, 100);
    let gone = RefCell::new(Vec::new());
    let next = |line: &mut Line| {
        let (_, key) = line.queue.pop(true, |key| !gone.borrow().contains(&key)).expect("waits");
        gone.borrow_mut().push(key);
        let app = if key.number() < 100 { 1 } else { key.number() / 100 + 1 };
        line.queue.charge(share(app.into()));
        line.queue.forget(share(app.into()), OBJECTIVE);
        key.number()
    };
    // The second one has its turn and nothing more; meanwhile the first one is served on.
    let served: Vec<_> = (0..10).map(|_| next(&mut line)).collect();
    assert_eq!(served.iter().filter(|key| **key == 100).count(), 1);
    // A third one gets every other turn from now on, not all that it has missed.
    (200..220).for_each(|key| line.push(3, 5, key));
    let served: Vec<_> = (0..10).map(|_| next(&mut line)).collect();
    let its = served.iter().filter(|key| **key >= 200).count();
    assert!((4..=6).contains(&its), "{served:?}");
}

#[test]
fn a_query_stands_twice_when_it_is_wanted_earlier_and_counts_once() {
    let mut line = Line::new();
    line.push(1, 50, 7);
    line.push(1, 30, 8);
    let earlier = line.at(10);
    line.queue.push(share(1), earlier, QueryKey::of(7), OBJECTIVE, false);
    assert_eq!((line.queue.len(), line.queue.next_deadline()), (2, Some(earlier)));
    let order = line.serve(false, |_| share(1));
    assert_eq!(order, [7, 8]);
    assert_eq!(line.queue.len(), 0);
}

#[test]
fn what_is_overdue_is_taken_and_what_has_ended_is_passed_over() {
    let mut line = Line::new();
    for (app, due, key) in [(1, 10, 0), (1, 20, 1), (1, 30, 2), (2, 15, 3)] {
        line.push(app, due, key);
    }
    let waits = |key: QueryKey| key.number() != 1;
    let now = line.at(20);
    let mut taken = Vec::new();
    while let Some((due, key)) = line.queue.pop_overdue(now, waits) {
        taken.push((due, key.number()));
    }
    assert_eq!(taken, [(line.at(10), 0), (line.at(15), 3)]);
    assert_eq!(line.queue.next_deadline(), Some(line.at(30)));
    assert!(line.queue.pop_overdue(line.at(29), waits).is_none());
    assert!(line.queue.pop_overdue(line.at(30), waits).is_some(), "due is overdue");
}

#[test]
fn it_is_overloaded_if_the_last_of_an_application_cannot_make_it() {
    let mut line = Line::new();
    line.push(1, 10, 0);
    line.push(1, 40, 1);
    assert!(!line.queue.is_overloaded(|_, _| false), "alone, order makes no difference");
    line.push(2, 20, 2);
    line.push(2, 30, 3);
    let asked = RefCell::new(Vec::new());
    let note = |ahead, deadline: Instant| {
        asked.borrow_mut().push((ahead, deadline));
        true
    };
    assert!(!line.queue.is_overloaded(note));
    // All four are due before the last of each, as far as heads tell.
    assert_eq!(*asked.borrow(), [(3, line.at(40)), (3, line.at(30))]);
    assert!(line.queue.is_overloaded(|_, deadline| deadline != line.at(30)));
    assert!(!line.queue.is_overloaded(|ahead, _| ahead < 4));
    line.push(3, 35, 4);
    let asked = RefCell::new(Vec::new());
    line.queue.is_overloaded(|ahead, _| {
        asked.borrow_mut().push(ahead);
        true
    });
    assert_eq!(*asked.borrow(), [4, 3, 4], "the third one's head is due after the second one's");
}

#[test]
fn beyond_so_many_applications_nobody_compares() {
    let mut line = Line::new();
    (0..16).for_each(|app| line.push(app, 10 + app, u32::try_from(app).unwrap_or(0)));
    assert!(!line.queue.is_overloaded(|_, _| true));
    line.push(16, 99, 16);
    assert!(line.queue.is_overloaded(|_, _| true));
}

#[test]
fn an_application_that_is_ahead_is_remembered_and_others_are_forgotten() {
    let mut line = Line::new();
    (0..3).for_each(|key| line.push(1, 10, key));
    line.push(2, 20, 3);
    line.push(2, 20, 4);
    let app = |key: u32| share(if key < 3 { 1 } else { 2 });
    assert_eq!(line.serve(false, app), [0, 1, 2, 3, 4], "by deadline: the first one is ahead");
    (0..3).for_each(|key| line.push(1, 10, 10 + key));
    (0..3).for_each(|key| line.push(2, 20, 20 + key));
    let app = |key: u32| share(if key < 20 { 1 } else { 2 });
    let order = line.serve(true, app);
    assert_eq!(order[0], 20, "it had one more before: {order:?}");
}

#[test]
fn idle_applications_beyond_a_limit_are_forgotten() {
    let mut line = Line::new();
    let mut most = 0;
    // Each of them gets ahead of one that waits all the time.
    line.push(1_000, 90, 1_000);
    for app in 0..200 {
        let key = u32::try_from(app).unwrap_or(0);
        line.push(app, 10, key);
        let next = line.queue.pop(false, |_| true);
        assert_eq!(next.map(|(_, found)| found.number()), Some(key));
        line.queue.charge(share(app));
        line.queue.forget(share(app), OBJECTIVE);
        most = most.max(line.queue.apps.len());
    }
    assert_eq!(most, 64);
    assert_eq!(line.queue.len(), 1);
    assert_eq!(line.queue.pop(true, |_| true).map(|(_, key)| key.number()), Some(1_000));
}

#[test]
fn an_application_that_had_no_more_than_others_leaves_nothing_behind() {
    let mut line = Line::new();
    line.push(1, 10, 0);
    line.push(2, 20, 1);
    line.queue.forget(share(2), OBJECTIVE);
    assert_eq!(apps_of(&line), [1]);
}

#[test]
fn a_single_application_keeps_its_queue() {
    let mut line = Line::new();
    line.push(1, 10, 0);
    assert_eq!(line.serve(false, |_| share(1)), [0]);
    assert_eq!(apps_of(&line), [1], "each query would cost the memory of a new one");
}

#[test]
fn nothing_is_left_of_a_query_that_stood_twice() {
    let mut line = Line::new();
    line.push(1, 50, 7);
    let earlier = line.at(10);
    line.queue.push(share(1), earlier, QueryKey::of(7), OBJECTIVE, false);
    let next = line.queue.pop(false, |_| true);
    assert_eq!(next, Some((earlier, QueryKey::of(7))));
    line.queue.forget(share(1), OBJECTIVE);
    assert_eq!(line.queue.next_deadline(), None, "nobody has to be woken for it");
}

#[test]
fn those_that_are_due_together_leave_in_the_order_of_their_arrival() {
    let mut line = Line::new();
    line.push(1, 30, 0);
    line.push(2, 30, 1);
    (2..8).for_each(|key| line.push(1 + u64::from(key % 2), 10, key));
    let order = line.serve(false, |key| share(1 + u64::from(key % 2)));
    assert_eq!(order, [2, 3, 4, 5, 6, 7, 0, 1]);
}

#[test]
fn an_application_that_comes_back_is_judged_by_what_waits_now() {
    let mut line = Line::new();
    line.push(1, 900, 0);
    assert_eq!(line.serve(false, |_| share(1)), [0]);
    line.push(1, 50, 1);
    line.push(1, 40, 2);
    line.push(2, 60, 3);
    let asked = RefCell::new(Vec::new());
    line.queue.is_overloaded(|_, latest| {
        asked.borrow_mut().push(latest);
        true
    });
    assert_eq!(*asked.borrow(), [line.at(50), line.at(60)]);
}
