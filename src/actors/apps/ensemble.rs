//! Queries of one request that several models may answer: what they wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use super::asking::{AskModel, Asked, RequestTimes, SureAnswers};
use super::chosen::{ChosenQuery, ChosenSeveral, Place};
use super::model_progress::ModelProgress;
use super::rolling::Rolled;
use clipper_clock as clock;
use clipper_scheduling::budget::Held;
use clipper_scheduling::parse::{Inputs, PredictBody};
use clipper_scheduling::ticket::{Closed, DefaultReason, Excess};
use clipper_selection::policy::Member;

/// Some queries of the request, asked of one model.
#[derive(Debug)]
struct AskedModel {
    places: Vec<Place>,
    model: Asked,
}

/// The queries of a request, while models are asked.
#[derive(Debug)]
pub(super) struct Ensemble {
    several: ChosenSeveral,
    inputs: Inputs,
    asked: Vec<AskedModel>,
    request: RequestTimes,
    held: Vec<Held>,
    app: Recipient<AskModel>,
    /// A rollout of one of the models.
    rolled: Option<Arc<Rolled>>,
}

impl Ensemble {
    /// Nothing is asked yet.
    pub(super) fn new(
        several: ChosenSeveral,
        inputs: Inputs,
        request: RequestTimes,
        (app, rolled): (Recipient<AskModel>, Option<Arc<Rolled>>),
    ) -> Self {
        let (asked, held) = (Vec::new(), Vec::new());
        Self { several, inputs, asked, request, held, app, rolled }
    }

    /// Asks what was picked; `ask` starts a model's answers.
    pub(super) fn ask(&mut self, ask: impl Fn(AskModel) -> Asked) {
        for (places, message) in self.messages(self.unasked()) {
            let asked = message.map_or_else(|| nobody(&places), &ask);
            self.asked.push(AskedModel { places, model: asked });
        }
    }

    /// The picks that nobody was asked for.
    fn unasked(&self) -> BTreeMap<usize, Vec<Place>> {
        let mut by_arm = BTreeMap::<usize, Vec<Place>>::new();
        for (index, query) in self.several.queries.iter().enumerate() {
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
    fn messages(&self, by_arm: BTreeMap<usize, Vec<Place>>) -> Vec<(Vec<Place>, Option<AskModel>)> {
        let message = |(arm, places): (usize, Vec<Place>)| {
            let message = self.several.chosen.models.current(arm).map(|model| {
                let queries = || places.iter().map(|(query, _)| *query);
                let inputs = queries().map(|query| self.inputs[query].clone()).collect();
                let digests = queries().map(|query| self.several.queries[query].digest).collect();
                let body = PredictBody {
                    inputs,
                    digests,
                    version: None,
                    uid: self.several.chosen.uid,
                    key: None,
                };
                let (mut request, rolled) = (self.request.clone(), self.rolled.clone());
                if let Some(trace) = &mut request.trace {
                    trace.spans = queries().take_while(|query| *query < trace.spans).count();
                }
                AskModel { model, body, request, rolled }
            });
            (places, message)
        };
        by_arm.into_iter().map(message).collect()
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
            self.several.combine(if in_time { left } else { Duration::ZERO });
            let unasked = self.unasked();
            if unasked.is_empty() {
                // All of it, until it is known what the one answer takes of the sum.
                let held = self.held.into_iter().reduce(|mut all, part| {
                    all.absorb(part);
                    all
                });
                return Ok(self.several.conclude(held));
            }
            for (places, message) in self.messages(unasked) {
                let asked = match message {
                    Some(message) => self.app.send(message).await.ok(),
                    None => None,
                };
                let asked = asked.unwrap_or_else(|| nobody(&places));
                self.asked.push(AskedModel { places, model: asked });
            }
        }
    }

    /// Waits for every model that was asked, until the deadline. Where somebody has answered each
    /// query, a bit less: the answer has to be on its way by then. Whether all have answered.
    async fn arrived_in_time(&self) -> bool {
        let deadline = self.request.deadline();
        let may_leave_out = self.several.queries.iter().any(|query| query.picks.len() > 1);
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
        let mut answered: Vec<bool> = self.several.queries.iter().map(has_output).collect();
        for asked in &self.asked {
            for (index, (query, _)) in asked.places.iter().enumerate() {
                answered[*query] |= asked.model.progress.has_output(index);
            }
        }
        answered.into_iter().all(|it| it)
    }

    /// Until every model that was asked has answered.
    async fn arrived(&self) {
        for asked in &self.asked {
            if let ModelProgress::Waiting { ticket, .. } = &asked.model.progress {
                ticket.filled().await;
            }
        }
    }

    /// Takes what has arrived; what has not is late.
    fn collect(&mut self) -> Result<(), Excess> {
        for AskedModel { places, mut model } in std::mem::take(&mut self.asked) {
            let traced = model.traced.take();
            let Closed { answers, held } = model.close()?;
            self.held.extend(held);
            for (index, (place, answer)) in places.into_iter().zip(answers).enumerate() {
                let of = traced.as_ref();
                let of = of.and_then(|of| Some((&of.model, of.queries.get(index)?)));
                self.several.arrived(place, answer, of);
            }
        }
        Ok(())
    }
}

fn nobody(places: &[Place]) -> Asked {
    ModelProgress::defaults(places.len(), DefaultReason::NoReplica).into()
}
