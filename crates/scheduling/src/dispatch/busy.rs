//! When a replica that computes counts as hung.
//!
//! One that computes as long as a caller waits for it is busy, however long that is. Afterwards
//! nobody can use its answer; it is given time all the same, because a model may be slower than an
//! objective, above all with its first query. And there is an end to everything.

use std::time::Duration;

use clipper_clock::Instant;

/// How long a replica may compute one batch.
#[derive(Debug, Clone, Copy)]
pub struct BusyLimits {
    /// So long in any case.
    pub min: Duration,
    /// No longer, whatever the deadlines are.
    pub max: Duration,
}

impl BusyLimits {
    /// From when on a replica hangs that `began` with a batch, the latest deadline of which is
    /// `deadline`.
    #[must_use]
    pub fn hung_from(self, began: Instant, deadline: Instant) -> Instant {
        deadline.max(began + self.min).min(began + self.max)
    }

    /// Why such a replica hangs, with the name of the limit that struck.
    #[must_use]
    pub fn why_hung(self, began: Instant, deadline: Instant) -> &'static str {
        if deadline.max(began + self.min) >= began + self.max {
            "it computed one batch for as long as any may (rpc.busy_max_ms)"
        } else if deadline < began + self.min {
            "it computed for longer than anybody waited (rpc.silence_timeout_ms)"
        } else {
            "it computed for longer than anybody waited (the latest objective of its batch)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_until_the_deadline_within_bounds() {
        let s = Duration::from_secs;
        let (busy, began) = (BusyLimits { min: s(30), max: s(600) }, clipper_clock::now());
        assert_eq!(busy.hung_from(began, began + s(120)), began + s(120), "an SLO of 120 s");
        assert_eq!(busy.hung_from(began, began + s(1)), began + s(30), "slower than the objective");
        assert_eq!(busy.hung_from(began, began + s(3_600)), began + s(600), "at most");
    }

    #[test]
    fn the_limit_that_struck_is_named() {
        let s = Duration::from_secs;
        let (busy, began) = (BusyLimits { min: s(30), max: s(600) }, clipper_clock::now());
        let cases = [
            (1, "rpc.silence_timeout_ms"),
            (30, "objective"),
            (120, "objective"),
            (3_600, "rpc.busy_max_ms"),
        ];
        for (objective, named) in cases {
            let why = busy.why_hung(began, began + s(objective));
            assert!(why.contains(named), "{objective} s: {why}");
        }
        let narrow = BusyLimits { min: s(30), max: s(20) };
        assert!(narrow.why_hung(began, began).contains("rpc.busy_max_ms"));
    }
}
