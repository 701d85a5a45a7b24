//! Rates of a growing count: the mean since the start, and averages that decay over minutes.
//!
//! Pure: it is told the time and the count. Writers only keep the count.

use std::time::Duration;

use clipper_clock::Instant;

use super::histogram::float;

/// How often the decaying averages move, as in the original.
pub const TICK: Duration = Duration::from_secs(5);

/// What the averages decay over, in minutes.
const MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Events per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Since the start.
    pub mean: f64,
    /// Over 1, 5 and 15 minutes; -1 before the first tick.
    pub decaying: [f64; 3],
}

/// The state of one meter.
#[derive(Debug, Clone)]
pub struct Meter {
    started: Instant,
    last_tick: Instant,
    last_total: u64,
    decaying: Option<[f64; 3]>,
}

impl Meter {
    /// A meter of a count that is 0 at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { started: now, last_tick: now, last_total: 0, decaying: None }
    }

    /// Moves the averages by the whole ticks since the last move. `total` is the count at `now`.
    /// If several ticks were missed, what was counted is spread evenly over them.
    pub fn advance(&mut self, now: Instant, total: u64) {
        let elapsed = now.saturating_duration_since(self.last_tick);
        let Ok(ticks) = u32::try_from(elapsed.as_secs() / TICK.as_secs()) else { return };
        if ticks == 0 {
            return;
        }
        let covered = TICK * ticks;
        let rate = float(total.saturating_sub(self.last_total)) / covered.as_secs_f64();
        self.decaying = Some(match self.decaying {
            None => [rate; 3],
            Some(mut old) => {
                for (average, minutes) in old.iter_mut().zip(MINUTES) {
                    let kept = (-covered.as_secs_f64() / (60.0 * minutes)).exp();
                    *average = rate + (*average - rate) * kept;
                }
                old
            }
        });
        self.last_tick += covered;
        self.last_total = total;
    }

    /// The rates at `now`, when the count is `total`.
    #[must_use]
    pub fn rates(&self, now: Instant, total: u64) -> Rates {
        let seconds = now.saturating_duration_since(self.started).as_secs_f64();
        let mean = if total == 0 || seconds <= 0.0 { 0.0 } else { float(total) / seconds };
        Rates { mean, decaying: self.decaying.unwrap_or([-1.0; 3]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn averages_are_unknown_before_the_first_tick() {
        let start = clipper_clock::now();
        let mut meter = Meter::new(start);
        meter.advance(start + Duration::from_millis(4_999), 10);
        let rates = meter.rates(start + Duration::from_secs(4), 10);
        assert_eq!(rates, Rates { mean: 2.5, decaying: [-1.0; 3] });
        assert_eq!(meter.rates(start, 10).mean.to_string(), "0", "no time, no rate");
    }

    #[test]
    fn averages_start_at_the_first_rate_and_decay() {
        let start = clipper_clock::now();
        let mut meter = Meter::new(start);
        meter.advance(start + TICK, 50);
        assert_eq!(meter.rates(start + TICK, 50).decaying.map(|r| r.to_string()), ["10"; 3]);
        meter.advance(start + TICK + Duration::from_mins(1), 50);
        let [one, five, fifteen] = meter.rates(start, 50).decaying;
        assert!(close(one, 10.0 * (-1.0_f64).exp()), "{one}");
        assert!(close(five, 10.0 * (-0.2_f64).exp()), "{five}");
        assert!(close(fifteen, 10.0 * (-1.0_f64 / 15.0).exp()), "{fifteen}");
    }

    #[test]
    fn late_ticks_equal_ticks_in_time_at_an_even_rate() {
        let start = clipper_clock::now();
        let (mut late, mut prompt) = (Meter::new(start), Meter::new(start));
        late.advance(start + TICK, 5);
        prompt.advance(start + TICK, 5);
        for n in 1..=12_u32 {
            prompt.advance(start + TICK * (n + 1), 5 + u64::from(n) * 100);
        }
        late.advance(start + TICK * 13 + Duration::from_secs(2), 5 + 1_200);
        for (a, b) in late.rates(start, 0).decaying.iter().zip(prompt.rates(start, 0).decaying) {
            assert!(close(*a, b), "{a} {b}");
        }
    }
}
