//! The tests behind the guards. Each is a bet against the guard's promise: whoever bets starts with
//! 1, and as long as the promise is kept, will have a multiple of it ever, however often anybody
//! looks, with a probability of at most one over that multiple (Ville's inequality). So a guard is
//! broken when the bet has won enough, and may be looked at after every query.
//!
//! What is bet is spread over several sizes of the fault, since nobody knows it beforehand; the sum
//! of bets is a bet. Sources: Robbins, "Statistical methods related to the law of the iterated
//! logarithm" (1970), for mixtures; Waudby-Smith and Ramdas, "Estimating means of bounded random
//! variables by betting" (2024), for bounded ones; Ville (1939).

/// The part of rollouts whose versions are as good as promised that may be rolled back all the
/// same, shared evenly by the guards.
pub const ERROR_BUDGET: f64 = 0.02;

/// By how much the odds of something bad may be above those that are promised.
const TIMES: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 25.0];

/// Parts of what a bettor has that are staked on one difference of losses.
pub const STAKES: [f64; 8] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9];

/// The logarithm of what a bet must have won to break one of `guards` guards.
#[must_use]
pub fn limit(guards: usize) -> f64 {
    (guards.max(1) as f64 / ERROR_BUDGET).ln()
}

/// The logarithm of what a bet has won against "at most `bound` of them are bad", where `bad` of
/// `seen` were. A request with several queries is one, and bad by a part: that part, from 0 to 1,
/// wins no more than the mean of both outcomes would.
#[must_use]
pub fn against_part(bound: f64, seen: f64, bad: f64) -> f64 {
    let promised = bound / (1.0 - bound);
    let won = TIMES.map(|times| {
        let odds = promised * times;
        let part = odds / (1.0 + odds);
        bad * (part / bound).ln() + (seen - bad) * ((1.0 - part) / (1.0 - bound)).ln()
    });
    mean_of_logs(&won)
}

/// What each stake wins by one difference of losses, -1 to 1, as logarithms.
#[must_use]
pub fn won_by(difference: f64) -> [f64; STAKES.len()] {
    STAKES.map(|stake| (stake * difference.clamp(-1.0, 1.0)).ln_1p())
}

/// The logarithm of the mean of numbers that are given by their logarithms.
#[must_use]
pub fn mean_of_logs(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return 0.0;
    }
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    most + (sum / logs.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;
    use crate::weights::rng;

    /// In how many of 1,000 sequences of 3,000 the bet ever breaks a guard.
    fn broken(mut won: impl FnMut(&mut rand::rngs::SmallRng) -> Vec<f64>) -> usize {
        let bets =
            (0..1_000).filter(|seed| won(&mut rng(*seed)).into_iter().any(|log| log >= limit(1)));
        bets.count()
    }

    #[test]
    fn what_keeps_its_promise_is_hardly_ever_blamed() {
        // At the bound itself: the hardest case.
        for bound in [0.01, 0.05, 0.5] {
            let broken = broken(|rng| {
                let mut bad = 0.0;
                let mut look = |seen: usize| {
                    bad += f64::from(u8::from(rng.random::<f64>() < bound));
                    against_part(bound, seen as f64, bad)
                };
                (1..=3_000).map(&mut look).collect()
            });
            // 20 are allowed for in 1,000; five standard deviations more would be 42.
            assert!(broken <= 42, "{bound}: {broken}");
        }
    }

    #[test]
    fn equal_losses_are_hardly_ever_blamed() {
        let broken = broken(|rng| {
            let mut logs = [0.0; STAKES.len()];
            let mut look = |_| {
                let mut error = || f64::from(u8::from(rng.random::<f64>() < 0.2));
                for (log, won) in logs.iter_mut().zip(won_by(error() - error())) {
                    *log += won;
                }
                mean_of_logs(&logs)
            };
            (1..=3_000).map(&mut look).collect()
        });
        assert!(broken <= 42, "{broken}");
    }

    #[test]
    fn a_fault_is_found_the_sooner_the_greater_it_is() {
        let mut last = f64::INFINITY;
        for (part, most) in [(0.02, 3_000.0), (0.03, 1_000.0), (0.1, 150.0), (1.0, 5.0)] {
            let needed = (1..10_000)
                .map(f64::from)
                .find(|seen| against_part(0.01, *seen, part * seen) >= limit(3));
            let needed = needed.unwrap();
            assert!(needed < last && needed <= most, "{part}: {needed}");
            last = needed;
        }
    }
}
