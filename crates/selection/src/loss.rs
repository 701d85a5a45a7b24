//! How wrong an output was, from 0 (right) to 1.

use super::value::{ModelValue, OutputKind};

/// What an application counts as wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// 1 unless the class is the true one.
    ZeroOne,
    /// The distance from the truth over `loss_scale`, at most 1. For a vector: how much of the
    /// probability the true class lacks.
    Absolute,
    /// The square of [`Self::Absolute`].
    Squared,
    /// Feedback says it; a label teaches nothing.
    Given,
}

impl LossKind {
    /// Its names, as users write them.
    pub const NAMES: &'static [&'static str] = &["zero_one", "absolute", "squared", "given"];

    pub(crate) const ALL: [Self; 4] = [Self::ZeroOne, Self::Absolute, Self::Squared, Self::Given];

    /// What an application has that does not say.
    pub(crate) fn usual(kind: OutputKind) -> Self {
        match kind {
            OutputKind::Label | OutputKind::Vector => Self::ZeroOne,
            OutputKind::Number => Self::Absolute,
        }
    }

    /// Whether outputs of this kind have such a loss.
    pub(crate) fn fits(self, kind: OutputKind) -> bool {
        match self {
            Self::ZeroOne => kind != OutputKind::Number,
            Self::Absolute | Self::Squared => kind != OutputKind::Label,
            Self::Given => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Truth {
    /// The true output: a label, a number, or for vectors the label of the true class.
    Output(ModelValue),
    /// The loss of the answer itself, 0 to 1.
    Loss(f64),
}

impl Truth {
    /// The true output of an application whose models' outputs are of `kind`, from its JSON value.
    #[must_use]
    pub fn read(kind: OutputKind, value: &serde_json::Value) -> Option<Self> {
        let of_truth = match kind {
            OutputKind::Number => OutputKind::Number,
            OutputKind::Label | OutputKind::Vector => OutputKind::Label,
        };
        ModelValue::read(of_truth, value).map(Self::Output)
    }
}

/// A loss with its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    pub kind: LossKind,
    /// The distance that counts as entirely wrong.
    pub scale: f64,
}

impl Loss {
    /// The loss of a model's output. `None`: the truth does not say.
    #[must_use]
    pub fn of(&self, output: &ModelValue, truth: &ModelValue) -> Option<f64> {
        let distance = match self.kind {
            LossKind::Given => return None,
            LossKind::ZeroOne => {
                let (said, truth) = (output.class()?, truth.class()?);
                return Some(if said == truth { 0.0 } else { 1.0 });
            }
            LossKind::Absolute | LossKind::Squared => match (output, truth) {
                (ModelValue::Number(said), ModelValue::Number(truth)) => (said - truth).abs(),
                (ModelValue::Vector(probabilities), ModelValue::Label(class)) => {
                    let class: usize = class.parse().ok()?;
                    1.0 - probabilities.get(class).copied().unwrap_or(0.0)
                }
                _ => return None,
            },
        };
        let distance = (distance / self.scale).clamp(0.0, 1.0);
        Some(if self.kind == LossKind::Squared { distance * distance } else { distance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_bounded_and_follow_their_kind() {
        let loss = |kind, scale, said: &ModelValue, truth: &ModelValue| {
            Loss { kind, scale }.of(said, truth)
        };
        let number = ModelValue::Number;
        let label = |text: &str| ModelValue::Label(text.into());
        let vector = ModelValue::Vector(vec![0.25, 0.75]);
        assert_eq!(loss(LossKind::Absolute, 4.0, &number(1.0), &number(3.0)), Some(0.5));
        assert_eq!(loss(LossKind::Squared, 4.0, &number(1.0), &number(3.0)), Some(0.25));
        assert_eq!(loss(LossKind::Absolute, 1.0, &number(1.0), &number(300.0)), Some(1.0));
        assert_eq!(loss(LossKind::ZeroOne, 1.0, &label("1"), &label("1")), Some(0.0));
        assert_eq!(loss(LossKind::ZeroOne, 1.0, &vector, &label("0")), Some(1.0));
        assert_eq!(loss(LossKind::Absolute, 1.0, &vector, &label("1")), Some(0.25));
        assert_eq!(loss(LossKind::Squared, 1.0, &vector, &label("0")), Some(0.5625));
        assert_eq!(loss(LossKind::Absolute, 1.0, &vector, &label("9")), Some(1.0));
        assert_eq!(loss(LossKind::Absolute, 1.0, &label("1"), &label("1")), None);
        assert_eq!(loss(LossKind::Given, 1.0, &label("1"), &label("1")), None);
    }
}
