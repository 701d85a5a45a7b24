//! The last batches of a model version: what its learned curve was drawn through.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Batches that are remembered, 8 bytes each.
pub const RECENT_BATCHES: usize = 256;

const MICROS_BITS: u32 = 40;
const MICROS_MAX: u64 = (1 << MICROS_BITS) - 1;
const SIZE_MAX: u64 = (1 << (u64::BITS - MICROS_BITS)) - 1;

/// Sizes and times, each in one word, so that a reader never sees half of one.
#[derive(Debug, Default)]
pub(super) struct RecentBatches {
    next: AtomicUsize,
    /// Made by the first batch; 0: none yet.
    batches: OnceLock<Box<[AtomicU64]>>,
}

impl RecentBatches {
    pub(super) fn note(&self, size: u64, micros: u64) {
        let made = || {
            std::iter::repeat_with(AtomicU64::default).take(RECENT_BATCHES).collect::<Box<[_]>>()
        };
        let at = self.next.fetch_add(1, Relaxed) % RECENT_BATCHES;
        if let Some(batch) = self.batches.get_or_init(made).get(at) {
            let word = size.min(SIZE_MAX) << MICROS_BITS | micros.min(MICROS_MAX);
            batch.store(word, Relaxed);
        }
    }

    /// Sizes and microseconds, in no order.
    pub(super) fn all(&self) -> Vec<(u64, u64)> {
        let words = self.batches.get().into_iter().flatten().map(|word| word.load(Relaxed));
        let batches = words.map(|word| (word >> MICROS_BITS, word & MICROS_MAX));
        batches.filter(|(size, _)| *size > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let recent = RecentBatches::default();
        assert!(recent.all().is_empty() && recent.batches.get().is_none());
        recent.note(3, 700);
        assert_eq!(recent.all(), [(3, 700)]);
        for n in 0..2 * RECENT_BATCHES as u64 {
            recent.note(n + 1, u64::MAX);
        }
        let all = recent.all();
        assert_eq!(all.len(), RECENT_BATCHES);
        assert!(all.iter().all(|(n, us)| *n > RECENT_BATCHES as u64 && *us == MICROS_MAX));
    }
}
