//! The queries of a request whose models a policy chose, and what becomes of the answers.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::asking::SureAnswers;
use super::chooser::{BoundModels, Choice, Chooser};
use super::traced::{AskedModels, TracedMember, TracedModel, TracedQuery};
use crate::actors::plane::directory::ModelHandle;
use clipper_scheduling::bodies::Digests;
use clipper_scheduling::budget::Held;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason};
use clipper_selection::bound::Decided;
use clipper_selection::given::{AnswerOf, GivenAnswer, GivenBy};
use clipper_selection::policy::{Combination, Member, Members, Pick, Picks};
use clipper_selection::state::Standing;

/// A query of the request, and which of its picks is meant.
pub(super) type Place = (usize, usize);

/// A policy's choice for a request: who made it, and what is known of the request.
#[derive(Debug)]
pub(super) struct Chosen {
    chooser: Arc<Chooser>,
    pub(super) models: Arc<BoundModels>,
    standing: Arc<Standing>,
    first_query_id: u64,
    pub(super) uid: i64,
    by: Option<GivenBy>,
}

/// Queries of which each is asked of one model, whose output is taken as it is.
#[derive(Debug)]
pub(super) struct ChosenOne {
    chosen: Chosen,
    /// What stands for the inputs, in the cache and in feedback.
    digests: Digests,
    picks: SmallVec<[Picks; 1]>,
}

/// One query that several models may answer.
#[derive(Debug)]
pub(super) struct ChosenQuery {
    /// What stands for its input.
    pub(super) digest: u64,
    pub(super) picks: Picks,
    pub(super) members: Members,
    pub(super) answers: SmallVec<[Option<Answer>; 1]>,
    /// Of those that have answered, or have not in time.
    traced: SmallVec<[Option<TracedMember>; 1]>,
    pub(super) decided: Option<Decided>,
}

/// Queries that several models may answer.
#[derive(Debug)]
pub(super) struct ChosenSeveral {
    pub(super) chosen: Chosen,
    pub(super) queries: Vec<ChosenQuery>,
}

impl Chosen {
    /// What a policy chose, and the picks of each query.
    pub(super) fn new(
        chooser: &Arc<Chooser>,
        Choice { models, standing, picks }: Choice,
        (first_query_id, uid): (u64, i64),
        by: Option<GivenBy>,
    ) -> (Self, SmallVec<[Picks; 1]>) {
        let chooser = Arc::clone(chooser);
        (Self { chooser, models, standing, first_query_id, uid, by }, picks)
    }

    /// What became of a model that was asked.
    fn member(&self, answer: &Answer) -> Member {
        match answer {
            Answer::Output(output) => self.models.policy.member(output.json()),
            Answer::Default(_) => Member::Failed,
        }
    }

    fn combine(&self, picks: &Picks, members: &Members, time_left: Duration) -> Decided {
        self.models.policy.combine(&self.standing, picks, members, time_left)
    }

    /// The answer of a query and how sure it is. Feedback may be about it from now on.
    fn conclude(
        &self,
        (query_id, digest): (u64, u64),
        (picks, members): (Picks, Members),
        decided: Option<Decided>,
        answers: &mut [Option<Answer>],
    ) -> (Answer, Option<f64>, AnswerOf) {
        let (answer, confidence, whose) = conclude(&self.models, decided, answers);
        let given = GivenAnswer {
            uid: self.uid,
            input: digest,
            models: Arc::clone(self.models.policy.models()),
            picks,
            members,
            answer: whose,
            by: self.by,
        };
        self.chooser.answered(&self.models, query_id, (given, confidence));
        (answer, confidence, whose)
    }

    /// How much the model behind a pick counts.
    fn weight(&self, pick: Pick) -> f64 {
        self.standing.weights.get(pick.arm).copied().unwrap_or(pick.probability)
    }
}

impl ChosenOne {
    pub(super) fn new((chosen, picks): (Chosen, SmallVec<[Picks; 1]>), digests: Digests) -> Self {
        Self { chosen, digests, picks }
    }

    /// The answers, of those that came.
    pub(super) fn answered(
        self,
        Closed { mut answers, held }: Closed,
        model: Option<TracedModel>,
    ) -> SureAnswers {
        let Self { chosen, digests, picks } = self;
        let weight = |picks: &Picks| picks.first().map_or(0.0, |pick| chosen.weight(*pick));
        let models = AskedModels::One(model, picks.iter().map(weight).collect());
        let mut confidences = SmallVec::with_capacity(answers.len());
        let queries = (chosen.first_query_id..).zip(digests).zip(picks);
        for ((query, picks), answer) in queries.zip(&mut answers) {
            let members = Members::from_elem(chosen.member(answer), 1);
            let decided = chosen.combine(&picks, &members, Duration::ZERO);
            let mut came = [Some(std::mem::replace(answer, Answer::Default(DefaultReason::Late)))];
            let told = chosen.conclude(query, (picks, members), Some(decided), &mut came);
            *answer = told.0;
            confidences.push(told.1);
        }
        SureAnswers { closed: Closed { answers, held }, confidences, models }
    }
}

