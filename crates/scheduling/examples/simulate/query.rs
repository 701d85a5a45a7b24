//! A simulated query.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use clipper_clock::Instant;
use clipper_scheduling::dispatch::Query;
use clipper_scheduling::share::Share;

use crate::scenario::Kind;

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Answered,
    Resolved,
}

#[derive(Debug)]
pub struct Inner {
    pub id: usize,
    pub share: Share,
    pub kind: Kind,
    pub arrived: Instant,
    pub deadline: Instant,
    pub end: Cell<Option<End>>,
    /// Its caller has gone.
    pub is_cancelled: Cell<bool>,
    /// A wrong dispatcher does not see that it is cancelled, or late.
    pub is_blind: Cell<bool>,
    pub computing: Cell<bool>,
    pub note: Cell<u32>,
    /// It was sent to a replica.
    pub is_sent: Cell<bool>,
    /// Replicas have begun with it so often.
    pub begins: Cell<u32>,
    /// It was part of an answer of so many that was too large.
    pub too_large: Cell<usize>,
    /// From then on nobody has had it.
    pub waits_since: Cell<Instant>,
    /// Its answer comes in pieces, where the replica gives them.
    pub is_streamed: bool,
    /// The first piece has gone out.
    pub has_begun: Cell<bool>,
    /// A wrong dispatcher does not see that.
    pub hides_begun: Cell<bool>,
    /// Replicas that have it.
    pub assigned: Cell<u32>,
}

#[derive(Debug, Clone)]
pub struct SimQuery(pub Rc<Inner>);

impl std::ops::Deref for SimQuery {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl SimQuery {
    pub fn is_awaited(&self, now: Instant) -> bool {
        self.end.get().is_none() && !self.is_cancelled.get() && self.deadline > now
    }
}

impl Query for SimQuery {
    fn awaited_until(&self, now: Instant) -> Option<Instant> {
        if self.is_blind.get() && self.end.get().is_none() {
            return Some(self.deadline.max(now + Duration::from_secs(1)));
        }
        self.is_awaited(now).then_some(self.deadline)
    }

    fn take(&self, now: Instant) -> Option<Instant> {
        let until = self.awaited_until(now)?;
        self.computing.set(true);
        Some(until)
    }

    fn put_back(&self) {
        self.computing.set(false);
    }

    fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    fn has_begun(&self) -> bool {
        self.has_begun.get() && !self.hides_begun.get()
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn objective(&self) -> Duration {
        self.deadline - self.arrived
    }

    fn fingerprint(&self) -> u64 {
        // Deadly inputs are asked again and again.
        match self.kind {
            Kind::Deadly => 1,
            Kind::Endless => 2,
            _ => 16 + self.id as u64,
        }
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn note(&self) -> u32 {
        self.note.get()
    }

    fn set_note(&self, note: u32) {
        self.note.set(note);
    }
}
