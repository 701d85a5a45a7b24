//! Queries of one request that several models may answer: what they wait for, and what becomes of
//! the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use smallvec::SmallVec;

use super::chooser::{BoundModels, Choice, Chooser};
use super::model_progress::ModelProgress;
use super::rolling::Rolled;
use crate::actors::plane::directory::ModelHandle;
use clipper_clock::{self as clock, Instant};
use clipper_domain::Input;
use clipper_scheduling::budget::Held;
use clipper_scheduling::cache::PredictionCache;
use clipper_scheduling::output::Output;
use clipper_scheduling::parse::{Inputs, PredictBody};
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason, Excess};
use clipper_selection::bound::Decided;
use clipper_selection::given::{AnswerOf, GivenAnswer};
use clipper_selection::policy::{Combination, Member, Pick};
use clipper_selection::state::Standing;

/// A policy wants another model asked about these inputs, in the time that their request has left.
/// Sender: the request's handler, on the same thread. Reply: that model's answers on their way.
#[derive(Debug, Message)]
#[rtype(result = "ModelProgress")]
pub struct AskModel {
    pub model: Arc<ModelHandle>,
    pub body: PredictBody,
    pub request: RequestTimes,
}

/// When a request came and until when it is answered.
#[derive(Debug, Clone, Copy)]
pub struct RequestTimes {
    /// When it had arrived.
    pub arrived: Instant,
    /// Its answers are due so long after that.
    pub objective: Duration,
    /// An answer of several models is made so long before that (`serving.ensemble_margin_us`).
    pub margin: Duration,
    /// Id of its first query.
    pub first_query_id: u64,
}

/// How long an answer may take so that it arrives within `objective`: `early`
/// (`serving.answer_margin_us`) is for its way and for timers, at most a fiftieth of all.
#[must_use]
pub fn due_within(objective: Duration, early: Duration) -> Duration {
    objective.saturating_sub(early.min(objective / 50))
}

impl RequestTimes {
    pub(super) fn deadline(&self) -> Instant {
        self.arrived + self.objective
    }
}

/// A query of the request, and which of its picks is meant.
type Place = (usize, usize);

/// Some queries of the request, asked of one model.
#[derive(Debug)]
struct AskedModel {
    places: Vec<Place>,
    progress: ModelProgress,
}

/// One query of the request.
#[derive(Debug)]
struct ChosenQuery {
    /// What stands for its input, in the cache and in feedback.
    digest: u64,
    picks: Vec<Pick>,
    members: Vec<Member>,
    answers: Vec<Option<Answer>>,
    decided: Option<Decided>,
}

/// The queries of a request, while models are asked.
#[derive(Debug)]
pub(super) struct Ensemble {
    chooser: Arc<Chooser>,
    models: Arc<BoundModels>,
    standing: Arc<Standing>,
    inputs: Inputs,
    queries: Vec<ChosenQuery>,
    asked: Vec<AskedModel>,
    request: RequestTimes,
    uid: i64,
    held: Vec<Held>,
    app: Recipient<AskModel>,
    /// A rollout of one of the models.
    rolled: Option<Rolled>,
}

/// Answers, and how sure the policy is of each.
#[derive(Debug)]
pub(super) struct SureAnswers {
    pub(super) closed: Closed,
    pub(super) confidences: SmallVec<[Option<f64>; 1]>,
    /// Under a rollout, what its model answered, if it was asked.
    pub(super) rolled: Option<Vec<Option<Answer>>>,
}

impl Ensemble {
    /// Nothing is asked yet.
    pub(super) fn new(
        (chooser, choice): (&Arc<Chooser>, Choice),
        body: PredictBody,
        cache: &PredictionCache,
        request: RequestTimes,
        (app, rolled): (Recipient<AskModel>, Option<Rolled>),
    ) -> Self {
        let PredictBody { inputs, digests, uid, .. } = body;
        let mut digests = digests.into_iter();
        let query = |(input, picks): (&Input, Vec<Pick>)| ChosenQuery {
            digest: digests.next().unwrap_or_else(|| cache.digest(input)),
            members: vec![Member::Waiting; picks.len()],
            answers: vec![None; picks.len()],
            picks,
            decided: None,
        };
        let queries = inputs.iter().zip(choice.picks).map(query).collect();
        Self {
            chooser: Arc::clone(chooser),
            models: choice.models,
            standing: choice.standing,
            inputs,
            queries,
            asked: Vec::new(),
            request,
            uid,
            held: Vec::new(),
            app,
            rolled,
        }
    }

