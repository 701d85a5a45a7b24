//! Whether a model's thread looks for its next message instead of sleeping until it comes. Pure.
//!
//! A core that has fallen asleep takes 10 to 20 us to wake up, and the query of a lone caller waits
//! for that at each thread on its way: more than the server itself needs for it. So the thread in
//! the middle stays awake for as long as messages follow each other quickly, and only then.

use std::time::Duration;

use clipper_clock::Instant;

/// Weight of the latest pause.
const WEIGHT: f64 = 1.0 / 16.0;
/// Share of pauses that must have been short.
const MOST: f64 = 0.9;

/// Watches the pauses between messages.
#[derive(Debug)]
pub struct SpinWait {
    pause_max: Duration,
    heard: Option<Instant>,
    short: f64,
}

impl SpinWait {
    /// Pauses up to `pause_max` are short; zero never stays awake.
    #[must_use]
    pub fn new(pause_max: Duration) -> Self {
        Self { pause_max, heard: None, short: 0.0 }
    }

    /// A message has come, of a caller that is alone or not. How long to stay awake for the next.
    #[must_use]
    pub fn heard(&mut self, now: Instant, alone: bool) -> Option<Duration> {
        let before = self.heard.replace(now)?;
        let is_short = now.saturating_duration_since(before) < self.pause_max;
        self.short += (f64::from(u8::from(is_short)) - self.short) * WEIGHT;
        (alone && self.short >= MOST).then_some(self.pause_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    const MAX: Duration = Duration::from_micros(300);

    /// What is said after 100 messages, `even` and `odd` apart in turn.
    fn after(max: Duration, even: Duration, odd: Duration, alone: bool) -> Option<Duration> {
        let (mut spin_wait, mut now) = (SpinWait::new(max), clock::now());
        let mut said = None;
        for n in 0..100 {
            now += if n % 2 == 0 { even } else { odd };
            said = spin_wait.heard(now, alone);
        }
        said
    }

    #[test]
    fn a_lone_caller_with_a_quick_model_is_waited_for() {
        let quick = Duration::from_micros(150);
        assert_eq!(after(MAX, quick, quick, true), Some(MAX));
        assert_eq!(after(MAX, quick, quick, false), None);
        assert_eq!(after(Duration::ZERO, quick, quick, true), None);
    }

    #[test]
    fn nobody_is_waited_for_where_pauses_are_long() {
        let quick = Duration::from_micros(150);
        assert_eq!(after(MAX, quick, Duration::from_millis(2), true), None);
        let mut spin_wait = SpinWait::new(MAX);
        assert_eq!(spin_wait.heard(clock::now(), true), None, "the first of all");
    }
}
