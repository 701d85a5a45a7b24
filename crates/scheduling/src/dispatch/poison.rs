//! Inputs that have killed replicas, remembered for a while.
//!
//! A replica that dies while it computes leaves the queries of its batch suspected. One that has
//! been suspected often enough and was alone in its last batch is the cause: it is answered with
//! the reason, and so is every later query with the same input, instead of killing the next
//! replica. What is remembered of an input is a fingerprint, so that the table is small.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clipper_clock::Instant;

#[derive(Debug, Clone)]
struct Suspect {
    until: Instant,
    deaths: u32,
    /// Said to callers, once it is clear.
    why: Option<Arc<str>>,
}

/// The table; the oldest entry gives way to a new one.
#[derive(Debug)]
pub(super) struct PoisonList {
    keep: Duration,
    max: usize,
    suspects: HashMap<u64, Suspect>,
    order: VecDeque<u64>,
}

/// What is known of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It was there when so many replicas died.
    Suspected(u32),
    /// It kills; in words.
    Poisonous(Arc<str>),
}

impl PoisonList {
    /// Remembers at most `max` inputs, each for `keep`.
    pub fn new(keep: Duration, max: usize) -> Self {
        Self { keep, max, suspects: HashMap::new(), order: VecDeque::new() }
    }

    pub fn get(&mut self, fingerprint: u64, now: Instant) -> Option<Known> {
        if self.suspects.is_empty() {
            return None;
        }
        let suspect = self.suspects.get(&fingerprint)?;
        let known = match &suspect.why {
            Some(why) => Known::Poisonous(Arc::clone(why)),
            None => Known::Suspected(suspect.deaths),
        };
        if suspect.until <= now {
            self.clear(fingerprint);
            return None;
        }
        Some(known)
    }

    /// So many replicas have died with it; `why` once there is no doubt.
    pub fn note(&mut self, fingerprint: u64, deaths: u32, why: Option<Arc<str>>, now: Instant) {
        if self.max == 0 {
            return;
        }
        let suspect = Suspect { until: now + self.keep, deaths, why };
        if self.suspects.insert(fingerprint, suspect).is_none() {
            self.order.push_back(fingerprint);
        }
        while self.order.len() > self.max {
            if let Some(oldest) = self.order.pop_front() {
                self.suspects.remove(&oldest);
            }
        }
    }

    /// It was answered: others are to blame.
    pub fn clear(&mut self, fingerprint: u64) {
        if !self.suspects.is_empty() && self.suspects.remove(&fingerprint).is_some() {
            self.order.retain(|other| *other != fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    #[test]
    fn remembered_for_a_while_and_within_a_bound() {
        let (mut list, now) = (PoisonList::new(KEEP, 2), clipper_clock::now());
        list.note(1, 1, None, now);
        assert_eq!(list.get(1, now), Some(Known::Suspected(1)));
        list.note(1, 2, Some("it kills".into()), now);
        assert_eq!(list.get(1, now), Some(Known::Poisonous("it kills".into())));
        list.note(2, 1, None, now);
        list.note(3, 1, None, now);
        assert_eq!(list.get(1, now), None, "the oldest gave way");
        assert_eq!(list.get(2, now), Some(Known::Suspected(1)));
        list.clear(2);
        assert_eq!(list.get(2, now), None);
        assert_eq!(list.get(3, now), Some(Known::Suspected(1)));
        assert_eq!(list.get(3, now + KEEP), None);
    }

    #[test]
    fn what_was_cleared_leaves_its_place_to_another() {
        let (mut list, now) = (PoisonList::new(KEEP, 2), clipper_clock::now());
        list.note(1, 1, None, now);
        list.note(2, 1, None, now);
        list.clear(1);
        list.note(3, 1, None, now);
        assert!(list.get(2, now).is_some() && list.get(3, now).is_some());
        list.note(4, 1, None, now);
        assert!(list.get(2, now).is_none() && list.get(4, now).is_some(), "no more than two");
        assert_eq!((list.suspects.len(), list.order.len()), (2, 2));
    }
}