    /// Asks what was picked; `ask` starts a model's answers.
    pub(super) fn ask(&mut self, ask: impl Fn(AskModel) -> ModelProgress) {
        for (places, message) in self.messages(&self.unasked()) {
            let progress = message.map_or_else(|| nobody(&places), &ask);
            self.asked.push(AskedModel { places, progress });
        }
    }

    /// The picks that nobody was asked for.
    fn unasked(&self) -> BTreeMap<usize, Vec<Place>> {
        let mut by_arm = BTreeMap::<usize, Vec<Place>>::new();
        for (index, query) in self.queries.iter().enumerate() {
            for (member, pick) in query.picks.iter().enumerate() {
                let is_new = query.members[member] == Member::Waiting;
                if is_new && query.answers[member].is_none() {
                    by_arm.entry(pick.arm).or_default().push((index, member));
                }
            }
        }
        by_arm
    }

    /// A message for each model; none where it has no current version.
    fn messages(
        &self,
        by_arm: &BTreeMap<usize, Vec<Place>>,
    ) -> Vec<(Vec<Place>, Option<AskModel>)> {
        let message = |(arm, places): (&usize, &Vec<Place>)| {
            let message = self.version(*arm).map(|model| {
                let inputs = places.iter().map(|(query, _)| self.inputs[*query].clone()).collect();
                let digests = places.iter().map(|(query, _)| self.queries[*query].digest).collect();
                let body = PredictBody { inputs, digests, version: None, uid: self.uid };
                AskModel { model, body, request: self.request }
            });
            (places.clone(), message)
        };
        by_arm.iter().map(message).collect()
    }

    /// The version of a model that is asked.
    fn version(&self, arm: usize) -> Option<Arc<ModelHandle>> {
        let current = self.models.current(arm)?;
        let instead = self.rolled.as_ref().filter(|rolled| rolled.model == current.spec.id.name);
        instead.and_then(|rolled| rolled.instead.clone()).or(Some(current))
    }

    /// Waits for the answers and makes one of them for each query, at the latest at the deadline.
    ///
    /// # Errors
    /// What the models answered takes too much room.
    pub(super) async fn answers(mut self) -> Result<SureAnswers, Excess> {
        loop {
            let in_time = self.arrived_in_time().await;
            self.collect()?;
            let left = self.request.deadline().saturating_duration_since(clock::now());
            self.combine(if in_time { left } else { Duration::ZERO });
            let unasked = self.unasked();
            if unasked.is_empty() {
                return Ok(self.finish());
            }
            for (places, message) in self.messages(&unasked) {
                let progress = match message {
                    Some(message) => self.app.send(message).await.ok(),
                    None => None,
                };
                let progress = progress.unwrap_or_else(|| nobody(&places));
                self.asked.push(AskedModel { places, progress });
            }
        }
    }

    /// Waits for every model that was asked, until the deadline. Where somebody has answered each
    /// query, a bit less: the answer has to be on its way by then. Whether all have answered.
    async fn arrived_in_time(&self) -> bool {
        let deadline = self.request.deadline();
        let may_leave_out = self.queries.iter().any(|query| query.picks.len() > 1);
        if may_leave_out {
            let early = deadline - self.request.margin.min(self.request.objective / 10);
            if tokio::time::timeout_at(early, self.arrived()).await.is_ok() {
                return true;
            }
            if self.is_answered() {
                return false;
            }
        }
        tokio::time::timeout_at(deadline, self.arrived()).await.is_ok()
    }

    /// Whether each query has an output of one model at least.
    fn is_answered(&self) -> bool {
        let has_output = |query: &ChosenQuery| query.members.iter().any(|m| m.value().is_some());
        let mut answered: Vec<bool> = self.queries.iter().map(has_output).collect();
        for asked in &self.asked {
            for (index, (query, _)) in asked.places.iter().enumerate() {
                answered[*query] |= asked.progress.has_output(index);
            }
        }
        answered.into_iter().all(|it| it)
    }

    /// Until every model that was asked has answered.
    async fn arrived(&self) {
        for asked in &self.asked {
            if let ModelProgress::Waiting { ticket, .. } = &asked.progress {
                ticket.filled().await;
            }
        }
    }

    /// Takes what has arrived; what has not is late.
    fn collect(&mut self) -> Result<(), Excess> {
        for asked in std::mem::take(&mut self.asked) {
            let answers = match asked.progress {
                ModelProgress::Ready(answers) => answers,
                ModelProgress::Waiting { ticket, .. } => {
                    let Closed { answers, held } = ticket.close()?;
                    self.held.extend(held);
                    answers
                }
            };
            for ((query, member), answer) in asked.places.into_iter().zip(answers) {
                let query = &mut self.queries[query];
                query.members[member] = match &answer {
                    Answer::Output(output) => self.models.policy.member(output.json()),
                    Answer::Default(_) => Member::Failed,
                };
                query.answers[member] = Some(answer);
            }
        }
        Ok(())
    }

