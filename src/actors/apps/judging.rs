//! What feedback is about, and what it teaches: on the worker's thread, a slice at a time, so that
//! predictions do not wait for a long list.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::sync::oneshot;

use super::asking::{AskModel, RequestTimes};
use super::chooser::{AboutInput, Chooser};
use super::feedback::{FeedbackQueue, Room};
use super::messages::{FeedbackRefused, FeedbackTaken, QueryRefused, Recorded};
use super::prediction::AppFacts;
use crate::actors::plane::data_plane::DataPlane;
use crate::metrics::FeedbackEnd;
use clipper_clock as clock;
use clipper_scheduling::bodies::{
    Digests, Feedback, FeedbackSays, FeedbackSubject, PredictBody, UpdateBody,
};
use clipper_scheduling::quota::Claim;
use clipper_scheduling::share::{Class, Tenant};
use clipper_scheduling::ticket::Answer;
use clipper_selection::loss::Truth;
use clipper_selection::policy::Member;
use clipper_selection::state::Contribution;
use clipper_selection::window::{Subject, Unmatched};

/// Judged without letting others have the thread.
const SLICE: usize = 64;

/// Whose feedback it is, and what it teaches.
type Taught = (i64, Contribution);

/// What is needed to judge feedback of one application.
pub(super) struct Judge {
    pub(super) plane: Arc<DataPlane>,
    pub(super) facts: Arc<AppFacts>,
    /// Under the default policy none.
    pub(super) chooser: Option<Arc<Chooser>>,
    pub(super) feedback: FeedbackQueue,
    pub(super) app: Recipient<AskModel>,
}

