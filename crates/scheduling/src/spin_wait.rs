//! Whether a model's thread looks for its next message instead of sleeping until it comes. Pure.
//!
//! A core that has fallen asleep takes 10 to 20 us to wake up, and the query of a lone caller waits
//! for that at each thread on its way: more than the server itself needs for it. So the thread in
//! the middle stays awake for as long as messages follow each other quickly, and only then.
//!
//! While it looks it offers its core to whoever waits for it. A core that others want does not fall
//! asleep, so there is nothing to gain then, and much to lose: a thread that has given its core
//! away comes after all others of that core for a whole turn (Linux 6.18 takes one from it),
//! however little they matter. So it sleeps for a while like any other, and is woken at its
//! proper place.

use std::time::Duration;

use clipper_clock::Instant;

/// Weight of the latest pause.
const WEIGHT: f64 = 1.0 / 16.0;
/// Share of pauses that must have been short.
const MOST: f64 = 0.9;
/// Whoever has had the core for longer than this is not on the way of the query that is waited for:
/// a caller and a frontend have it for 20 to 60 us, twice that on a slow machine, a container with
/// a quick model for as long again. A thread that computes keeps it for 0.7 ms at least (Linux
/// 6.18).
const TURN_MAX: Duration = Duration::from_micros(300);
/// Once is chance. Two so close are somebody at work; there are hundreds a second beside anything
/// that computes.
const TWICE_WITHIN: Duration = Duration::from_millis(20);
/// How long not to stay awake after that: seldom enough to be no part of a p99.
const ASLEEP: Duration = Duration::from_millis(250);

/// Watches the pauses between messages.
#[derive(Debug)]
pub struct SpinWait {
    pause_max: Duration,
    heard: Option<Instant>,
    short: f64,
    /// When others last had the core for long.
    wanted: Option<Instant>,
    asleep_until: Option<Instant>,
}

impl SpinWait {
    /// Pauses up to `pause_max` are short; zero never stays awake.
    #[must_use]
    pub fn new(pause_max: Duration) -> Self {
        Self { pause_max, heard: None, short: 0.0, wanted: None, asleep_until: None }
    }

    /// A message has come, of a caller that is alone or not. How long to stay awake for the next.
    #[must_use]
    pub fn heard(&mut self, now: Instant, alone: bool) -> Option<Duration> {
        let before = self.heard.replace(now)?;
        let is_short = now.saturating_duration_since(before) < self.pause_max;
        self.short += (f64::from(u8::from(is_short)) - self.short) * WEIGHT;
        if self.asleep_until.is_some_and(|until| now < until) {
            return None;
        }
        (alone && self.short >= MOST).then_some(self.pause_max)
    }

    /// Others had the core from `begin`, when it was offered, to `end`. Whether to stay awake
    /// still.
    #[must_use]
    pub fn yielded(&mut self, begin: Instant, end: Instant) -> bool {
        if end.saturating_duration_since(begin) <= TURN_MAX {
            return true;
        }
        let before = self.wanted.replace(end);
        let is_chance =
            before.is_none_or(|before| end.saturating_duration_since(before) > TWICE_WITHIN);
        if !is_chance {
            self.asleep_until = Some(end + ASLEEP);
        }
        is_chance
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
    fn a_core_that_others_want_is_left_to_them_for_a_while() {
        let quick = Duration::from_micros(150);
        let (mut spin_wait, mut now) = (SpinWait::new(MAX), clock::now());
        let mut hear = |spin_wait: &mut SpinWait, pause| {
            now += pause;
            (spin_wait.heard(now, true), now)
        };
        for _ in 0..100 {
            let _ = hear(&mut spin_wait, quick);
        }
        let (_, now) = hear(&mut spin_wait, quick);
        for _ in 0..10 {
            let of_the_query = now + Duration::from_micros(180);
            assert!(spin_wait.yielded(now, of_the_query), "a slow machine, or a quick model");
        }
        assert_eq!(hear(&mut spin_wait, quick).0, Some(MAX));
        let others = Duration::from_micros(700);
        assert!(spin_wait.yielded(now - TWICE_WITHIN, now - TWICE_WITHIN + others), "long ago");
        assert!(spin_wait.yielded(now + others, now + 2 * others), "once");
        assert!(!spin_wait.yielded(now + 2 * others, now + 3 * others), "twice");
        let asleep = (0..2_000).take_while(|_| hear(&mut spin_wait, quick).0.is_none()).count();
        assert_eq!(asleep, 1_679, "for 250 ms");
    }

    #[test]
    fn nobody_is_waited_for_where_pauses_are_long() {
        let quick = Duration::from_micros(150);
        assert_eq!(after(MAX, quick, Duration::from_millis(2), true), None);
        let mut spin_wait = SpinWait::new(MAX);
        assert_eq!(spin_wait.heard(clock::now(), true), None, "the first of all");
    }
}
