//! The queries of a request whose models a policy chose, and what becomes of the answers.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::asking::SureAnswers;
use super::chooser::{BoundModels, Choice, Chooser};
use clipper_scheduling::budget::Held;
use clipper_scheduling::output::Output;
use clipper_scheduling::ticket::{Answer, Closed, DefaultReason};
use clipper_selection::bound::Decided;
use clipper_selection::given::{AnswerOf, GivenAnswer, GivenBy};
use clipper_selection::policy::{Combination, Member, Members, Picks};
use clipper_selection::state::Standing;

/// A query of the request, and which of its picks is meant.
pub(super) type Place = (usize, usize);

/// One query of the request.
#[derive(Debug)]
pub(super) struct ChosenQuery {
    /// What stands for its input, in the cache and in feedback.
    pub(super) digest: u64,
    pub(super) picks: Picks,
    pub(super) members: Members,
    pub(super) answers: SmallVec<[Option<Answer>; 1]>,
    pub(super) decided: Option<Decided>,
}

/// What a policy chose for a request.
#[derive(Debug)]
pub(super) struct Chosen {
    chooser: Arc<Chooser>,
    pub(super) models: Arc<BoundModels>,
    standing: Arc<Standing>,
    pub(super) queries: SmallVec<[ChosenQuery; 1]>,
    first_query_id: u64,
    pub(super) uid: i64,
    by: Option<GivenBy>,
}

impl Chosen {
    /// Nothing is answered yet.
    pub(super) fn new(
        chooser: &Arc<Chooser>,
        choice: Choice,
        digests: &[u64],
        (first_query_id, uid): (u64, i64),
        by: Option<GivenBy>,
    ) -> Self {
        let query = |(digest, picks): (&u64, Picks)| ChosenQuery {
            digest: *digest,
            members: smallvec::smallvec![Member::Waiting; picks.len()],
            answers: smallvec::smallvec![None; picks.len()],
            picks,
            decided: None,
        };
        let Choice { models, standing, picks } = choice;
        let queries = digests.iter().zip(picks).map(query).collect();
        let chooser = Arc::clone(chooser);
        Self { chooser, models, standing, queries, first_query_id, uid, by }
    }

    /// A model has answered, or not.
    pub(super) fn arrived(&mut self, (query, member): Place, answer: Answer) {
        let query = &mut self.queries[query];
        query.members[member] = match &answer {
            Answer::Output(output) => self.models.policy.member(output.json()),
            Answer::Default(_) => Member::Failed,
        };
        query.answers[member] = Some(answer);
    }

    /// Decides what can be decided; a policy may want more models asked, each once.
    pub(super) fn combine(&mut self, time_left: Duration) {
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

    /// The answers, where each query had one pick: these came of them.
    pub(super) fn answered(mut self, Closed { answers, held }: Closed) -> SureAnswers {
        for (query, answer) in answers.into_iter().enumerate() {
            self.arrived((query, 0), answer);
        }
        self.combine(Duration::ZERO);
        self.conclude(held)
    }

    /// The answers, which feedback may be about from now on.
    pub(super) fn conclude(self, held: Option<Held>) -> SureAnswers {
        let Self { chooser, models, queries, first_query_id, uid, by, .. } = self;
        let mut answers = SmallVec::with_capacity(queries.len());
        let mut confidences = SmallVec::with_capacity(queries.len());
        for (query_id, mut query) in (first_query_id..).zip(queries) {
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
            answers.push(answer);
            confidences.push(confidence);
        }
        SureAnswers { closed: Closed { answers, held }, confidences }
    }
}

/// The answer of a query, how sure it is, and whose output it is.
fn conclude(models: &BoundModels, query: &mut ChosenQuery) -> (Answer, Option<f64>, AnswerOf) {
    match query.decided.take() {
        Some(Decided::Policy(Combination::Take { member, confidence })) => {
            if let Some(answer @ Some(Answer::Output(_))) = query.answers.get_mut(member)
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
