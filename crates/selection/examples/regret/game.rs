//! Losses of ten models over rounds, known before: every policy plays the same ones.

use clipper_selection::weights::spread;

pub const ARMS: usize = 10;
/// How much better the best one is.
pub const GAP: f64 = 0.1;

/// How losses come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Game {
    /// By chance, always the same: the best model errs in 40 % of rounds, the others in 50 %.
    Stochastic,
    /// In phases that grow: all models err seldom, then all err nearly always, so that averages
    /// deceive; the best one is better by the same gap in each (Zimmert and Seldin 2021,
    /// "stochastically constrained adversarial").
    Adversarial,
}

impl Game {
    pub const ALL: [Self; 2] = [Self::Stochastic, Self::Adversarial];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stochastic => "stochastic",
            Self::Adversarial => "adversarial",
        }
    }

    /// The probability that a model errs in a round.
    pub fn mean(self, round: u64, arm: usize) -> f64 {
        // Not the first: nobody may win by always taking that.
        let is_best = arm == 3;
        match self {
            Self::Stochastic if is_best => 0.5 - GAP,
            Self::Stochastic => 0.5,
            Self::Adversarial => {
                let low = if is_best { 0.0 } else { GAP };
                if phase(round).is_multiple_of(2) { low } else { 1.0 - GAP + low }
            }
        }
    }

    /// The loss of a model in a round: 0 or 1.
    pub fn loss(self, seed: u64, round: u64, arm: usize) -> f64 {
        let number = spread(spread(seed).wrapping_add(round * ARMS as u64 + arm as u64));
        let uniform = (number >> 11) as f64 / (1_u64 << 53) as f64;
        if uniform < self.mean(round, arm) { 1.0 } else { 0.0 }
    }
}

/// Phases of 100 rounds, 160, 256 and so on.
fn phase(round: u64) -> u64 {
    let (mut end, mut length, mut phase) = (100.0, 100.0, 0);
    while round as f64 >= end {
        length *= 1.6;
        end += length;
        phase += 1;
    }
    phase
}
