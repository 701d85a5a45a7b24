//! Weights over models, and draws from them.

use clipper_domain::ModelName;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::parameters::{NameOrWeights, ParameterError, ParameterReader};
use super::state::{ArmSums, Standing};

/// The randomness of a query.
#[must_use]
pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// A number that looks random and is the same for an id everywhere: `SplitMix64`'s finaliser.
#[must_use]
pub fn spread(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An index drawn by probabilities that add up to 1; `None` of none.
pub fn draw(rng: &mut impl Rng, probabilities: &[f64]) -> Option<usize> {
    let mut at: f64 = rng.random();
    for (index, probability) in probabilities.iter().enumerate() {
        at -= probability;
        if at < 0.0 {
            return Some(index);
        }
    }
    // Rounding: the last that can be drawn at all.
    probabilities.iter().rposition(|p| *p > 0.0).or(probabilities.len().checked_sub(1))
}

/// An index below `below`, each as likely; `None` of none.
pub fn draw_evenly(rng: &mut impl Rng, below: usize) -> Option<usize> {
    (below > 0).then(|| rng.random_range(0..below))
}

/// Weights over their sum; equal ones if it is 0.
#[must_use]
pub fn normalised(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    let count = weights.len() as f64;
    for weight in &mut weights {
        *weight = if sum > 0.0 { *weight / sum } else { 1.0 / count };
    }
    weights
}

/// Probabilities proportional to `exp(-rate * loss)`.
#[must_use]
pub fn exponential(losses: impl Iterator<Item = f64> + Clone, rate: f64) -> Vec<f64> {
    // The least loss has weight 1, so that nothing overflows and the sum is at least 1.
    let least = losses.clone().fold(f64::INFINITY, f64::min);
    normalised(losses.map(|loss| (-rate * (loss - least)).exp()).collect())
}

/// The weights of models by the losses of all their outputs, as `exp4` has them. A model that
/// answered less often than others is counted as if it had gone on like that.
#[must_use]
pub fn learned(standing: &Standing, rate: Option<f64>) -> Vec<f64> {
    let rounds = standing.rounds as f64;
    let models = standing.arms.len().max(2) as f64;
    // Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games" (2006), theorem 2.3.
    let rate = rate.unwrap_or_else(|| (8.0 * models.ln() / rounds.max(1.0)).sqrt());
    exponential(standing.arms.iter().map(|arm| arm.mean().unwrap_or(0.0) * rounds), rate)
}

/// Weights by how likely each model is to be right, `log((1 - p) / p)` of its rate of errors `p`.
/// The best that a vote of models can do which err by chance, each by itself (Nitzan and Paroush,
/// "Optimal decision rules in uncertain dichotomous choice situations", 1982). None for a model
/// that is wrong half of the time, or that nothing is known of; equal ones if that is all of them.
#[must_use]
pub fn log_odds(standing: &Standing) -> Vec<f64> {
    let weight = |arm: &ArmSums| {
        // As if each had been right once and wrong once before.
        let (wrong, all) = (arm.loss().max(0.0) + 1.0, arm.judged as f64 + 2.0);
        (((all - wrong) / wrong).max(1.0)).ln()
    };
    normalised(standing.arms.iter().map(weight).collect())
}

/// Where the weights of an ensemble's members come from.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightSource {
    Equal,
    /// By name; a model that is not named has none.
    Given(Vec<(ModelName, f64)>),
    /// From feedback, as [`log_odds`].
    Learned,
    /// From feedback, as [`learned`] at this rate.
    Exponential(Option<f64>),
}

impl WeightSource {
    pub(crate) const NAMES: [&'static str; 2] = ["equal", "learned"];

    pub(crate) fn read(parameters: &mut ParameterReader<'_>) -> Result<Self, ParameterError> {
        Ok(match parameters.name_or_weights("weights", &Self::NAMES)? {
            Some(NameOrWeights::Weights(weights)) => Self::Given(weights),
            Some(NameOrWeights::Name(1)) => Self::Learned,
            _ => Self::Equal,
        })
    }

    /// One for each of `models`; they add up to 1.
    #[must_use]
    pub fn of(&self, models: &[ModelName], standing: &Standing) -> Vec<f64> {
        match self {
            Self::Equal => normalised(vec![1.0; models.len()]),
            Self::Given(given) => normalised(by_name(given, models)),
            Self::Learned => log_odds(standing),
            Self::Exponential(rate) => learned(standing, *rate),
        }
    }
}

/// The weight of each of `models`; 0 of one that is not named.
#[must_use]
pub fn by_name(given: &[(ModelName, f64)], models: &[ModelName]) -> Vec<f64> {
    let weight = |model: &ModelName| {
        given.iter().find(|(name, _)| name == model).map_or(0.0, |(_, weight)| *weight)
    };
    models.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_their_probabilities() {
        let mut counts = [0_u32; 3];
        for seed in 0..10_000 {
            counts[draw(&mut rng(seed), &[0.2, 0.0, 0.8]).unwrap()] += 1;
        }
        assert!(counts[0].abs_diff(2_000) < 200 && counts[1] == 0, "{counts:?}");
        assert_eq!(draw(&mut rng(1), &[]), None);
        assert_eq!(draw(&mut rng(1), &[0.0, 0.0]), Some(1));
    }

    #[test]
    fn who_is_wrong_half_of_the_time_has_no_vote() {
        let arm = |judged, wrong: i64| ArmSums {
            judged,
            loss_millionths: wrong * 1_000_000,
            estimate_millionths: 0,
            weight_millionths: 0,
        };
        let of = |arms: Vec<ArmSums>| log_odds(&Standing { arms, ..Standing::default() });
        let weights = of(vec![arm(98, 9), arm(98, 24), arm(98, 49), arm(98, 98), arm(0, 0)]);
        assert!((weights[0] / weights[1] - 2.0).abs() < 1e-9, "log 9 is twice log 3: {weights:?}");
        assert!(weights[2..].iter().all(|weight| *weight == 0.0), "{weights:?}");
        assert_eq!(of(vec![arm(0, 0), arm(98, 98)]), [0.5, 0.5]);
    }

    #[test]
    fn exponential_weights_neither_overflow_nor_vanish() {
        let weights = exponential([1e12, 1e12 + 1.0, 2e12].into_iter(), 1.0);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?}");
        assert!(weights[0] > weights[1] && weights[2] < 1e-9, "{weights:?}");
    }
}
