//! Bounds the memory of large messages over all connections. Pure.
//!
//! Each connection may hold [`FREE_BYTES`] of a message that is still arriving without asking. What
//! is larger takes a share of one budget, grown before more is read, and gives it back when the
//! message has been dealt with. A connection whose share cannot grow is not read for a while. Room
//! is made by ending a connection whose message has stopped arriving, the largest first; those that
//! wait for room stop as well, so a crowd of half messages cannot block each other for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use clipper_clock::Instant;
use parking_lot::Mutex;

/// What every connection may hold without asking.
pub const FREE_BYTES: usize = 64 << 10;

/// Limits of messages that are arriving or being read (`[rpc]` of the config).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveLimits {
    /// Bytes over all connections, without each one's [`FREE_BYTES`]. One message alone may always
    /// be received, up to its own limits.
    pub max_bytes: usize,
    /// A message that has not grown for this long may be given up for another one's sake.
    pub stall: Duration,
}

/// Whether a connection may read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// Not now: ask again later.
    Wait,
    /// Never: its message was given up.
    GivenUp,
}

#[derive(Debug)]
struct MessageEntry {
    bytes: usize,
    /// When it last grew; `None` once it is whole, and nothing of it is awaited.
    grew: Option<Instant>,
    given_up: bool,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct MessageTable {
    used: usize,
    next: u64,
    entries: HashMap<u64, MessageEntry>,
}

impl MessageTable {
    /// The largest message that has stopped arriving.
    fn largest_stalled(&self, stall: Duration, now: Instant) -> Option<u64> {
        let stalled = self.entries.iter().filter(|(_, entry)| {
            let idle = entry.grew.map(|grew| now.saturating_duration_since(grew));
            !entry.given_up && idle.is_some_and(|idle| idle >= stall)
        });
        stalled.max_by_key(|(key, entry)| (entry.bytes, **key)).map(|(key, _)| *key)
    }

    fn give_up(&mut self, key: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.given_up = true;
        self.used -= std::mem::take(&mut entry.bytes);
        if let Some(waker) = entry.waker.take() {
            waker.wake();
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(entry) = self.entries.remove(&key) {
            self.used -= entry.bytes;
        }
    }
}

/// The budget that all connections share.
#[derive(Debug, Clone)]
pub struct ReceiveBudget {
    limits: ReceiveLimits,
    table: Arc<Mutex<MessageTable>>,
}

impl ReceiveBudget {
    /// A budget of which nothing is used.
    #[must_use]
    pub fn new(limits: ReceiveLimits) -> Self {
        Self { limits, table: Arc::default() }
    }

    /// A connection that holds nothing.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), key: None }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.table.lock().used
    }
}

/// What one connection holds of a message that is arriving.
#[derive(Debug)]
pub struct Share {
    budget: ReceiveBudget,
    /// Its entry, while it holds more than [`FREE_BYTES`].
    key: Option<u64>,
}

impl Share {
    /// Whether it holds nothing of the budget.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key.is_none()
    }

    /// Asks to hold `bytes` in all. `waker` is woken if the message is given up meanwhile.
    pub fn hold(&mut self, bytes: usize, now: Instant, waker: &Waker) -> Verdict {
        if bytes <= FREE_BYTES {
            if self.key.is_some() {
                self.release();
            }
            return Verdict::Granted;
        }
        let limits = self.budget.limits;
        let mut table = self.budget.table.lock();
        let key = *self.key.get_or_insert_with(|| {
            let key = table.next;
            table.next += 1;
            let entry = MessageEntry { bytes: 0, grew: Some(now), given_up: false, waker: None };
            table.entries.insert(key, entry);
            key
        });
        loop {
            let table = &mut *table;
            let Some(entry) = table.entries.get_mut(&key).filter(|entry| !entry.given_up) else {
                return Verdict::GivenUp;
            };
            let others = table.used - entry.bytes;
            if bytes <= entry.bytes || others == 0 || others + bytes <= limits.max_bytes {
                if bytes > entry.bytes {
                    entry.grew = Some(now);
                }
                table.used = others + bytes;
                entry.bytes = bytes;
                entry.waker = Some(waker.clone());
                return Verdict::Granted;
            }
            entry.waker = Some(waker.clone());
            let Some(stalled) = table.largest_stalled(limits.stall, now) else {
                return Verdict::Wait;
            };
            table.give_up(stalled);
        }
    }