impl ChosenSeveral {
    /// Nothing is answered yet.
    pub(super) fn new((chosen, picks): (Chosen, SmallVec<[Picks; 1]>), digests: &[u64]) -> Self {
        let query = |(digest, picks): (&u64, Picks)| ChosenQuery {
            digest: *digest,
            members: smallvec::smallvec![Member::Waiting; picks.len()],
            answers: smallvec::smallvec![None; picks.len()],
            traced: (0..picks.len()).map(|_| None).collect(),
            picks,
            decided: None,
        };
        Self { chosen, queries: digests.iter().zip(picks).map(query).collect() }
    }

    /// A model has answered, or not.
    pub(super) fn arrived(
        &mut self,
        (query, member): Place,
        answer: Answer,
        of: Option<(&Arc<ModelHandle>, &TracedQuery)>,
    ) {
        let query = &mut self.queries[query];
        query.traced[member] = of.map(|(model, traced)| TracedMember {
            model: Arc::clone(model),
            query: traced.clone(),
            weight: query.picks.get(member).map(|pick| self.chosen.weight(*pick)),
            used: false,
            default: answer.default_reason().cloned(),
        });
        query.members[member] = self.chosen.member(&answer);
        query.answers[member] = Some(answer);
    }

    /// Decides what can be decided; a policy may want more models asked, each once.
    pub(super) fn combine(&mut self, time_left: Duration) {
        for query in self.queries.iter_mut().filter(|query| query.decided.is_none()) {
            match self.chosen.combine(&query.picks, &query.members, time_left) {
                Decided::Policy(Combination::Ask(pick))
                    if !query.picks.iter().any(|asked| asked.arm == pick.arm) =>
                {
                    query.picks.push(pick);
                    query.members.push(Member::Waiting);
                    query.answers.push(None);
                    query.traced.push(None);
                }
                decided => query.decided = Some(decided),
            }
        }
    }

    pub(super) fn conclude(self, held: Option<Held>) -> SureAnswers {
        let Self { chosen, queries } = self;
        let (mut told, mut confidences) = (SmallVec::new(), SmallVec::new());
        let mut models = Vec::with_capacity(queries.len());
        for (query_id, query) in (chosen.first_query_id..).zip(queries) {
            let ChosenQuery { digest, picks, members, mut answers, mut traced, decided } = query;
            let (answer, confidence, whose) =
                chosen.conclude((query_id, digest), (picks, members), decided, &mut answers);
            for (index, member) in traced.iter_mut().enumerate() {
                let Some(member) = member else { continue };
                member.used = match whose {
                    AnswerOf::Member(used) => used == index,
                    AnswerOf::Several => member.default.is_none(),
                    AnswerOf::Nobody => false,
                };
            }
            told.push(answer);
            confidences.push(confidence);
            models.push(traced);
        }
        let (closed, models) = (Closed { answers: told, held }, AskedModels::Several(models));
        SureAnswers { closed, confidences, models }
    }
}

/// The answer of a query, how sure it is, and whose output it is.
fn conclude(
    models: &BoundModels,
    decided: Option<Decided>,
    answers: &mut [Option<Answer>],
) -> (Answer, Option<f64>, AnswerOf) {
    match decided {
        Some(Decided::Policy(Combination::Take { member, confidence })) => {
            if let Some(answer @ Some(Answer::Output(_))) = answers.get_mut(member)
                && let Some(output) = answer.take()
            {
                return (output, confidence, AnswerOf::Member(member));
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
    (Answer::Default(why_nothing(answers)), None, AnswerOf::Nobody)
}

/// Why no answer came: what became of the first model that was asked.
fn why_nothing(answers: &[Option<Answer>]) -> DefaultReason {
    let reason = answers.iter().find_map(|answer| match answer {
        Some(Answer::Default(reason)) => Some(reason.clone()),
        _ => None,
    });
    let other_kind = || {
        DefaultReason::Failed(Arc::from(
            "The output is not of the kind that the application's policy declares (output)",
        ))
    };
    reason.unwrap_or_else(
        || {
            if answers.is_empty() { DefaultReason::NoReplica } else { other_kind() }
        },
    )
}
