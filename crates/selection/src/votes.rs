//! Combining the answers of several models.

use super::policy::{Answered, Combination, Member};
use super::value::ModelValue;

/// A member's output and weight.
#[derive(Debug, Clone, Copy)]
pub struct Vote<'a> {
    /// Which of the picks.
    pub member: usize,
    pub value: &'a ModelValue,
    pub weight: f64,
}

/// The votes that are in, and the weight of all that were asked.
#[must_use]
pub fn votes<'a>(answered: &Answered<'a>, weights: &[f64]) -> (Vec<Vote<'a>>, f64) {
    let weight_of = |arm: usize| weights.get(arm).copied().unwrap_or(0.0);
    let all = answered.picks.iter().map(|pick| weight_of(pick.arm)).sum();
    let members = answered.picks.iter().zip(answered.members).enumerate();
    let votes = members.filter_map(|(member, (pick, answer))| match answer {
        Member::Value(value) => Some(Vote { member, value, weight: weight_of(pick.arm) }),
        Member::Waiting | Member::Failed => None,
    });
    (votes.collect(), all)
}

/// A share of the whole, as a confidence.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// The label that most weight is for; of equals that of the first member. The confidence is its
/// part of the weight of all that were asked, so those that have not answered count against it.
#[must_use]
pub fn majority(votes: &[Vote<'_>], all: f64) -> Combination {
    let weight_for = |label: &ModelValue| -> f64 {
        votes.iter().filter(|vote| vote.value == label).map(|vote| vote.weight).sum()
    };
    let mut winner: Option<(&Vote<'_>, f64)> = None;
    for vote in votes {
        let weight = weight_for(vote.value);
        if winner.is_none_or(|(_, most)| weight > most) {
            winner = Some((vote, weight));
        }
    }
    match winner {
        Some((vote, weight)) => {
            Combination::Take { member: vote.member, confidence: Some(share(weight, all)) }
        }
        None => Combination::Nothing,
    }
}

/// How the elements of outputs are put together: values with their weights, at least one, to one.
type Pool = fn(&mut [(f64, f64)]) -> f64;

#[must_use]
pub fn mean(values: &mut [(f64, f64)]) -> f64 {
    let weight: f64 = values.iter().map(|(_, weight)| weight).sum();
    if weight > 0.0 {
        values.iter().map(|(value, weight)| value * weight).sum::<f64>() / weight
    } else {
        values.iter().map(|(value, _)| value).sum::<f64>() / values.len() as f64
    }
}

/// The weighted median; between two middles their mean.
#[must_use]
pub fn median(values: &mut [(f64, f64)]) -> f64 {
    if values.iter().all(|(_, weight)| *weight <= 0.0) {
        for (_, weight) in values.iter_mut() {
            *weight = 1.0;
        }
    }
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for (index, (value, weight)) in values.iter().enumerate() {
        below += weight;
        if (below - half).abs() < half * 1e-12
            && let Some((next, _)) = values[index + 1..].iter().find(|(_, weight)| *weight > 0.0)
        {
            return f64::midpoint(*value, *next);
        }
        if below > half {
            return *value;
        }
    }
    values.last().map_or(f64::NAN, |(value, _)| *value)
}

/// Labels by majority, other outputs put together number by number. Vectors of another length than
/// the first are left out. The confidence of numbers is the part of the weight that has answered;
/// of vectors, that times the greatest probability of what came out.
#[must_use]
pub fn pooled(votes: &[Vote<'_>], all: f64, pool: Pool) -> Combination {
    let Some(first) = votes.first() else { return Combination::Nothing };
    match first.value {
        ModelValue::Label(_) => majority(votes, all),
        ModelValue::Number(_) => {
            let mut values = Vec::with_capacity(votes.len());
            for vote in votes {
                if let ModelValue::Number(number) = vote.value {
                    values.push((*number, vote.weight));
                }
            }
            let part: f64 = values.iter().map(|(_, weight)| weight).sum();
            let value = ModelValue::Number(pool(&mut values));
            Combination::Made { value, confidence: Some(share(part, all)) }
        }
        ModelValue::Vector(shape) => {
            let is_as_long = |value: &ModelValue| match value {
                ModelValue::Vector(numbers) => numbers.len() == shape.len(),
                _ => false,
            };
            let fits = |vote: &&Vote<'_>| is_as_long(vote.value);
            let part: f64 = votes.iter().filter(fits).map(|vote| vote.weight).sum();
            let mut numbers = Vec::with_capacity(shape.len());
            for index in 0..shape.len() {
                let element = |vote: &Vote<'_>| match vote.value {
                    ModelValue::Vector(vector) => Some((*vector.get(index)?, vote.weight)),
                    _ => None,
                };
                let mut values: Vec<_> = votes.iter().filter(fits).filter_map(element).collect();
                numbers.push(pool(&mut values));
            }
            let value = ModelValue::Vector(numbers);
            let sure = value.own_confidence().unwrap_or(0.0);
            Combination::Made { value, confidence: Some(share(part, all) * sure) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weighted_median_is_where_half_the_weight_is() {
        let of = |values: &[(f64, f64)]| median(&mut values.to_vec());
        assert!((of(&[(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]) - 2.0).abs() < 1e-12);
        assert!((of(&[(1.0, 1.0), (2.0, 1.0)]) - 1.5).abs() < 1e-12);
        assert!((of(&[(1.0, 1.0), (2.0, 5.0), (9.0, 1.0)]) - 2.0).abs() < 1e-12);
        assert!((of(&[(1.0, 0.0), (2.0, 0.0)]) - 1.5).abs() < 1e-12);
        assert!((of(&[(7.0, 1.0)]) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn who_has_not_answered_counts_against_the_confidence() {
        let labels = ["1", "2", "2"].map(|label| ModelValue::Label(label.into()));
        let vote = |member: usize| Vote { member, value: &labels[member], weight: 0.25 };
        let votes = [vote(0), vote(1), vote(2)];
        assert_eq!(majority(&votes, 1.0), Combination::Take { member: 1, confidence: Some(0.5) });
        assert_eq!(majority(&[], 1.0), Combination::Nothing);
    }

    #[test]
    fn vectors_of_another_length_are_left_out() {
        let vectors = [vec![0.5, 0.5], vec![1.0], vec![0.1, 0.9]].map(ModelValue::Vector);
        let vote = |member: usize| Vote { member, value: &vectors[member], weight: 1.0 };
        let combined = pooled(&[vote(0), vote(1), vote(2)], 3.0, mean);
        let Combination::Made { value: ModelValue::Vector(mean), confidence } = combined else {
            panic!("{combined:?}")
        };
        assert!((mean[0] - 0.3).abs() < 1e-12 && (mean[1] - 0.7).abs() < 1e-12);
        assert!((confidence.unwrap() - 0.7 * 2.0 / 3.0).abs() < 1e-12);
    }
}
