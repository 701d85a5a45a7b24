//! What feedback left with an application, or one of its users: sums of what each feedback
//! contributed.
//!
//! Sums merge by adding, whatever the order: two servers that learn from different feedback add
//! what each has seen. They are whole numbers of millionths, because sums of floating-point numbers
//! depend on their order.
//!
//! With a window, sums are kept by epoch: an eighth of the window's feedback each. Epochs that are
//! too old are dropped, which gives the same whenever it is done.

use std::collections::BTreeMap;

use clipper_domain::ModelName;
use serde::{Deserialize, Serialize};

/// Epochs that a window is made of.
pub const EPOCHS_OF_WINDOW: u64 = 8;

/// What feedback said of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSums {
    /// Its outputs that feedback judged.
    #[serde(rename = "n")]
    pub judged: u64,
    /// Their losses, millionths.
    #[serde(rename = "loss")]
    pub loss_millionths: i64,
    /// Their losses, each over the probability with which the model was asked, millionths.
    #[serde(rename = "estimate")]
    pub estimate_millionths: i64,
    /// The sum of 1 over those probabilities, millionths; 0 under policies that do not need it.
    #[serde(rename = "weight", default, skip_serializing_if = "is_zero")]
    pub weight_millionths: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ArmSums {
    /// One judged output, of a model that was asked with this probability.
    #[must_use]
    pub fn of(loss: f64, probability: f64) -> Self {
        Self {
            judged: 1,
            loss_millionths: millionths(loss),
            estimate_millionths: millionths(loss / probability.max(1e-9)),
            weight_millionths: 0,
        }
    }

    /// As [`Self::of`], for a policy that compares what models did in the same time.
    #[must_use]
    pub fn weighed(loss: f64, probability: f64) -> Self {
        let weight_millionths = millionths(1.0 / probability.max(1e-9));
        Self { weight_millionths, ..Self::of(loss, probability) }
    }

    fn add(&mut self, other: &Self) {
        self.judged = self.judged.saturating_add(other.judged);
        self.loss_millionths = self.loss_millionths.saturating_add(other.loss_millionths);
        self.estimate_millionths =
            self.estimate_millionths.saturating_add(other.estimate_millionths);
        self.weight_millionths = self.weight_millionths.saturating_add(other.weight_millionths);
    }

    /// The sum of its losses.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss_millionths as f64 / 1e6
    }

    /// What the sum of its losses would be had it always been asked, without bias.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        self.estimate_millionths as f64 / 1e6
    }

    /// The sum of 1 over the probabilities with which it was asked.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight_millionths as f64 / 1e6
    }

    /// The mean of its losses; `None` before the first.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.loss() / self.judged as f64)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a float out of range becomes the nearest")]
fn millionths(loss: f64) -> i64 {
    (loss * 1e6).round() as i64
}

/// The sums of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSums {
    #[serde(rename = "n")]
    pub rounds: u64,
    pub arms: BTreeMap<ModelName, ArmSums>,
}

impl EpochSums {
    fn add(&mut self, other: &Self) {
        self.rounds = self.rounds.saturating_add(other.rounds);
        for (name, sums) in &other.arms {
            match self.arms.get_mut(name) {
                Some(own) => own.add(sums),
                None => drop(self.arms.insert(name.clone(), *sums)),
            }
        }
    }
}

/// What one feedback contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// How much feedback the policy remembers.
    pub window: Option<u64>,
    pub arms: BTreeMap<ModelName, ArmSums>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionState {
    /// By epoch; without a window all is epoch 0.
    pub epochs: BTreeMap<u64, EpochSums>,
}

impl SelectionState {
    /// The epoch that the next feedback belongs to.
    fn epoch(&self, window: Option<u64>) -> u64 {
        let Some(window) = window else { return 0 };
        let length = (window / EPOCHS_OF_WINDOW).max(1);
        match self.epochs.last_key_value() {
            None => 0,
            Some((last, sums)) => last + u64::from(sums.rounds >= length),
        }
    }

    /// One feedback, as a state of its own: to be added to this one, and to those that this one
    /// will be added to.
    #[must_use]
    pub fn next(&self, contribution: &Contribution) -> Self {
        let sums = EpochSums { rounds: 1, arms: contribution.arms.clone() };
        Self { epochs: BTreeMap::from([(self.epoch(contribution.window), sums)]) }
    }

    pub fn learn(&mut self, contribution: &Contribution) {
        let change = self.next(contribution);
        self.add(&change);
    }

    /// Adds what another has seen. Whoever adds what to whom first, the sum is the same.
    pub fn add(&mut self, other: &Self) {
        for (epoch, sums) in &other.epochs {
            self.epochs.entry(*epoch).or_default().add(sums);
        }
        while let (Some((first, _)), Some((last, _))) =
            (self.epochs.first_key_value(), self.epochs.last_key_value())
            && first + EPOCHS_OF_WINDOW <= *last
        {
            self.epochs.pop_first();
        }
    }

    /// Models that something is known of.
    pub fn arms(&self) -> impl Iterator<Item = &ModelName> {
        self.epochs.values().flat_map(|epoch| epoch.arms.keys())
    }

    /// Feedback that is in the sums.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.epochs.values().map(|epoch| epoch.rounds).fold(0, u64::saturating_add)
    }

    /// How these models stand.
    #[must_use]
    pub fn standing(&self, models: &[ModelName]) -> Standing {
        let sums = |model: &ModelName| {
            let mut all = ArmSums::default();
            for sums in self.epochs.values().filter_map(|epoch| epoch.arms.get(model)) {
                all.add(sums);
            }
            all
        };
        let arms = models.iter().map(sums).collect();
        Standing { rounds: self.rounds(), arms, weights: Vec::new() }
    }
}

/// How the models of an application stand, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Feedback that it comes from.
    pub rounds: u64,
    /// One for each model.
    pub arms: Vec<ArmSums>,
    /// What the policy chooses by, computed once for all queries.
    pub weights: Vec<f64>,
}
