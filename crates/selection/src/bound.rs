//! A policy with its parameters, bound to the models of an application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clipper_domain::{DEFAULT_POLICY, ModelName, PolicySpec};

use super::given::{AnswerOf, GivenAnswer};
use super::kind::Binding;
use super::loss::{Loss, LossKind, Truth};
use super::parameters::{
    ParameterError, ParameterProblem, ParameterReader, contradicts, shortened,
};
use super::policy::{Answered, Combination, Member, Pick, Picks, SelectionPolicy, SelectionQuery};
use super::state::{ArmSums, Contribution, SelectionState, Standing};
use super::table;
use super::value::{ModelValue, OutputKind};

/// What an answer is, after `min_confidence`.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    /// As the policy says.
    Policy(Combination),
    /// An answer that is too doubtful; its confidence.
    Doubtful(f64),
}

/// The policy of one application.
#[derive(Debug)]
pub struct BoundPolicy {
    policy: Box<dyn SelectionPolicy>,
    models: Arc<[ModelName]>,
    output: OutputKind,
    loss: Loss,
    min_confidence: f64,
    window: Option<u64>,
}

impl BoundPolicy {
    /// Binds a policy other than the default one.
    ///
    /// # Errors
    /// What is wrong with it, naming the parameter.
    pub fn bind(spec: &PolicySpec, models: &[ModelName]) -> Result<Self, ParameterError> {
        let Some(kind) = table::find(&spec.name) else {
            let problem = ParameterProblem::UnknownPolicy {
                name: shortened(&spec.name),
                known: table::names(),
            };
            return Err(ParameterError { field: "policy".to_owned(), problem });
        };
        let mut reader = ParameterReader::new(&spec.parameters);
        let output = reader.one_of("output", OutputKind::NAMES)?;
        let output = output.map_or(OutputKind::Label, |index| OutputKind::ALL[index]);
        let loss = reader.one_of("loss", LossKind::NAMES)?;
        let loss = loss.map_or(LossKind::usual(output), |index| LossKind::ALL[index]);
        if !loss.fits(output) {
            let outputs = OutputKind::NAMES[output as usize];
            let why = format!("outputs that are a {outputs} have no such loss");
            return Err(contradicts("loss", why));
        }
        let scale = reader.number("loss_scale", 1e-9, 1e12)?.unwrap_or(1.0);
        let min_confidence = reader.number("min_confidence", 0.0, 1.0)?;
        let window = reader.whole("window", 8, 1_000_000_000)?;
        let policy = (kind.build)(&mut reader, &Binding { output, models })?;
        reader.finish()?;
        if min_confidence.is_some() && !policy.has_confidence() && output != OutputKind::Vector {
            let why = "the policy has no confidence, unless its outputs are vectors".to_owned();
            return Err(contradicts("min_confidence", why));
        }
        let loss = Loss { kind: loss, scale };
        let min_confidence = min_confidence.unwrap_or(0.0);
        Ok(Self { policy, models: models.into(), output, loss, min_confidence, window })
    }

    /// Whether an application may have this policy.
    ///
    /// # Errors
    /// What is wrong with it, naming the parameter.
    pub fn check(spec: &PolicySpec) -> Result<(), ParameterError> {
        if spec.name == DEFAULT_POLICY {
            return ParameterReader::new(&spec.parameters).finish();
        }
        Self::bind(spec, &[]).map(drop)
    }

    /// The application's models, in the order of [`Pick::arm`].
    #[must_use]
    pub fn models(&self) -> &Arc<[ModelName]> {
        &self.models
    }

    #[must_use]
    pub fn output(&self) -> OutputKind {
        self.output
    }

    /// How its models stand after this feedback.
    #[must_use]
    pub fn standing(&self, state: &SelectionState) -> Standing {
        let mut standing = state.standing(&self.models);
        standing.weights = self.policy.prepared(&standing);
        standing
    }

    /// Whether it asks one model of a query, and takes its output as it is.
    #[must_use]
    pub fn asks_one(&self) -> bool {
        self.policy.asks_one()
    }

    /// Whether it asks all models of every query, present or not.
    #[must_use]
    pub fn asks_all(&self) -> bool {
        self.policy.asks_all()
    }

    /// Whether it learns only from answers whose probability it knows.
    #[must_use]
    pub fn needs_probability(&self) -> bool {
        self.policy.needs_probability()
    }

    /// What is too doubtful to be an answer.
    #[must_use]
    pub fn min_confidence(&self) -> f64 {
        self.min_confidence
    }

    /// The models to ask.
    #[must_use]
    pub fn select(&self, standing: &Standing, query: &SelectionQuery) -> Picks {
        self.policy.select(standing, query)
    }

    /// How much each model counts now.
    #[must_use]
    pub fn weights(&self, state: &SelectionState) -> Vec<(ModelName, f64)> {
        let weights = self.policy.weights(&self.standing(state));
        self.models.iter().cloned().zip(weights).collect()
    }

    /// What became of a model that was asked, from its output's JSON.
    #[must_use]
    pub fn member(&self, json: &[u8]) -> Member {
        ModelValue::parse(self.output, json).map_or(Member::Failed, Member::Value)
    }

    /// What to make of the answers so far.
    #[must_use]
    pub fn combine(
        &self,
        standing: &Standing,
        picks: &[Pick],
        members: &[Member],
        time_left: Duration,
    ) -> Decided {
        let answered = Answered { picks, members, time_left };
        let combination = self.policy.combine(standing, &answered);
        match &combination {
            Combination::Take { confidence: Some(sure), .. }
            | Combination::Made { confidence: Some(sure), .. }
                if *sure < self.min_confidence =>
            {
                Decided::Doubtful(*sure)
            }
            _ => Decided::Policy(combination),
        }
    }

    /// What feedback adds to the state. `None`: it teaches nothing.
    #[must_use]
    pub fn observe(&self, given: &GivenAnswer, truth: &Truth) -> Option<Contribution> {
        let mut arms = BTreeMap::<ModelName, ArmSums>::new();
        for (index, (pick, member)) in given.picks.iter().zip(&given.members).enumerate() {
            let (Some(value), Some(name)) = (member.value(), given.models.get(pick.arm)) else {
                continue;
            };
            if let Some(loss) = self.loss_of(index, value, given, truth) {
                arms.insert(name.clone(), self.policy.observe(pick, loss));
            }
        }
        (!arms.is_empty()).then_some(Contribution { window: self.window, arms })
    }

    fn loss_of(
        &self,
        member: usize,
        value: &ModelValue,
        given: &GivenAnswer,
        truth: &Truth,
    ) -> Option<f64> {
        match truth {
            Truth::Output(truth) => self.loss.of(value, truth),
            // It is about the answer: it counts for those who said the same.
            Truth::Loss(loss) => {
                let said_it = match given.answer {
                    AnswerOf::Nobody => false,
                    AnswerOf::Several => true,
                    AnswerOf::Member(taken) => {
                        let answer = given.members.get(taken).and_then(Member::value);
                        taken == member || answer == Some(value)
                    }
                };
                said_it.then_some(loss.clamp(0.0, 1.0))
            }
        }
    }
}
