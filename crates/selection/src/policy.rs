//! What a policy is.

use std::fmt;
use std::time::Duration;

use smallvec::SmallVec;

use super::state::{ArmSums, Standing};
use super::value::ModelValue;
use super::weights::spread;

/// What a policy may know of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectionQuery {
    /// The query's randomness: the same number, the same choice.
    pub seed: u64,
    /// The user it comes from; 0 is everybody.
    pub uid: i64,
    /// What stands for the key in it that the policy goes by ([`super::sticky::key`]).
    pub key: Option<u64>,
}

/// A model that is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Which, as an index into the application's models by name.
    pub arm: usize,
    /// With which probability it was to be asked.
    pub probability: f64,
}

impl Pick {
    /// One that is asked whatever happens.
    #[must_use]
    pub fn certain(arm: usize) -> Self {
        Self { arm, probability: 1.0 }
    }
}

/// The models that are asked for a query.
pub type Picks = SmallVec<[Pick; 1]>;

/// What became of them, in the same order.
pub type Members = SmallVec<[Member; 1]>;

/// What became of a model that was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Member {
    /// It has not answered yet.
    Waiting,
    Value(ModelValue),
    /// It will not answer, or not with an output of the declared kind.
    Failed,
}

impl Member {
    /// Its output, if it has one.
    #[must_use]
    pub fn value(&self) -> Option<&ModelValue> {
        match self {
            Self::Value(value) => Some(value),
            Self::Waiting | Self::Failed => None,
        }
    }
}

/// What a policy makes of the answers so far.
#[derive(Debug, Clone, PartialEq)]
pub enum Combination {
    /// Nothing yet: more answers may come in time.
    Wait,
    /// Ask this model too.
    Ask(Pick),
    /// The output of this member, as it is.
    Take {
        /// Which of the picks.
        member: usize,
        /// 0 to 1, if the policy can tell.
        confidence: Option<f64>,
    },
    /// An output made from several.
    Made {
        value: ModelValue,
        /// 0 to 1, if the policy can tell.
        confidence: Option<f64>,
    },
    Nothing,
}

/// The answers to one query so far.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The models that were asked.
    pub picks: &'a [Pick],
    /// What became of each.
    pub members: &'a [Member],
    /// Until the query's deadline; zero: time is up.
    pub time_left: Duration,
}

impl Answered<'_> {
    /// Whether an answer may still come in time.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        !self.time_left.is_zero() && self.members.contains(&Member::Waiting)
    }
}

/// Chooses among an application's models. All that it has learned is in the [`Standing`].
pub trait SelectionPolicy: fmt::Debug + Send + Sync {
    /// The models to ask, each once; empty only if there is none.
    fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks;

    /// The [`Standing::weights`] that it chooses by: the same for all queries until there is
    /// feedback. None where it needs none.
    fn prepared(&self, standing: &Standing) -> Vec<f64> {
        let _ = standing;
        Vec::new()
    }

    /// What to make of the answers so far. Never [`Combination::Wait`] when time is up.
    fn combine(&self, standing: &Standing, answered: &Answered<'_>) -> Combination {
        let _ = standing;
        first(answered)
    }

    /// What one judged output of a pick adds to the state.
    fn observe(&self, pick: &Pick, loss: f64) -> ArmSums {
        ArmSums::of(loss, pick.probability)
    }

    /// How much each model counts now: the share of queries that it is asked, or of the vote. They
    /// add up to 1.
    fn weights(&self, standing: &Standing) -> Vec<f64> {
        shares(standing, |query| self.select(standing, query))
    }

    /// Whether it asks one model of a query, and takes its output as it is.
    fn asks_one(&self) -> bool {
        true
    }

    /// Whether it asks all models of every query, present or not; its confidence says who is
    /// missing.
    fn asks_all(&self) -> bool {
        false
    }

    /// Whether it learns only from answers whose probability it knows.
    fn needs_probability(&self) -> bool {
        false
    }

    /// Whether answers to outputs without a confidence of their own have one.
    fn has_confidence(&self) -> bool {
        false
    }
}

/// Queries that [`shares`] tries.
const TRIED: u64 = 128;

/// How often each model is asked in some queries of many users.
fn shares(standing: &Standing, select: impl Fn(&SelectionQuery) -> Picks) -> Vec<f64> {
    let mut asked = vec![0.0; standing.arms.len()];
    for seed in 0..TRIED {
        for pick in
            select(&SelectionQuery { seed, uid: seed.cast_signed(), key: Some(spread(seed)) })
        {
            if let Some(asked) = asked.get_mut(pick.arm) {
                *asked += 1.0;
            }
        }
    }
    let all: f64 = asked.iter().sum();
    asked.iter().map(|asked| if all > 0.0 { asked / all } else { 0.0 }).collect()
}

/// The combination of a policy that asks one model.
#[must_use]
pub fn first(answered: &Answered<'_>) -> Combination {
    match answered.members.first() {
        Some(Member::Value(value)) => {
            Combination::Take { member: 0, confidence: value.own_confidence() }
        }
        Some(Member::Waiting) if answered.may_wait() => Combination::Wait,
        _ => Combination::Nothing,
    }
}
