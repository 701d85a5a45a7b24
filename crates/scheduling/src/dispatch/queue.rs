//! Queries that wait for a replica: earliest deadline first, and in overload fair between the
//! applications that share the model, between those who ask an application, and between the
//! classes of their queries.
//!
//! While all that waits can be answered in time, the order of deadlines loses nothing and is kept.
//! Otherwise somebody must lose, and then it is whoever has more than a fair share: the next query
//! is of the application with the least service for its weight (start-time fair queueing), and of
//! its queries the one that is due first. Those who ask it share what it has in the same way,
//! evenly, and the classes of what they ask by their weights: a high one is next more often, and
//! none starves. Every query of a model costs about the same, so that the number of queries is the
//! measure of service.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use clipper_clock::Instant;
use smallvec::SmallVec;

use super::query::QueryKey;
use crate::load::{AppLoad, ObjectiveCounts};
use crate::share::{Share, Tenant};

/// Service of one query for an application of weight 1.
const SERVICE: u64 = 1 << 16;
/// By so many queries at most an application remembers to have been ahead of the others.
const AHEAD_MAX: u64 = 512;
/// So many who ask one application are told apart at the same time; the rest share one part.
const TENANTS_MAX: usize = 16;
/// Beyond so many waiting applications nobody looks whether all of them can make it.
const COMPARED_MAX: usize = 16;

#[derive(Debug)]
struct Node {
    deadline: Instant,
    order: u64,
    key: QueryKey,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Node {}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    /// Reversed: the heap's greatest is the earliest deadline, then the first to arrive.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.order).cmp(&(self.deadline, self.order))
    }
}

/// Nodes by deadline. Most come in that order, and cost no search then.
#[derive(Debug, Default)]
struct Nodes {
    in_order: VecDeque<Node>,
    /// Those that came after one with a later deadline.
    overtaking: BinaryHeap<Node>,
}

impl Nodes {
    fn push(&mut self, node: Node) {
        if self.in_order.back().is_none_or(|last| last.deadline <= node.deadline) {
            self.in_order.push_back(node);
        } else {
            self.overtaking.push(node);
        }
    }

    fn peek(&self) -> Option<&Node> {
        // The greater of two nodes is due first; any is greater than none.
        self.in_order.front().max(self.overtaking.peek())
    }

    fn pop(&mut self) -> Option<Node> {
        match self.in_order.front().cmp(&self.overtaking.peek()) {
            Ordering::Greater => self.in_order.pop_front(),
            Ordering::Less | Ordering::Equal => self.overtaking.pop(),
        }
    }

    fn clear(&mut self) {
        self.in_order.clear();
        self.overtaking.clear();
    }
}

/// Of one application, of one who asks it, and of one class.
#[derive(Debug)]
struct AppQueue {
    share: Share,
    nodes: Nodes,
    waiting: usize,
    latest: Instant,
    /// Its service for its weight, plus what others had before it came.
    served: u64,
}

/// The queue. A query may stand in it twice, by an earlier deadline too; it counts once.
#[derive(Debug)]
pub(super) struct FairQueue {
    apps: Vec<AppQueue>,
    served: u64,
    next_order: u64,
    waiting: usize,
    objectives: ObjectiveCounts,
}

impl FairQueue {
    pub fn new() -> Self {
        let objectives = ObjectiveCounts::default();
        Self { apps: Vec::new(), served: 0, next_order: 0, waiting: 0, objectives }
    }

    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn objectives(&self) -> &ObjectiveCounts {
        &self.objectives
    }

    /// What waits by application.
    pub fn apps(&self) -> SmallVec<[AppLoad; 2]> {
        let waiting = self.apps.iter().filter(|app| app.waiting > 0);
        waiting.map(|app| AppLoad { share: app.share, waiting: app.waiting }).collect()
    }

    /// The part that a query of this one has: where too many ask its application, that of the rest.
    pub fn told_apart(&self, share: Share) -> Share {
        if self.apps.len() < TENANTS_MAX || share.tenant == Tenant::NOBODY {
            return share;
        }
        let its = self.apps.iter().map(|app| app.share).filter(|other| other.app == share.app);
        let mut tenants: SmallVec<[Tenant; TENANTS_MAX]> = SmallVec::new();
        for other in its {
            if other.tenant == share.tenant {
                return share;
            }
            if !tenants.contains(&other.tenant) {
                tenants.push(other.tenant);
            }
        }
        if tenants.len() < TENANTS_MAX { share } else { Share { tenant: Tenant::REST, ..share } }
    }

    fn app_mut(&mut self, share: Share, now: Instant) -> &mut AppQueue {
        let at = self.apps.iter().position(|app| app.share.is_same(&share));
        let at = at.unwrap_or_else(|| {
            let (nodes, served) = (Nodes::default(), self.served);
            self.apps.push(AppQueue { share, nodes, waiting: 0, latest: now, served });
            self.apps.len() - 1
        });
        let app = &mut self.apps[at];
        app.share.weight = share.weight.max(1);
        app
    }

    /// Adds a query; `counts`: it does not wait yet.
    pub fn push(
        &mut self,
        share: Share,
        deadline: Instant,
        key: QueryKey,
        objective: Duration,
        counts: bool,
    ) {
        let order = self.next_order;
        self.next_order += 1;
        let served = self.served;
        let app = self.app_mut(share, deadline);
        app.nodes.push(Node { deadline, order, key });
        if !counts {
            return;
        }
        if app.waiting == 0 {
            app.latest = deadline;
            app.served = app.served.max(served);
        }
        app.latest = app.latest.max(deadline);
        app.waiting += 1;
        self.waiting += 1;
        self.objectives.add(objective);
    }

