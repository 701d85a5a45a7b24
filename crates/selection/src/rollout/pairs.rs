//! Losses of both versions, compared in the order in which feedback tells of them: each difference
//! is between what came of the one and of the other since the last, so that a change that meets
//! both versions says nothing.

use super::odds::won_by;
use super::split::Side;
use super::sums::GuardSums;

#[derive(Debug, Clone, Copy, Default)]
struct Since {
    losses: u32,
    sum: f64,
}

/// Collects losses of 0 to 1.
#[derive(Debug, Default)]
pub struct LossPairs {
    old: Since,
    new: Since,
    sums: GuardSums,
}

impl LossPairs {
    pub fn add(&mut self, side: Side, loss: f64) {
        let loss = loss.clamp(0.0, 1.0);
        let since = if side == Side::New { &mut self.new } else { &mut self.old };
        since.losses = since.losses.saturating_add(1);
        since.sum += loss;
        self.sums.count(side, loss);
        if self.old.losses > 0 && self.new.losses > 0 {
            let mean = |since: Since| since.sum / f64::from(since.losses);
            self.sums.win(&won_by(mean(self.new) - mean(self.old)));
            (self.old, self.new) = (Since::default(), Since::default());
        }
    }

    #[must_use]
    pub fn sums(&self) -> &GuardSums {
        &self.sums
    }
}
