//! What a compaction forgets. Pure.
//!
//! A checkpoint is the whole state after an event. The state after any event that is kept has to
//! be told, so events go only up to a checkpoint, and that one stays.

/// Checkpoints that stay whatever is forgotten: if the newest is damaged, a start builds on the one
/// before.
pub const NEWEST_KEPT: usize = 2;

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// All events up to this one; 0: none.
    pub events_up_to: u64,
    /// These checkpoints.
    pub checkpoints: Vec<u64>,
}

/// What goes of `checkpoints` (ascending) and the events, if those up to `wanted` are not to be
/// kept and at most `checkpoints_max` checkpoints are.
#[must_use]
pub fn forgotten(checkpoints: &[u64], wanted: u64, checkpoints_max: usize) -> Forgotten {
    let last_to_go = checkpoints.len().saturating_sub(NEWEST_KEPT);
    let candidates = checkpoints.get(..=last_to_go).unwrap_or_default();
    let enough = checkpoints.len() >= NEWEST_KEPT;
    let base = candidates.iter().filter(|seq| enough && **seq <= wanted).max().copied();
    let events_up_to = base.unwrap_or(0);
    let (mut gone, mut kept): (Vec<u64>, Vec<u64>) =
        checkpoints.iter().partition(|seq| **seq < events_up_to);
    while kept.len() > checkpoints_max.max(NEWEST_KEPT + 1) {
        // The first holds what is before the events, the last two a start.
        let inner = 1..kept.len() - NEWEST_KEPT;
        let gap =
            |at: &usize| kept.get(at + 1).zip(kept.get(at - 1)).map(|(next, before)| next - before);
        let Some(closest) = inner.min_by_key(gap) else { break };
        gone.push(kept.remove(closest));
    }
    gone.sort_unstable();
    Forgotten { events_up_to, checkpoints: gone }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_go_up_to_a_checkpoint_that_stays() {
        let all = [10, 20, 30, 40];
        let gone = |wanted| {
            let Forgotten { events_up_to, checkpoints } = forgotten(&all, wanted, 16);
            (events_up_to, checkpoints)
        };
        assert_eq!(gone(9), (0, vec![]));
        assert_eq!(gone(25), (20, vec![10]));
        assert_eq!(gone(90), (30, vec![10, 20]), "a start may need the last but one");
        assert_eq!(forgotten(&[10], 90, 16), Forgotten::default());
        assert_eq!(forgotten(&[], 90, 16), Forgotten::default());
    }

    #[test]
    fn of_too_many_checkpoints_those_between_near_ones_go() {
        let Forgotten { events_up_to, checkpoints } = forgotten(&[1, 50, 60, 100, 150, 200], 0, 4);
        assert_eq!((events_up_to, checkpoints), (0, vec![50, 60]));
    }

    proptest! {
        /// Whenever and however often it is compacted: the oldest state that is kept is the one
        /// before the oldest event, and what a start needs is there.
        #[test]
        fn the_state_before_the_oldest_event_is_always_kept(
            steps in prop::collection::vec((1..50_u64, 0..200_u64), 1..60),
            max in 1..8_usize,
        ) {
            let (mut kept, mut newest, mut oldest_event) = (Vec::new(), 0, 0);
            for (events, keep) in steps {
                newest += events;
                kept.push(newest);
                let wanted = newest.saturating_sub(keep);
                let Forgotten { events_up_to, checkpoints } = forgotten(&kept, wanted, max);
                prop_assert!(events_up_to <= wanted && events_up_to <= newest);
                oldest_event = oldest_event.max(events_up_to);
                kept.retain(|seq| !checkpoints.contains(seq));
                prop_assert!(kept.len() <= max.max(NEWEST_KEPT + 1));
                prop_assert!(oldest_event == 0 || kept[0] == oldest_event);
                prop_assert_eq!(kept.last(), Some(&newest));
            }
        }
    }
}
