//! So many in a second. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Counts what happens in a second. The next second begins with the first that comes after it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    since: Option<Instant>,
    counted: u32,
}

impl Second {
    /// How long that is.
    pub const LENGTH: Duration = Duration::from_secs(1);

    /// Counts one more, and says which one of its second it is: 1 is the first.
    pub fn count(&mut self, now: Instant) -> u32 {
        if self.end().is_none_or(|end| end <= now) {
            *self = Self { since: Some(now), counted: 0 };
        }
        self.counted = self.counted.saturating_add(1);
        self.counted
    }

    /// When it is over, if one has begun.
    #[must_use]
    pub fn end(&self) -> Option<Instant> {
        self.since.map(|since| since + Self::LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_second_is_the_first_of_the_next() {
        let (start, mut second) = (crate::now(), Second::default());
        assert_eq!(second.end(), None);
        let mut at = |millis: u64| second.count(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(0), at(999), at(1_000), at(1_999), at(5_000)], [1, 2, 3, 1, 2, 1]);
        assert_eq!(second.end(), Some(start + Duration::from_secs(6)));
    }
}