    /// Decides what can be decided; a policy may want more models asked, each once.
    fn combine(&mut self, time_left: Duration) {
        let (models, standing) = (&self.models, &self.standing);
        for query in self.queries.iter_mut().filter(|query| query.decided.is_none()) {
            let (picks, members) = (&query.picks, &query.members);
            match models.policy.combine(standing, picks, members, time_left) {
                Decided::Policy(Combination::Ask(pick))
                    if !picks.iter().any(|asked| asked.arm == pick.arm) =>
                {
                    query.picks.push(pick);
                    query.members.push(Member::Waiting);
                    query.answers.push(None);
                }
                decided => query.decided = Some(decided),
            }
        }
    }

    fn finish(self) -> SureAnswers {
        let Self { chooser, models, queries, request, uid, held, rolled, .. } = self;
        let ids = request.first_query_id..;
        let by = rolled.as_ref().map(|rolled| rolled.by);
        let rolled = rolled.map(|rolled| {
            let names = models.policy.models();
            let is_it = |pick: &Pick| names.get(pick.arm) == Some(&rolled.model);
            let answer = |query: &ChosenQuery| {
                query.answers.get(query.picks.iter().position(is_it)?)?.clone()
            };
            queries.iter().map(answer).collect()
        });
        let sure = ids.zip(queries).map(|(query_id, mut query)| {
            let (answer, confidence, whose) = conclude(&models, &mut query);
            let given = GivenAnswer {
                uid,
                input: query.digest,
                models: Arc::clone(models.policy.models()),
                picks: query.picks,
                members: query.members,
                answer: whose,
                by,
            };
            chooser.answered(&models, query_id, (given, confidence));
            (answer, confidence)
        });
        let (answers, confidences) = sure.unzip();
        // All of it, until it is known what the one answer takes of the sum.
        let held = held.into_iter().reduce(|mut all, part| {
            all.absorb(part);
            all
        });
        SureAnswers { closed: Closed { answers, held }, confidences, rolled }
    }
}

fn nobody(places: &[Place]) -> ModelProgress {
    ModelProgress::defaults(places.len(), DefaultReason::NoReplica)
}

/// The answer of a query, how sure it is, and whose output it is.
fn conclude(models: &BoundModels, query: &mut ChosenQuery) -> (Answer, Option<f64>, AnswerOf) {
    match query.decided.take() {
        Some(Decided::Policy(Combination::Take { member, confidence })) => {
            if let Some(Some(answer @ Answer::Output(_))) = query.answers.get(member) {
                return (answer.clone(), confidence, AnswerOf::Member(member));
            }
        }
        Some(Decided::Policy(Combination::Made { value, confidence })) => {
            if let Some(output) = Output::from_text(value.to_json().as_bytes()) {
                return (Answer::Output(output), confidence, AnswerOf::Several);
            }
        }
        Some(Decided::Doubtful(confidence)) => {
            let why = format!(
                "The confidence of the answer, {confidence:.3}, is below the policy's \
                 min_confidence, {}",
                models.policy.min_confidence()
            );
            let reason = DefaultReason::Doubtful(Arc::from(why));
            return (Answer::Default(reason), Some(confidence), AnswerOf::Nobody);
        }
        Some(Decided::Policy(_)) | None => {}
    }
    (Answer::Default(why_nothing(query)), None, AnswerOf::Nobody)
}

/// Why no answer came: what became of the first model that was asked.
fn why_nothing(query: &ChosenQuery) -> DefaultReason {
    let defaults = query.answers.iter().filter_map(|answer| match answer {
        Some(Answer::Default(reason)) => Some(reason.clone()),
        _ => None,
    });
    let other_kind = || {
        DefaultReason::Failed(Arc::from(
            "The output is not of the kind that the application's policy declares (output)",
        ))
    };
    let reason = defaults.into_iter().next();
    reason.unwrap_or_else(|| {
        if query.picks.is_empty() { DefaultReason::NoReplica } else { other_kind() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_due_a_little_before_the_objective() {
        let ms = Duration::from_millis;
        assert_eq!(due_within(ms(250), ms(5)), ms(245));
        assert_eq!(due_within(ms(50), ms(5)), ms(49), "a fiftieth at most");
        assert_eq!(due_within(ms(250), ms(0)), ms(250));
    }
}
