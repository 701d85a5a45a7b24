//! How many queries of a second are kept for whoever asks why they were answered so, within a bound
//! that no application uses up alone.
//!
//! One thread counts, with plain loads and stores: it asks for every request that is answered.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use clipper_domain::explain::KeptAs;

/// Slow queries, and as many defaults, that an application may keep in a second whatever the others
/// do.
pub const OF_ITS_OWN: u32 = 4;

/// What was taken in a second: as [`clipper_clock::Second`] counts, but behind a shared reference.
#[derive(Debug, Default)]
struct TakenPace {
    second: AtomicU64,
    taken: AtomicU32,
}

impl TakenPace {
    fn has_room(&self, max: u32, second: u64) -> bool {
        let is_new = self.second.load(Relaxed) != second;
        max > if is_new { 0 } else { self.taken.load(Relaxed) }
    }

    fn takes(&self, max: u32, second: u64) -> bool {
        if !self.has_room(max, second) {
            return false;
        }
        let is_new = self.second.load(Relaxed) != second;
        let taken = if is_new { 0 } else { self.taken.load(Relaxed) };
        self.taken.store(taken + 1, Relaxed);
        self.second.store(second, Relaxed);
        true
    }
}

/// What one worker takes in a second.
#[derive(Debug, Clone, Copy)]
pub struct PaceLimits {
    /// Of those that were neither slow nor defaults.
    pub samples: u32,
    /// Of the others, beside what each application may keep in any case.
    pub records: u32,
}

/// What one worker has taken of all applications.
#[derive(Debug, Default)]
pub struct AllPaces {
    samples: TakenPace,
    records: TakenPace,
}

/// What one worker has taken of one application.
#[derive(Debug, Default)]
pub struct OwnPaces {
    slow: TakenPace,
    defaults: TakenPace,
}

impl AllPaces {
    /// Whether one more sample is taken in this second. Quick: mostly it is not.
    #[must_use]
    pub fn has_room_for_sample(&self, limits: PaceLimits, second: u64) -> bool {
        self.samples.has_room(limits.samples, second)
    }

    /// Whether one of this kind is taken, and counts it if so.
    pub fn takes(&self, kind: KeptAs, own: &OwnPaces, (limits, second): (PaceLimits, u64)) -> bool {
        let own = match kind {
            KeptAs::Sample => return self.samples.takes(limits.samples, second),
            KeptAs::Slow => &own.slow,
            KeptAs::Default => &own.defaults,
        };
        own.takes(OF_ITS_OWN, second) || self.records.takes(limits.records, second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PaceLimits = PaceLimits { samples: 3, records: 5 };

    #[test]
    fn so_many_are_taken_in_a_second() {
        let (all, own) = (AllPaces::default(), OwnPaces::default());
        let taken =
            |kind, second| (0..100).filter(|_| all.takes(kind, &own, (LIMITS, second))).count();
        assert!(all.has_room_for_sample(LIMITS, 0));
        assert_eq!(taken(KeptAs::Sample, 0), 3);
        assert!(!all.has_room_for_sample(LIMITS, 0) && all.has_room_for_sample(LIMITS, 1));
        assert_eq!((taken(KeptAs::Default, 0), taken(KeptAs::Slow, 0)), (4 + 5, 4));
        assert_eq!((taken(KeptAs::Slow, 7), taken(KeptAs::Sample, 7)), (4 + 5, 3));
        let none = PaceLimits { samples: 0, records: 0 };
        assert!(!all.has_room_for_sample(none, 8));
        assert!(!all.takes(KeptAs::Sample, &own, (none, 8)));
    }

    proptest! {
        /// Whatever comes before them, the first ones of each kind and application are taken, and
        /// in sum there are not many more than the limit says.
        #[test]
        fn nobody_uses_up_what_others_may_keep(
            asked in proptest::collection::vec((0_usize..4, any::<bool>()), 0..200),
        ) {
            let (all, own) = (AllPaces::default(), <[OwnPaces; 4]>::default());
            let (mut of_each, mut sum) = ([[0_u32; 2]; 4], 0_u32);
            for (app, slow) in asked {
                let kind = if slow { KeptAs::Slow } else { KeptAs::Default };
                let taken = all.takes(kind, &own[app], (LIMITS, 9));
                let before = &mut of_each[app][usize::from(slow)];
                prop_assert!(taken || *before >= OF_ITS_OWN);
                *before += u32::from(taken);
                sum += u32::from(taken);
            }
            prop_assert!(sum <= LIMITS.records + 4 * 2 * OF_ITS_OWN);
        }
    }
}