    /// A query that was counted waits no more.
    pub fn forget(&mut self, share: Share, objective: Duration) {
        self.waiting = self.waiting.saturating_sub(1);
        self.objectives.remove(objective);
        let Some(at) = self.apps.iter().position(|app| app.share.is_same(&share)) else { return };
        let app = &mut self.apps[at];
        app.waiting = app.waiting.saturating_sub(1);
        if app.waiting == 0 {
            app.nodes.clear();
            // Who has had no more than the others leaves nothing to remember. One that is alone
            // stays, or each of its queries would cost the memory of a new queue.
            if self.apps.len() > 1 && self.apps[at].served <= self.served {
                self.apps.swap_remove(at);
            } else {
                self.limit_memory();
            }
        }
    }

    /// Idle applications are forgotten when they are many.
    fn limit_memory(&mut self) {
        const IDLE_MAX: usize = 64;
        if self.apps.len() > IDLE_MAX {
            self.apps.retain(|app| app.waiting > 0);
        }
    }

    /// Takes the next query that `is_waiting`, which still counts until [`Self::forget`].
    pub fn pop(
        &mut self,
        fair: bool,
        is_waiting: impl Fn(QueryKey) -> bool,
    ) -> Option<(Instant, QueryKey)> {
        let at = self.next_app(fair, &is_waiting)?;
        let node = self.apps[at].nodes.pop()?;
        Some((node.deadline, node.key))
    }

    fn next_app(&mut self, fair: bool, is_waiting: &impl Fn(QueryKey) -> bool) -> Option<usize> {
        let heads = self.apps.iter_mut().enumerate().filter_map(|(at, app)| {
            while app.nodes.peek().is_some_and(|node| !is_waiting(node.key)) {
                app.nodes.pop();
            }
            let head = app.nodes.peek()?;
            let served = if fair { app.served } else { 0 };
            Some((served, head.deadline, head.order, at))
        });
        heads.min().map(|(.., at)| at)
    }

    /// A query of an application goes into a batch.
    pub fn charge(&mut self, share: Share) {
        if self.apps.len() < 2 {
            return;
        }
        let waiting = self.apps.iter().filter(|app| app.waiting > 0);
        if let Some(least) = waiting.map(|app| app.served).min() {
            self.served = self.served.max(least);
        }
        let most = self.served + AHEAD_MAX * SERVICE;
        let (tenants, classes) = self.sharers_of(share);
        if let Some(app) = self.apps.iter_mut().find(|app| app.share.is_same(&share)) {
            let part = u64::from(app.share.weight.max(1)) * u64::from(share.class.weight());
            let service = SERVICE * tenants * classes / part;
            app.served = (app.served.max(self.served) + service).min(most);
        }
    }

    /// How many share what the application has now, and the weights of the classes that share what
    /// is theirs.
    fn sharers_of(&self, share: Share) -> (u64, u64) {
        let mut tenants: SmallVec<[Tenant; TENANTS_MAX]> = SmallVec::new();
        let mut classes = u64::from(share.class.weight());
        for AppQueue { share: other, waiting, .. } in &self.apps {
            if *waiting == 0 || other.app != share.app {
                continue;
            }
            if other.tenant != share.tenant {
                if !tenants.contains(&other.tenant) {
                    tenants.push(other.tenant);
                }
            } else if other.class != share.class {
                classes += u64::from(other.class.weight());
            }
        }
        (1 + tenants.len() as u64, classes)
    }

    /// Takes a query that is overdue at `now`.
    pub fn pop_overdue(
        &mut self,
        now: Instant,
        is_waiting: impl Fn(QueryKey) -> bool,
    ) -> Option<(Instant, QueryKey)> {
        for app in &mut self.apps {
            while let Some(head) = app.nodes.peek() {
                if is_waiting(head.key) && head.deadline > now {
                    break;
                }
                let Some(node) = app.nodes.pop() else { break };
                if is_waiting(node.key) {
                    return Some((node.deadline, node.key));
                }
            }
        }
        None
    }

    /// When the first query is due, or earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.apps.iter().filter_map(|app| app.nodes.peek()).map(|node| node.deadline).min()
    }

    /// Whether the last query of some application cannot make it behind all that is due before it:
    /// `can_make_it(ahead, deadline)`. Never with one application and one class, to whom it makes
    /// no difference.
    pub fn is_overloaded(&self, can_make_it: impl Fn(usize, Instant) -> bool) -> bool {
        let mut waiting: SmallVec<[(Instant, Instant, usize); COMPARED_MAX]> = SmallVec::new();
        for app in &self.apps {
            let Some(head) = app.nodes.peek() else { continue };
            if waiting.len() == COMPARED_MAX {
                return true;
            }
            waiting.push((head.deadline, app.latest, app.waiting));
        }
        waiting.len() > 1
            && waiting.iter().any(|(_, latest, _)| {
                let before = waiting.iter().filter(|(head, ..)| head <= latest);
                let ahead: usize = before.map(|(_, _, waiting)| waiting).sum();
                !can_make_it(ahead.saturating_sub(1), *latest)
            })
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
