//! Second attempts at queries whose replica takes suspiciously long: which wait, and what they may
//! cost.
//!
//! Such a replica may just be slow, and then the work is done twice. So there is a budget, a share
//! of the replicas' time, and as long as a deadline is far a hedge leaves the last idle replica to
//! the queries that may come.

use std::time::Duration;

use clipper_clock::Instant;

use super::query::QueryKey;

/// Replica time that may be spent on doing work twice.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    share: f64,
    burst: f64,
    /// Seconds.
    saved: f64,
}

impl HedgeBudget {
    /// `share` of the time, and `burst` at once.
    pub fn new(share: f64, burst: Duration) -> Self {
        let burst = burst.as_secs_f64();
        let saved = if share > 0.0 { burst } else { 0.0 };
        Self { share, burst, saved }
    }

    /// Replicas have worked for so long.
    pub fn earn(&mut self, worked: Duration) {
        self.saved = (self.saved + worked.as_secs_f64() * self.share).min(self.burst);
    }

    /// Takes the time that a hedge is expected to cost, if there is so much.
    pub fn spend(&mut self, expected: Duration) -> bool {
        let cost = expected.as_secs_f64();
        let affords = cost <= self.saved;
        if affords {
            self.saved -= cost;
        }
        affords
    }

    /// Hedges took so long `each`, which may differ from what they were expected to.
    pub fn settle(&mut self, hedges: &HedgesSent, each: Duration) {
        let cost = (each * hedges.n).as_secs_f64();
        self.saved = (self.saved + hedges.expected.as_secs_f64() - cost).min(self.burst);
    }

    /// They have cost more than there was.
    pub fn is_overdrawn(&self) -> bool {
        self.saved < 0.0
    }
}

/// The queries of a batch that another replica computes too.
#[derive(Debug, Default)]
pub(super) struct HedgesSent {
    pub n: u32,
    /// What they were expected to cost, and has been taken from the budget.
    pub expected: Duration,
}

/// A query that may be sent to a second replica.
#[derive(Debug)]
pub(super) struct Hedge {
    pub key: QueryKey,
    /// From then on its deadline is near.
    pub urgent_from: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Hedges {
    waiting: Vec<Hedge>,
}

impl Hedges {
    pub fn add(&mut self, key: QueryKey, deadline: Instant, objective: Duration) {
        let half = objective / 2;
        let urgent_from = deadline.checked_sub(half).unwrap_or(deadline);
        self.waiting.push(Hedge { key, urgent_from });
    }

    /// When the next one becomes urgent; `None` if none waits.
    pub fn next_urgent(&self) -> Option<Instant> {
        self.waiting.iter().map(|hedge| hedge.urgent_from).min()
    }

    /// Takes those that are urgent, and besides them up to `more` for which that `is_fit`.
    pub fn take(
        &mut self,
        now: Instant,
        mut more: usize,
        is_fit: impl Fn(QueryKey) -> bool,
    ) -> Vec<QueryKey> {
        let mut taken = Vec::new();
        self.waiting.retain(|hedge| {
            let goes = hedge.urgent_from <= now || more > 0 && is_fit(hedge.key);
            if goes {
                more = more.saturating_sub(1);
                taken.push(hedge.key);
            }
            !goes
        });
        taken
    }

    /// Drops those that nobody needs any more.
    pub fn retain(&mut self, is_needed: impl Fn(QueryKey) -> bool) {
        self.waiting.retain(|hedge| is_needed(hedge.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_work_and_a_burst() {
        let ms = Duration::from_millis;
        let mut budget = HedgeBudget::new(0.05, ms(100));
        assert!(budget.spend(ms(60)));
        assert!(!budget.spend(ms(60)), "40 are left");
        budget.earn(ms(400));
        assert!(budget.spend(ms(60)));
        assert!(!budget.spend(ms(1)));
        budget.earn(Duration::from_secs(3_600));
        assert!(budget.spend(ms(100)) && !budget.spend(ms(1)), "no more than the burst");
        assert!(!budget.is_overdrawn(), "all of it, and no more");
        let (n, expected) = (4, ms(10));
        budget.settle(&HedgesSent { n, expected }, ms(5));
        assert!(budget.is_overdrawn() && !budget.spend(ms(0)), "ten more than expected");
        budget.earn(ms(200));
        assert!(!budget.is_overdrawn());
        assert!(!HedgeBudget::new(0.0, ms(100)).spend(ms(1)), "switched off");
    }
}
