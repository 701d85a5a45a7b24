//! The choice among an application's models: its policy, bound to those that can answer.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::actors::plane::directory::{ModelEntry, ModelHandle};
use crate::actors::plane::learned_states::{AppLearned, EVERYBODY};
use crate::metrics::{AppMetrics, ChoiceMetrics, ModelWeights};
use clipper_domain::{Input, ModelName, PolicySpec};
use clipper_scheduling::bodies::PredictBody;
use clipper_scheduling::cache::PredictionCache;
use clipper_selection::bound::BoundPolicy;
use clipper_selection::given::{AnswerOf, GivenAnswer};
use clipper_selection::loss::Truth;
use clipper_selection::parameters::ParameterError;
use clipper_selection::policy::{Member, Members, Pick, Picks, SelectionQuery};
use clipper_selection::state::{Contribution, SelectionState, Standing};
use clipper_selection::sticky;
use clipper_selection::value::OutputKind;
use clipper_selection::window::{Subject, Unmatched};

/// Answers that are made known to feedback while predictions wait for the window: some 0.1 ms.
const LOOKED_UP: usize = 1_000;

/// A policy at work.
#[derive(Debug)]
pub(super) struct Chooser {
    spec: PolicySpec,
    entries: Vec<Arc<ModelEntry>>,
    learned: Arc<AppLearned>,
    metrics: Arc<AppMetrics>,
    /// For the models that could answer when it was last asked.
    latest: Mutex<Arc<BoundModels>>,
}

/// The policy for those models that can answer.
#[derive(Debug)]
pub(super) struct BoundModels {
    /// A bit for each of the chooser's entries.
    present: u64,
    pub(super) policy: BoundPolicy,
    /// By the policy's number of a model.
    entries: Vec<Arc<ModelEntry>>,
    /// In the same order; none where there are too many.
    counters: Vec<Option<Arc<ChoiceMetrics>>>,
    /// How they stand in everybody's state, which was this.
    standing: Mutex<(Arc<SelectionState>, Arc<Standing>)>,
}

impl BoundModels {
    /// The current version of one of its models.
    pub(super) fn current(&self, arm: usize) -> Option<Arc<ModelHandle>> {
        self.entries.get(arm)?.current()
    }

    /// The current versions of all, in order.
    pub(super) fn currents(&self) -> impl Iterator<Item = Option<Arc<ModelHandle>>> {
        self.entries.iter().map(|entry| entry.current())
    }

    /// What feedback teaches about what all models say.
    pub(super) fn observe_all(
        &self,
        uid: i64,
        members: Members,
        truth: &Truth,
    ) -> Option<Contribution> {
        let answer = GivenAnswer {
            uid,
            input: 0,
            models: Arc::clone(self.policy.models()),
            picks: (0..self.entries.len()).map(Pick::certain).collect(),
            members,
            answer: AnswerOf::Several,
            by: None,
        };
        self.policy.observe(&answer, truth)
    }

    fn bind(
        spec: &PolicySpec,
        all: &[Arc<ModelEntry>],
        present: u64,
        (learned, metrics): (&AppLearned, &AppMetrics),
    ) -> Result<Self, ParameterError> {
        let is_present = |n: usize| present >> n & 1 == 1;
        let entries = all.iter().enumerate().filter(|(n, _)| is_present(*n));
        let entries: Vec<_> = entries.map(|(_, entry)| Arc::clone(entry)).collect();
        let models: Vec<ModelName> = entries.iter().map(|entry| entry.name().clone()).collect();
        let policy = BoundPolicy::bind(spec, &models)?;
        let state = learned.of_user(EVERYBODY);
        let standing = Mutex::new((Arc::clone(&state), Arc::new(policy.standing(&state))));
        let counters = models.iter().map(|model| metrics.policy.model(model)).collect();
        Ok(Self { present, policy, entries, counters, standing })
    }