    /// Whether the message was given up since [`Self::hold`] was granted.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        let Some(key) = self.key else { return false };
        self.budget.table.lock().entries.get(&key).is_none_or(|entry| entry.given_up)
    }

    /// The message is whole: its memory is in use until what this gives is dropped. The share holds
    /// nothing afterwards.
    #[must_use]
    pub fn whole(&mut self) -> Option<Held> {
        let key = self.key.take()?;
        let mut table = self.budget.table.lock();
        let entry = table.entries.get_mut(&key)?;
        entry.grew = None;
        entry.waker = None;
        drop(table);
        Some(Held { budget: self.budget.clone(), key })
    }

    fn release(&mut self) {
        if let Some(key) = self.key.take() {
            self.budget.table.lock().remove(key);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

/// The memory of a whole message, in use until this is dropped.
#[derive(Debug)]
pub struct Held {
    budget: ReceiveBudget,
    key: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.table.lock().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;
    const STALL: Duration = Duration::from_millis(500);

    fn budget() -> ReceiveBudget {
        ReceiveBudget::new(ReceiveLimits { max_bytes: 100 * MB, stall: STALL })
    }

    fn hold(share: &mut Share, bytes: usize, now: Instant) -> Verdict {
        share.hold(bytes, now, Waker::noop())
    }

    #[test]
    fn small_messages_cost_nothing() {
        let budget = budget();
        let mut share = budget.share();
        assert_eq!(hold(&mut share, FREE_BYTES, clipper_clock::now()), Verdict::Granted);
        assert_eq!(budget.used(), 0);
        assert!(share.whole().is_none());
    }

    #[test]
    fn one_message_is_always_received_and_counted_until_it_is_dealt_with() {
        let budget = budget();
        let now = clipper_clock::now();
        let mut share = budget.share();
        assert_eq!(hold(&mut share, 150 * MB, now), Verdict::Granted);
        let held = share.whole();
        assert_eq!(budget.used(), 150 * MB);
        let mut other = budget.share();
        assert_eq!(hold(&mut other, MB, now), Verdict::Wait);
        drop(held);
        assert_eq!(hold(&mut other, MB, now), Verdict::Granted);
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn half_messages_give_way_to_one_that_arrives() {
        let budget = budget();
        let start = clipper_clock::now();
        let mut halves: Vec<Share> = (0..32).map(|_| budget.share()).collect();
        let granted = halves.iter_mut().filter_map(|half| {
            let verdict = hold(half, 30 * MB, start);
            (verdict == Verdict::Granted).then_some(())
        });
        assert_eq!(granted.count(), 3);
        assert!(budget.used() <= 100 * MB);
        let mut good = budget.share();
        assert_eq!(hold(&mut good, 50 * MB, start), Verdict::Wait, "they may still grow");
        assert_eq!(hold(&mut good, 50 * MB, start + STALL), Verdict::Granted);
        assert!(budget.used() <= 100 * MB);
        assert_eq!(halves.iter().filter(|half| half.is_given_up()).count(), 2);
        assert!(!good.is_given_up());
    }

    #[test]
    fn those_who_wait_for_each_other_come_to_an_end() {
        let budget = budget();
        let start = clipper_clock::now();
        let mut both = [budget.share(), budget.share()];
        for share in &mut both {
            assert_eq!(hold(share, 50 * MB, start), Verdict::Granted);
        }
        for share in &mut both {
            assert_eq!(hold(share, 60 * MB, start), Verdict::Wait);
        }
        let later = start + STALL;
        let verdicts = both.each_mut().map(|share| hold(share, 60 * MB, later));
        assert_eq!(verdicts, [Verdict::Granted, Verdict::GivenUp]);
    }
}
