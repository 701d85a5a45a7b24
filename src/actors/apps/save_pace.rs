//! How far acknowledgements of feedback run ahead of the disk. Pure.

use std::time::Duration;

use clipper_clock::Instant;

/// A kill loses what was acknowledged and not saved, and that is to be of the last `saved_within`.
/// As long as saves are quick, feedback is acknowledged at once: the next save begins within a
/// quarter of that time. Where they are not, or the next one is late, feedback is acknowledged when
/// it is saved.
#[derive(Debug)]
pub(super) struct SavePace {
    saved_within: Duration,
    /// When the first came of what is not saved.
    oldest: Option<Instant>,
    saving: Option<Saving>,
    /// The last save was too slow to promise anything of the next.
    is_behind: bool,
}

#[derive(Debug)]
struct Saving {
    begun: Instant,
    /// When the first came of what it saves.
    oldest: Instant,
}

impl SavePace {
    pub(super) fn new(saved_within: Duration) -> Self {
        Self { saved_within, oldest: None, saving: None, is_behind: false }
    }

    /// Feedback counts. Whether it may be acknowledged before it is saved; if not, a save is due.
    pub(super) fn taught(&mut self, now: Instant) -> bool {
        let oldest = *self.oldest.get_or_insert(now);
        !self.is_behind && now.saturating_duration_since(oldest) <= self.saved_within / 2
    }

    /// All that counts now begins to be saved.
    pub(super) fn begin(&mut self, now: Instant) {
        self.saving = self.oldest.take().map(|oldest| Saving { begun: now, oldest });
    }

    /// It is saved, or a failure was counted.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(Saving { begun, oldest }) = self.saving.take() {
            let took = |since: Instant| now.saturating_duration_since(since);
            self.is_behind =
                took(begun) > self.saved_within / 2 || took(oldest) > self.saved_within;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn acknowledgements_run_ahead_by_half_the_time_at_most() {
        let (mut pace, start) = (SavePace::new(SECOND), clipper_clock::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(pace.taught(at(0)) && pace.taught(at(500)));
        assert!(!pace.taught(at(501)), "the save is late");
        pace.begin(at(600));
        pace.end(at(700));
        assert!(pace.taught(at(700)) && pace.taught(at(1_200)));
    }

    #[test]
    fn behind_a_slow_disk_they_come_when_it_is_saved() {
        let (mut pace, start) = (SavePace::new(SECOND), clipper_clock::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(pace.taught(at(0)));
        pace.begin(at(500));
        pace.end(at(1_001));
        assert!(!pace.taught(at(1_001)), "the last save took too long");
        pace.begin(at(1_001));
        pace.end(at(1_501));
        assert!(pace.taught(at(1_501)), "this one did not");
    }

    #[test]
    fn a_save_of_nothing_says_nothing() {
        let (mut pace, start) = (SavePace::new(SECOND), clipper_clock::now());
        pace.begin(start);
        pace.end(start + 10 * SECOND);
        assert!(pace.taught(start + 10 * SECOND));
    }
}