    /// Counts what became of the models that were asked one query.
    fn count(&self, answer: &GivenAnswer) {
        let values = || answer.members.iter().map(Member::value);
        let taken = match answer.answer {
            AnswerOf::Member(taken) if values().flatten().count() > 1 => {
                answer.members.get(taken).and_then(Member::value)
            }
            _ => None,
        };
        for (pick, value) in answer.picks.iter().zip(values()) {
            let Some(Some(counters)) = self.counters.get(pick.arm) else { continue };
            counters.asked(value.is_some());
            if let Some((taken, value)) = taken.zip(value) {
                counters.compared(taken == value);
            }
        }
    }

    /// How the models stand for a user.
    fn standing(&self, learned: &AppLearned, uid: i64) -> Arc<Standing> {
        if uid != EVERYBODY
            && let Some(state) = learned.of_user_alone(uid)
        {
            return Arc::new(self.policy.standing(&state));
        }
        let state = learned.everybody();
        let mut latest = self.standing.lock();
        if !Arc::ptr_eq(&latest.0, &state) {
            latest.1 = Arc::new(self.policy.standing(&state));
            latest.0 = Arc::clone(&state);
        }
        Arc::clone(&latest.1)
    }
}

/// What is to be asked for the queries of one request.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) models: Arc<BoundModels>,
    pub(super) standing: Arc<Standing>,
    pub(super) picks: SmallVec<[Picks; 1]>,
}

impl Choice {
    /// The model that answers all queries, if it is one, whose output is taken as it is.
    pub(super) fn only(&self) -> Option<usize> {
        if !self.models.policy.asks_one() {
            return None;
        }
        let mut arms = self.picks.iter().map(|picks| picks.first().map(|pick| pick.arm));
        let only = arms.next()?;
        if arms.all(|arm| arm == only) { only } else { None }
    }
}

/// What feedback without the id of a query is about.
pub(super) struct AboutInput {
    pub(super) uid: i64,
    /// What stands for the input, in the cache and among the answers that are kept.
    pub(super) digest: u64,
    pub(super) input: Input,
}

impl Chooser {
    /// A policy with the models that the application is linked to, by name.
    ///
    /// # Errors
    /// What is wrong with the policy, which only another program's row in Redis can be.
    pub(super) fn new(
        spec: PolicySpec,
        entries: Vec<Arc<ModelEntry>>,
        learned: Arc<AppLearned>,
        metrics: Arc<AppMetrics>,
    ) -> Result<Self, ParameterError> {
        let all = all_of(entries.len());
        let latest = Arc::new(BoundModels::bind(&spec, &entries, all, (&learned, &metrics))?);
        let weights = WeightsNow { all: Arc::clone(&latest), learned: Arc::clone(&learned) };
        metrics.policy.set_weights(Some(Arc::new(weights)));
        Ok(Self { spec, entries, learned, metrics, latest: Mutex::new(latest) })
    }

    /// A policy that asks one model passes over those that nobody could answer for; one that asks
    /// all counts on all, so that its confidence says who is missing.
    fn present(&self, asks_all: bool) -> u64 {
        let all = all_of(self.entries.len());
        if asks_all || self.entries.len() <= 1 {
            return all;
        }
        let can_answer =
            |entry: &Arc<ModelEntry>| entry.current().is_some_and(|model| model.replicas() > 0);
        let bits = self.entries.iter().enumerate();
        let present =
            bits.filter(|(_, entry)| can_answer(entry)).fold(0, |bits, (n, _)| bits | 1 << n);
        if present == 0 { all } else { present }
    }

    fn bound(&self) -> Arc<BoundModels> {
        let latest = self.policy();
        let present = self.present(latest.policy.asks_all());
        if latest.present == present {
            return latest;
        }
        let about = (&*self.learned, &*self.metrics);
        match BoundModels::bind(&self.spec, &self.entries, present, about) {
            Ok(bound) => {
                let bound = Arc::new(bound);
                *self.latest.lock() = Arc::clone(&bound);
                bound
            }
            Err(_) => latest,
        }
    }

