//! Counts what containers send although nothing was asked of them. Pure.
//!
//! Heartbeats, PINGs, repeated metadata and answers that nobody awaits take time from every other
//! connection of the same thread. Each connection has a limit of its own and a small allowance that
//! is its right; what is beyond the allowance is drawn from one budget for all. When that is spent,
//! those who sent more than twice their share of it are cut, so that a crowd of talkers, each
//! below its own limit, takes no more time in sum than the budget allows, and a quiet neighbour is
//! never cut for them.

use std::sync::Arc;

use clipper_clock::{Instant, Second};
use parking_lot::Mutex;

/// Messages a second that any connection may send, whatever the others do: a heartbeat now and
/// then, and more than libzmq needs to keep a connection alive with usual settings.
pub const ALLOWANCE: u32 = 10;

/// Limits of what is not asked for (`[rpc]` of the config).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnaskedLimits {
    /// Messages of one connection in a second.
    pub per_connection_max: u32,
    /// Messages of all connections in a second, beyond each one's [`ALLOWANCE`].
    pub sum_max: u32,
    /// Bytes of all connections in a second, beyond each one's [`ALLOWANCE`].
    pub sum_max_bytes: u64,
}

/// Why a connection is cut. The texts are for the operator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error(
        "it sent more than {0} messages in a second that nobody awaited \
         (rpc.unasked_messages_per_second_max)"
    )]
    Connection(u32),
    /// The sum of all, of which it has more than its share.
    #[error(
        "all connections sent more than {0} messages in a second that nobody awaited \
         (rpc.unasked_messages_per_second_sum_max), and this one more than its share"
    )]
    Sum(u32),
    /// The same in bytes.
    #[error(
        "all connections sent more than {0} bytes in a second that nobody awaited \
         (rpc.unasked_bytes_per_second_sum_max), and this one more than its share"
    )]
    SumBytes(u64),
}

#[derive(Debug, Default)]
struct Sum {
    messages: Second,
    bytes: u64,
    /// Connections that drew from the budget in the current second, and in the one before.
    speakers: u32,
    speakers_before: u32,
}

/// The budget that all connections share.
#[derive(Debug, Clone)]
pub struct UnaskedBudget {
    limits: UnaskedLimits,
    sum: Arc<Mutex<Sum>>,
}

impl UnaskedBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(limits: UnaskedLimits) -> Self {
        Self { limits, sum: Arc::default() }
    }

    /// The counter of one connection.
    #[must_use]
    pub fn meter(&self) -> UnaskedMeter {
        UnaskedMeter { budget: self.clone(), messages: Second::default(), bytes: 0 }
    }

    /// Draws one message; `mine` is the sender's own count, in which `first` says that it has not
    /// drawn in this second.
    fn draw(&self, bytes: u64, mine: (u32, u64), first: bool, now: Instant) -> Result<(), Flood> {
        let limits = self.limits;
        let mut sum = self.sum.lock();
        let sent = sum.messages.count(now);
        if sent == 1 {
            (sum.bytes, sum.speakers_before, sum.speakers) = (0, sum.speakers, 0);
        }
        sum.speakers += u32::from(first);
        sum.bytes = sum.bytes.saturating_add(bytes);
        let speakers = sum.speakers.max(sum.speakers_before).max(1);
        let (messages, sent_bytes) = mine;
        if sent > limits.sum_max && messages / 2 > (limits.sum_max / speakers) {
            return Err(Flood::Sum(limits.sum_max));
        }
        let share_bytes = limits.sum_max_bytes / u64::from(speakers);
        if sum.bytes > limits.sum_max_bytes && sent_bytes / 2 > share_bytes {
            return Err(Flood::SumBytes(limits.sum_max_bytes));
        }
        Ok(())
    }
}

/// Counts what one connection sends unasked.
#[derive(Debug)]
pub struct UnaskedMeter {
    budget: UnaskedBudget,
    messages: Second,
    bytes: u64,
}