impl Judge {
    /// Judges all feedback of a request, and sends on what it teaches.
    ///
    /// # Errors
    /// It is one, and refused.
    pub(super) async fn take(
        self,
        room: Room,
        feedback: Feedback,
    ) -> Result<Recorded, QueryRefused> {
        let Some(chooser) = &self.chooser else { return Ok(self.remember(room, feedback)) };
        let (items, is_list) = match feedback {
            Feedback::One(item) => (vec![Ok(item)], false),
            Feedback::Several(items) => (items, true),
        };
        while !chooser.look_up() {
            tokio::task::yield_now().await;
        }
        let mut taken = FeedbackTaken::default();
        let mut taught = Vec::with_capacity(items.len());
        let mut again = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let judged = match item {
                Ok(item) => self.judge(chooser, item, &mut again),
                Err(error) => Err(FeedbackRefused::Body(error)),
            };
            match judged {
                Ok(Some(Ok(lesson))) => taught.push(lesson),
                Ok(Some(Err(why))) => self.count(&mut taken, end(why)),
                // To be asked about.
                Ok(None) => {}
                Err(FeedbackRefused::Label(expected)) if !is_list => {
                    return Err(QueryRefused::Label(expected));
                }
                Err(why) => taken.refused.push((index, why)),
            }
            if index % SLICE == SLICE - 1 {
                tokio::task::yield_now().await;
            }
        }
        let judge = &self;
        let asked = again.into_iter().map(|(about, truth)| async move {
            let lesson = judge.ask_again(chooser, &about, &truth).await;
            lesson.map(|lesson| (about.uid, lesson))
        });
        for lesson in futures_util::future::join_all(asked).await {
            match lesson {
                Some(lesson) => taught.push(lesson),
                None => self.count(&mut taken, FeedbackEnd::Unknown),
            }
        }
        for (_, lesson) in &taught {
            self.count(&mut taken, FeedbackEnd::Learned);
            for (model, sums) in &lesson.arms {
                self.facts.metrics.policy.judged(model, sums.loss());
            }
        }
        let kept = if taught.is_empty() {
            already_kept()
        } else {
            self.feedback.observe(room, &self.facts.spec.name, taught)
        };
        Ok(Recorded { kept, taken: is_list.then(|| Box::new(taken)) })
    }

    /// The default policy learns nothing from a label; it keeps that the user is known.
    fn remember(&self, room: Room, feedback: Feedback) -> Recorded {
        let spec = &self.facts.spec;
        let uid = |item: &UpdateBody| match item.about {
            FeedbackSubject::Input(uid, _) => Some(uid),
            FeedbackSubject::Query(_) => None,
        };
        let (uids, taken) = match feedback {
            Feedback::One(item) => (Vec::from_iter(uid(&item)), None),
            Feedback::Several(items) => {
                let (mut uids, mut taken) = (Vec::new(), FeedbackTaken::default());
                for (index, item) in items.into_iter().enumerate() {
                    match item {
                        Ok(item) => uids.extend(uid(&item)),
                        Err(error) => taken.refused.push((index, FeedbackRefused::Body(error))),
                    }
                }
                taken.ended[FeedbackEnd::Learned as usize] = uids.len();
                (uids, Some(Box::new(taken)))
            }
        };
        if uids.is_empty() {
            return Recorded { kept: already_kept(), taken };
        }
        Recorded { kept: self.feedback.learn(room, &spec.name, uids, &spec.default_output), taken }
    }

    fn count(&self, taken: &mut FeedbackTaken, end: FeedbackEnd) {
        taken.ended[end as usize] += 1;
        self.facts.metrics.policy.feedback(end);
    }

    /// What one feedback teaches, or why nothing; `None` where the models are to be asked again.
    fn judge(
        &self,
        chooser: &Chooser,
        UpdateBody { about, told }: UpdateBody,
        again: &mut Vec<(AboutInput, Truth)>,
    ) -> Result<Option<Result<Taught, Unmatched>>, FeedbackRefused> {
        let truth = match told {
            FeedbackSays::Loss(loss) => Truth::Loss(loss),
            FeedbackSays::Label(label) => {
                let truth = chooser.truth(&label);
                truth.ok_or_else(|| FeedbackRefused::Label(chooser.labels()))?
            }
        };
        let cache = &self.plane.cache;
        let about = match about {
            FeedbackSubject::Query(id) => {
                return Ok(Some(chooser.judge(Subject::Query(id), &truth)));
            }
            FeedbackSubject::Input(uid, input) => {
                AboutInput { uid, digest: cache.digest(&input), input }
            }
        };
        let why = match chooser.judge(Subject::Input(about.digest), &truth) {
            Ok((_, taught)) => return Ok(Some(Ok((about.uid, taught)))),
            Err(why) => why,
        };
        if let Some(taught) = chooser.judge_cached(cache, &about, &truth) {
            return Ok(Some(Ok((about.uid, taught))));
        }
        if why == Unmatched::Double || !chooser.learns_from_all() {
            return Ok(Some(Err(why)));
        }
        again.push((about, truth));
        Ok(None)
    }

    /// What feedback teaches about an input that nothing is known of: the models are asked, within
    /// a budget.
    async fn ask_again(
        &self,
        chooser: &Chooser,
        AboutInput { uid, digest, input }: &AboutInput,
        truth: &Truth,
    ) -> Option<Contribution> {
        let (uid, digest) = (*uid, *digest);
        let _budget = self.plane.feedback_asks.try_acquire().ok()?;
        let bound = chooser.policy();
        let models: Vec<_> = bound.currents().collect();
        let _permit = self.plane.admit(models.len(), Claim::default())?;
        let request = RequestTimes {
            arrived: clock::now(),
            objective: self.facts.spec.latency_slo.as_duration(),
            margin: Duration::ZERO,
            first_query_id: self.plane.query_ids(1),
            class: Class::Normal,
            tenant: Tenant::NOBODY,
            traced: false,
            trace: None,
        };
        let answers = models.into_iter().map(|model| (model, request.clone()));
        let answers = answers.map(|(model, request)| async move {
            let inputs = std::iter::once(input.clone()).collect();
            let body = PredictBody {
                inputs,
                digests: Digests::from_elem(digest, 1),
                uid,
                version: None,
                key: None,
            };
            let (model, rolled) = (model?, None);
            let asked = self.app.send(AskModel { model, body, request, rolled }).await.ok()?;
            asked.closed().await.ok()?.answers.into_iter().next()
        });
        let answers = futures_util::future::join_all(answers).await;
        let member = |answer| match answer {
            Some(Answer::Output(output)) => bound.policy.member(output.json()),
            _ => Member::Failed,
        };
        bound.observe_all(uid, answers.into_iter().map(member).collect(), truth)
    }
}

fn end(why: Unmatched) -> FeedbackEnd {
    match why {
        Unmatched::Late => FeedbackEnd::Late,
        Unmatched::Double => FeedbackEnd::Double,
        Unmatched::Unknown => FeedbackEnd::Unknown,
    }
}

fn already_kept() -> oneshot::Receiver<()> {
    let (kept, told) = oneshot::channel();
    // The receiver is there.
    let _ = kept.send(());
    told
}