    /// The models to ask for the queries of a request, whose ids count from `first_query_id`.
    pub(super) fn choose(&self, body: &PredictBody, first_query_id: u64) -> Choice {
        let (uid, key) = (body.uid, body.key.as_deref().map(sticky::key));
        let models = self.bound();
        let standing = models.standing(&self.learned, uid);
        let ids = first_query_id..first_query_id + body.inputs.len() as u64;
        let query = |seed| SelectionQuery { seed, uid, key };
        let picks = ids.map(|id| models.policy.select(&standing, &query(id))).collect();
        Choice { models, standing, picks }
    }

    /// Counts an answer, and keeps it for feedback that comes later.
    pub(super) fn answered(
        &self,
        models: &BoundModels,
        query_id: u64,
        (answer, confidence): (GivenAnswer, Option<f64>),
    ) {
        models.count(&answer);
        if let Some(confidence) = confidence {
            self.metrics.policy.answered(confidence);
        }
        if answer.members.iter().any(|member| member.value().is_some()) {
            self.learned.window.lock().add(query_id, answer);
        }
    }

    /// Makes a slice of the answers that were kept since the last feedback findable. False: there
    /// are more.
    pub(super) fn look_up(&self) -> bool {
        self.learned.window.lock().find_more(LOOKED_UP)
    }

    /// What feedback teaches: whose predictions it is about, and what it contributes.
    ///
    /// # Errors
    /// Why it teaches nothing.
    pub(super) fn judge(
        &self,
        subject: Subject,
        truth: &Truth,
    ) -> Result<(i64, Contribution), Unmatched> {
        let answer = self.learned.window.lock().judge(subject)?;
        let contribution = self.policy().policy.observe(&answer, truth);
        if let (Some(by), Some(taught)) = (answer.by, &contribution) {
            self.learned.judged(by, taught);
        }
        contribution.map(|it| (answer.uid, it)).ok_or(Unmatched::Unknown)
    }

    /// What feedback about an input teaches of models whose outputs the cache still has.
    pub(super) fn judge_cached(
        &self,
        cache: &PredictionCache,
        about: &AboutInput,
        truth: &Truth,
    ) -> Option<Contribution> {
        let bound = self.policy();
        if bound.policy.needs_probability() {
            return None;
        }
        let member = |model: Option<Arc<ModelHandle>>| {
            let model = model?;
            let output =
                cache.get(&cache.key_by(about.digest, model.serial, about.input.clone()))?;
            Some(bound.policy.member(output.json()))
        };
        let members = bound.currents().map(|model| member(model).unwrap_or(Member::Failed));
        bound.observe_all(about.uid, members.collect(), truth)
    }

    /// Whether it learns from what all models say, however they came to be asked.
    pub(super) fn learns_from_all(&self) -> bool {
        !self.policy().policy.needs_probability()
    }

    pub(super) fn policy(&self) -> Arc<BoundModels> {
        Arc::clone(&self.latest.lock())
    }

    /// A label as the truth about the application's outputs. `None`: it cannot be one.
    pub(super) fn truth(&self, label: &serde_json::Value) -> Option<Truth> {
        Truth::read(self.policy().policy.output(), label)
    }

    /// What a label has to be.
    pub(super) fn labels(&self) -> &'static str {
        match self.policy().policy.output() {
            OutputKind::Number => "a number",
            OutputKind::Label | OutputKind::Vector => "a number, a string, true or false",
        }
    }
}

/// For whoever looks at the metrics: the weights of all linked models in everybody's state.
#[derive(Debug)]
struct WeightsNow {
    /// Also those that cannot answer.
    all: Arc<BoundModels>,
    learned: Arc<AppLearned>,
}

impl ModelWeights for WeightsNow {
    fn weights(&self) -> Vec<(ModelName, f64)> {
        self.all.policy.weights(&self.learned.of_user(EVERYBODY))
    }
}

/// A bit for each of `count` models; a policy chooses among at most 64.
fn all_of(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}