impl UnaskedMeter {
    /// Counts one message of `bytes`.
    ///
    /// # Errors
    /// The limit that it breaks; the connection is then to be closed.
    pub fn count(&mut self, bytes: usize, now: Instant) -> Result<(), Flood> {
        let bytes = bytes as u64;
        let sent = self.messages.count(now);
        self.bytes = if sent == 1 { bytes } else { self.bytes.saturating_add(bytes) };
        let max = self.budget.limits.per_connection_max;
        if sent > max {
            return Err(Flood::Connection(max));
        }
        if sent <= ALLOWANCE {
            return Ok(());
        }
        self.budget.draw(bytes, (sent, self.bytes), sent == ALLOWANCE + 1, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: UnaskedLimits =
        UnaskedLimits { per_connection_max: 1_000, sum_max: 4_000, sum_max_bytes: 1 << 20 };

    /// Sends `rate` messages of `bytes` a second from each meter for `seconds`, evenly; which of
    /// them were cut, and how many messages got through in all.
    fn talk(
        meters: &mut [(UnaskedMeter, u32)],
        bytes: usize,
        start: Instant,
        seconds: u32,
    ) -> (Vec<Option<Flood>>, u32) {
        let mut cut = vec![None; meters.len()];
        let mut passed = 0;
        for step in 0..seconds * 1_000 {
            let now = start + Duration::from_millis(step.into());
            for ((meter, rate), cut) in meters.iter_mut().zip(&mut cut) {
                let due = u64::from(step) * u64::from(*rate) / 1_000;
                let before = (u64::from(step.max(1)) - 1) * u64::from(*rate) / 1_000;
                for _ in before..due {
                    if cut.is_none() {
                        match meter.count(bytes, now) {
                            Ok(()) => passed += 1,
                            Err(flood) => *cut = Some(flood),
                        }
                    }
                }
            }
        }
        (cut, passed)
    }

    fn meters(budget: &UnaskedBudget, rates: &[u32]) -> Vec<(UnaskedMeter, u32)> {
        rates.iter().map(|rate| (budget.meter(), *rate)).collect()
    }

    #[test]
    fn one_that_talks_too_much_is_cut_and_its_neighbours_are_not() {
        let start = clipper_clock::now();
        let budget = UnaskedBudget::new(LIMITS);
        let mut all = meters(&budget, &[1_100, 20, 900]);
        let (cut, _) = talk(&mut all, 8, start, 3);
        assert_eq!(cut, [Some(Flood::Connection(1_000)), None, None]);
    }

    #[test]
    fn a_crowd_below_its_own_limits_is_cut_by_the_sum() {
        let start = clipper_clock::now();
        let budget = UnaskedBudget::new(LIMITS);
        let mut rates = vec![900; 100];
        rates.push(20); // PINGs every 50 ms
        let mut all = meters(&budget, &rates);
        let (cut, passed) = talk(&mut all, 8, start, 5);
        let (quiet, crowd) = cut.split_last().unwrap();
        assert_eq!(*quiet, None, "who keeps to its share stays");
        assert!(crowd.iter().all(Option::is_some), "{crowd:?}");
        assert!(passed < 12_000, "{passed} messages in 5 s");
    }

    #[test]
    fn thousands_of_containers_with_usual_heartbeats_are_never_cut() {
        let start = clipper_clock::now();
        let budget = UnaskedBudget::new(LIMITS);
        let mut all = meters(&budget, &vec![5; 4_096]);
        let (cut, _) = talk(&mut all, 8, start, 3);
        assert!(cut.iter().all(Option::is_none));
    }

    #[test]
    fn bytes_count_as_well_as_messages() {
        let start = clipper_clock::now();
        let budget = UnaskedBudget::new(LIMITS);
        let mut all = meters(&budget, &[200, 200, 20]);
        let (cut, _) = talk(&mut all, 10_000, start, 3);
        let too_many = Some(Flood::SumBytes(1 << 20));
        assert_eq!(cut, [too_many, too_many, None]);
    }
}
