//! The model that was least wrong so far, and now and then another.
//!
//! Sutton and Barto, "Reinforcement Learning" (2018), section 2.2. With a constant `epsilon` what
//! exploring costs grows with every query.
//!
//! A plain mean is unfair to a model that is asked most when all models err most: others, which
//! were asked in better times, look better than it and may do so for ever. So a model gives way to
//! another one of which the fair means of both say, beyond chance, that it is better. The fair mean
//! weighs each loss by 1 over the probability with which the model was asked (Hájek 1971;
//! Hesterberg 1995, "Weighted average importance sampling"): all models' are over the same time.

use rand::Rng;
use smallvec::smallvec;

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::{ArmSums, Standing};
use crate::weights::{draw_evenly, rng};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "epsilon_greedy",
    summary: "Asks the model that was least wrong so far, and any model now and then. Easy to \
              explain; what exploring costs never ends.",
    parameters: &[("epsilon", "the part of queries that go to any model; default 0.1")],
    build,
};

#[derive(Debug)]
struct EpsilonGreedy {
    epsilon: f64,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    _: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let epsilon = parameters.number("epsilon", 0.0, 1.0)?.unwrap_or(0.1);
    Ok(Box::new(EpsilonGreedy { epsilon }))
}

/// Standard errors that fair means may differ by chance.
const CHANCE: f64 = 3.0;

/// The models with the least mean loss, as a yes or no for each; one that was never judged counts
/// as never wrong.
fn best(standing: &Standing) -> impl Iterator<Item = bool> + Clone {
    let means = standing.arms.iter().map(|arm| arm.mean().unwrap_or(0.0));
    let least = means.clone().fold(f64::INFINITY, f64::min);
    means.map(move |mean| mean <= least)
}

/// A model's mean loss had it always been asked, and the variance of that.
#[derive(Debug, Clone, Copy)]
struct FairMean {
    mean: f64,
    variance: f64,
}

impl EpsilonGreedy {
    fn fair_mean(&self, sums: &ArmSums, models: usize) -> Option<FairMean> {
        // As many as there are draws of any model.
        let draws = sums.weight() * self.epsilon / models as f64;
        if draws <= 0.0 {
            return None;
        }
        let mean = sums.estimate() / sums.weight();
        Some(FairMean { mean, variance: (mean * (1.0 - mean)).max(0.01) / draws })
    }

    /// The model to ask in place of `usual`: that with the least fair mean, if that is less than
    /// its own beyond chance.
    fn fairly(&self, standing: &Standing, usual: usize) -> usize {
        let arms = &standing.arms;
        let fair = |arm: usize| self.fair_mean(&arms[arm], arms.len());
        let known = (0..arms.len()).filter_map(|arm| Some((arm, fair(arm)?)));
        let least = known.min_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
        match (least, fair(usual)) {
            (Some((arm, least)), Some(own))
                if own.mean - least.mean > CHANCE * (own.variance + least.variance).sqrt() =>
            {
                arm
            }
            _ => usual,
        }
    }
}

impl SelectionPolicy for EpsilonGreedy {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let models = standing.arms.len();
        let best = (0..models).zip(best(standing)).filter(|(_, is_best)| *is_best);
        let asked: Picks = best
            .map(|(arm, _)| Pick { arm: self.fairly(standing, arm), probability: 0.0 })
            .collect();
        let mut rng = rng(query.seed);
        let explores = rng.random::<f64>() < self.epsilon;
        let arm = if explores {
            draw_evenly(&mut rng, models)
        } else {
            // Any of equal ones: at the start, feedback that is slow does not keep all queries on
            // the first.
            draw_evenly(&mut rng, asked.len()).map(|n| asked[n].arm)
        };
        let Some(arm) = arm else { return Picks::new() };
        let usual = asked.iter().filter(|pick| pick.arm == arm).count() as f64;
        let usually = (1.0 - self.epsilon) * usual / asked.len() as f64;
        smallvec![Pick { arm, probability: usually + self.epsilon / models as f64 }]
    }

    fn observe(&self, pick: &Pick, loss: f64) -> ArmSums {
        ArmSums::weighed(loss, pick.probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: EpsilonGreedy = EpsilonGreedy { epsilon: 0.1 };

    /// Shares of models that are asked, and their probabilities where they are.
    fn asked(arms: Vec<ArmSums>) -> Vec<(f64, f64)> {
        let mut asked = vec![(0.0, 0.0); arms.len()];
        let standing = Standing { rounds: 1_000, arms, ..Standing::default() };
        for seed in 0..4_000 {
            for pick in POLICY.select(&standing, &SelectionQuery { seed, uid: 0, key: None }) {
                asked[pick.arm].0 += 1.0 / 4_000.0;
                asked[pick.arm].1 = pick.probability;
            }
        }
        asked
    }

    #[test]
    fn equal_models_are_asked_alike_and_probabilities_are_shares() {
        let never = ArmSums::of(0.0, 1.0);
        for (share, probability) in asked(vec![never, never, ArmSums::of(1.0, 1.0)]) {
            assert!((share - probability).abs() < 0.03, "{share} {probability}");
        }
    }

    #[test]
    fn a_model_that_was_asked_in_bad_times_is_not_blamed_for_them() {
        // Half of the time all err: the first is asked then, the second always.
        let sums = |judged: u32, loss: u32, fair_percent: i64| ArmSums {
            judged: u64::from(judged),
            loss_millionths: i64::from(loss) * 1_000_000,
            estimate_millionths: fair_percent * 1_000_000_000,
            weight_millionths: 100_000_000_000,
        };
        let lucky = sums(10_000, 4_000, 60);
        assert!(asked(vec![sums(60_000, 36_000, 50), lucky])[0].0 > 0.9);
        // By chance alone.
        assert!(asked(vec![sums(60_000, 36_000, 59), lucky])[0].0 < 0.1);
    }
}
