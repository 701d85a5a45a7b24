//! A cheap model first; a dearer one if it is not sure enough and time is left.

use std::time::Duration;

use clipper_domain::ModelName;

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts, missing};
use crate::policy::{Answered, Combination, Member, Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;
use crate::value::OutputKind;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "cascade",
    summary: "Asks the cheapest model first, and the next one only if the answer is not sure \
              enough and time is left. For vectors of probabilities.",
    parameters: &[
        ("order", "the models, the cheapest first; required"),
        ("enough", "the confidence from which an answer is taken, 0 to 1; default 0.8"),
        (
            "next_needs_ms",
            "no further model is asked with less time left than this, milliseconds; default 0",
        ),
    ],
    build,
};

#[derive(Debug)]
struct Cascade {
    arms: Vec<usize>,
    enough: f64,
    next_needs: Duration,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output != OutputKind::Vector {
        let why = "`cascade` needs outputs that say how sure they are: set output to vector";
        return Err(contradicts("output", why.to_owned()));
    }
    let order: Option<Vec<ModelName>> = parameters.models("order")?;
    let order = order.ok_or_else(|| missing("order", "the models, the cheapest first"))?;
    let arms = order.iter().filter_map(|model| binding.arm(model)).collect();
    let enough = parameters.number("enough", 0.0, 1.0)?.unwrap_or(0.8);
    let next_needs = parameters.whole("next_needs_ms", 0, 3_600_000)?.unwrap_or(0);
    Ok(Box::new(Cascade { arms, enough, next_needs: Duration::from_millis(next_needs) }))
}

impl Cascade {
    /// The surest answer so far.
    fn surest(answered: &Answered<'_>) -> Option<(usize, f64)> {
        let sure =
            |(member, answer): (usize, &Member)| Some((member, answer.value()?.own_confidence()?));
        let answers = answered.members.iter().enumerate().filter_map(sure);
        answers.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl SelectionPolicy for Cascade {
    fn select(&self, _: &Standing, _: &SelectionQuery) -> Picks {
        self.arms.first().copied().map(Pick::certain).into_iter().collect()
    }

    fn combine(&self, _: &Standing, answered: &Answered<'_>) -> Combination {
        let surest = Self::surest(answered);
        let take = |(member, sure)| Combination::Take { member, confidence: Some(sure) };
        if let Some((member, sure)) = surest.filter(|(_, sure)| *sure >= self.enough) {
            return take((member, sure));
        }
        if answered.may_wait() {
            return Combination::Wait;
        }
        let next = self.arms.get(answered.picks.len());
        match next {
            Some(arm) if answered.time_left > self.next_needs => {
                Combination::Ask(Pick::certain(*arm))
            }
            _ => surest.map_or(Combination::Nothing, take),
        }
    }

    fn asks_one(&self) -> bool {
        false
    }

    fn has_confidence(&self) -> bool {
        true
    }
}
