//! `UCB1`: the model that may be the best, given what is known of it.
//!
//! Auer, Cesa-Bianchi, Fischer, "Finite-time analysis of the multiarmed bandit problem" (2002):
//! the least `mean - alpha sqrt(2 ln t / n)`. For independent losses and `alpha` 1 their theorem 1
//! bounds the expected loss above the best model's by `8 sum(ln t / d_i) + (1 + pi^2/3) sum(d_i)`,
//! `d_i` being how much worse a model is.

use smallvec::smallvec;

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::weights::{draw_evenly, rng};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "ucb1",
    summary: "Asks the model that may be the best given what is known of it. For models whose \
              errors come by chance, and feedback that comes soon.",
    parameters: &[("alpha", "how much doubt counts in a model's favour, 0 to 10; default 1")],
    build,
};

#[derive(Debug)]
struct Ucb1 {
    alpha: f64,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    _: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let alpha = parameters.number("alpha", 0.0, 10.0)?.unwrap_or(1.0);
    Ok(Box::new(Ucb1 { alpha }))
}

impl SelectionPolicy for Ucb1 {
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        let arms = &standing.arms;
        let unknown: Vec<usize> = (0..arms.len()).filter(|arm| arms[*arm].judged == 0).collect();
        // Any of them, so that feedback that is slow does not keep all queries on the first.
        if let Some(index) = draw_evenly(&mut rng(query.seed), unknown.len()) {
            return smallvec![Pick::certain(unknown[index])];
        }
        let doubt = 2.0 * (standing.rounds.max(1) as f64).ln();
        let bound = |arm: usize| {
            let sums = &arms[arm];
            sums.mean().unwrap_or(0.0) - self.alpha * (doubt / sums.judged.max(1) as f64).sqrt()
        };
        let best = (0..arms.len()).min_by(|a, b| bound(*a).total_cmp(&bound(*b)));
        best.map(Pick::certain).into_iter().collect()
    }
}
