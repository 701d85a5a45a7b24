//! One per application and HTTP worker, on the worker's own thread: from a request body to queries
//! under way, and feedback.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::warn;

use super::asking::{AskModel, Asked, RequestTimes, due_within};
use super::chooser::Chooser;
use super::chosen::{Chosen, ChosenOne, ChosenSeveral};
use super::ensemble::Ensemble;
use super::feedback::FeedbackQueue;
use super::inputs::{self, AppInputs};
use super::judging::Judge;
use super::messages::{AppChange, AskFacts, Predict, QueryRefused, Recorded, RequestBody, Update};
use super::model_progress::ModelProgress;
use super::prediction::{AppFacts, Prediction, Progress, RequestFacts};
use super::rolling::{COPY_PATIENCE, Copy, Rolled, Rolling};
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::{ModelEntry, ModelHandle};
use crate::supervision::kept::Lifeline;
use clipper_clock as clock;
use clipper_domain::AppSpec;
use clipper_scheduling::bodies::PredictBody;
use clipper_scheduling::share::{AppId, Share};
use clipper_scheduling::ticket::{AnswerBounds, DefaultReason};
use clipper_selection::rollout::split::Drawn;

pub struct App {
    pub(super) plane: Arc<DataPlane>,
    pub(super) facts: Arc<AppFacts>,
    pub(super) share: Share,
    pub(super) linked: Vec<Arc<ModelEntry>>,
    /// Under a policy other than the default one.
    pub(super) chooser: Option<Arc<Chooser>>,
    pub(super) rolling: Option<Arc<Rolling>>,
    /// A copy: one for all workers would have its references counted by all of them.
    pub(super) bounds: Arc<AnswerBounds>,
    feedback: FeedbackQueue,
    _lifeline: Lifeline,
}

impl App {
    /// An application with these links, by name.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        facts: Arc<AppFacts>,
        linked: Vec<Arc<ModelEntry>>,
        feedback: FeedbackQueue,
        lifeline: Lifeline,
    ) -> Self {
        let bounds = Arc::new(plane.answers.clone());
        let mut app = Self {
            share: share(&facts.spec),
            plane,
            facts,
            linked,
            chooser: None,
            rolling: None,
            bounds,
            feedback,
            _lifeline: lifeline,
        };
        app.rechoose();
        app.roll();
        app
    }

    fn predict(&self, predict: Predict, ctx: &Context<Self>) -> Result<Prediction, QueryRefused> {
        let mut claim = predict.claim;
        let mut body = self.body(predict.body)?;
        if predict.key.is_some() {
            body.key = predict.key;
        }
        let chooser = self.chooser.as_ref().filter(|_| body.version.is_none());
        let model = if chooser.is_none() { self.select(body.version.as_deref())? } else { None };
        let rolling = self.rolling.as_ref().filter(|_| body.version.is_none());
        let queries = body.inputs.len();
        if claim.is_limited() {
            claim.admit(queries, clock::now())?;
        }
        let permit = self.plane.admit(queries, claim).ok_or(QueryRefused::Busy)?;
        let first_query_id = self.plane.query_ids(queries);
        let objective = self.facts.spec.latency_slo.as_duration();
        let wanted = predict.within.map_or(objective, |within| within.min(objective));
        let early = Duration::from_micros(self.plane.serving.answer_margin_us);
        let objective = due_within(wanted, early);
        let margin = Duration::from_micros(self.plane.serving.ensemble_margin_us);
        let (arrived, tenant) = (predict.arrived, permit.tenant());
        let class = permit.class(predict.class);
        let is_recorded = predict.trace.as_ref().is_some_and(|trace| trace.is_recorded());
        let traced = predict.explain || self.plane.recent.is_on() || is_recorded;
        let trace = predict.trace.as_ref().map(|trace| trace.carried());
        let request = RequestTimes {
            arrived,
            objective,
            margin,
            first_query_id,
            class,
            tenant,
            traced,
            trace,
        };
        let drawn = Drawn { uid: body.uid, query_id: first_query_id };
        let rolled = rolling.map(|rolling| rolling.rolled(drawn));
        let progress = match (chooser, model) {
            (Some(chooser), _) if !self.linked.is_empty() => {
                self.choose(chooser, body, request, (ctx, rolled))
            }
            (_, Some(model)) => Progress::One(self.ask(AskModel { model, body, request, rolled })),
            _ => Progress::One(ModelProgress::defaults(queries, self.without_model()).into()),
        };
        let of = RequestFacts {
            app: Arc::clone(&self.facts),
            first_query_id,
            arrived,
            objective: wanted,
            explain: predict.explain,
            request_id: predict.request_id,
            trace: predict.trace,
        };
        Ok(Prediction { of, progress, permit })
    }

    pub(super) fn body(&self, body: RequestBody<PredictBody>) -> Result<PredictBody, QueryRefused> {
        match body {
            RequestBody::Parsed(body) => Ok(*body),
            RequestBody::Text(text) => {
                let inputs_max = self.plane.serving.request_inputs_max;
                let input_type = self.facts.spec.input_type;
                inputs::predict_body(&text, &self.facts, &self.linked, inputs_max)
                    .map_err(|error| QueryRefused::Body(error, input_type))
            }
        }
    }

    /// After a change of the rollout or of what it needs.
    fn roll(&mut self) {
        let spec = &self.facts.spec;
        self.rolling = spec.running_rollout().map(|rollout| {
            let outcomes = self.plane.learned.of(&spec.name).rollout(rollout);
            Arc::new(Rolling::new(rollout, &self.plane, &self.facts.metrics, outcomes))
        });
    }

    /// Starts a model's answers. Under a rollout of it another version may answer, the guards look
    /// at what comes, and the other version gets its copy, if there is room for one.
    fn ask(&self, AskModel { model, body, request, rolled }: AskModel) -> Asked {
        let rolled = rolled.filter(|rolled| rolled.is_of(&model.spec.id.name));
        let Some(rolled) = rolled else { return self.answer(model, body, request) };
        let copy = rolled.copy(&body);
        let model = rolled.instead().cloned().unwrap_or(model);
        let asked = self.answer(model, body, request.clone());
        let arrived = request.arrived;
        let copy = copy.map(|Copy { model, body, room }| {
            let objective = request.objective * COPY_PATIENCE;
            let request = RequestTimes { objective, traced: false, trace: None, ..request };
            (self.answer(model, body, request).progress, room)
        });
        Asked { watched: rolled.watch(arrived, copy), ..asked }
    }

    /// After a change of the policy or the links.
    fn rechoose(&mut self) {
        self.chooser = None;
        let spec = &self.facts.spec;
        if spec.has_default_policy() {
            return self.facts.metrics.policy.set_weights(None);
        }
        let learned = self.plane.learned.of(&spec.name);
        let (links, metrics) = (self.linked.clone(), Arc::clone(&self.facts.metrics));
        match Chooser::new(spec.policy_spec(), links, learned, metrics) {
            Ok(chooser) => self.chooser = Some(Arc::new(chooser)),
            // As it was before there were others: a row of Redis may have any name there.
            Err(error) => {
                let app = &spec.name;
                warn!(%app, %error, "its policy cannot be used: the first of its models is asked");
            }
        }
    }

    fn choose(
        &self,
        chooser: &Arc<Chooser>,
        mut body: PredictBody,
        request: RequestTimes,
        (ctx, rolled): (&Context<Self>, Option<Arc<Rolled>>),
    ) -> Progress {
        let choice = chooser.choose(&body, request.first_query_id);
        if body.digests.is_empty() {
            body.digests = body.inputs.iter().map(|input| self.plane.cache.digest(input)).collect();
        }
        let (only, by) = (choice.only(), rolled.as_ref().map(|rolled| rolled.by()));
        let of = (request.first_query_id, body.uid);
        let chosen = Chosen::new(chooser, choice, of, by);
        if let Some(model) = only {
            // As under the default policy, but for what becomes of the answers.
            let (digests, current) = (body.digests.clone(), chosen.0.models.current(model));
            let asked = match current {
                Some(model) => self.ask(AskModel { model, body, request, rolled }),
                None => ModelProgress::defaults(body.inputs.len(), DefaultReason::NoReplica).into(),
            };
            return Progress::Chosen(asked, Box::new(ChosenOne::new(chosen, digests)));
        }
        let app = ctx.address().recipient();
        let several = ChosenSeveral::new(chosen, &body.digests);
        let mut ensemble = Ensemble::new(several, body.inputs, request, (app, rolled));
        ensemble.ask(|message| self.ask(message));
        Progress::Several(Box::new(ensemble))
    }

    /// The default policy's choice: the linked model, in its current version or the one asked for.
    pub(super) fn select(
        &self,
        version: Option<&str>,
    ) -> Result<Option<Arc<ModelHandle>>, QueryRefused> {
        match (version, self.linked.first()) {
            (None, linked) => Ok(linked.and_then(|entry| entry.current())),
            (Some(version), Some(entry)) => match entry.version(version) {
                Some(handle) => Ok(Some(handle)),
                None => Err(QueryRefused::Version(format!(
                    "Requested version: {version} does not exist for model: {}",
                    entry.name()
                ))),
            },
            (Some(version), None) => Err(QueryRefused::Version(format!(
                "Requested version: {version} does not exist: application '{}' is not linked to \
                 a model",
                self.facts.spec.name
            ))),
        }
    }
}

/// Its part of a model that it shares with others.
fn share(spec: &AppSpec) -> Share {
    Share { weight: spec.weight.get(), ..Share::equal(AppId::of(spec.name.as_str())) }
}

impl Actor for App {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
    }
}

impl Handler<Predict> for App {
    type Result = Result<Prediction, QueryRefused>;

    fn handle(&mut self, predict: Predict, ctx: &mut Self::Context) -> Self::Result {
        let prediction = self.predict(predict, ctx);
        if prediction.is_err() {
            self.facts.metrics.rejected();
        }
        prediction
    }
}

impl Handler<Update> for App {
    type Result = ResponseFuture<Result<Recorded, QueryRefused>>;

    fn handle(&mut self, update: Update, ctx: &mut Self::Context) -> Self::Result {
        let spec = &self.facts.spec;
        let feedback = match update.body {
            RequestBody::Parsed(body) => Ok(*body),
            RequestBody::Text(text) => {
                let max = self.plane.serving.request_inputs_max;
                inputs::update_body(&text, &self.facts, &self.linked, max)
                    .map_err(|error| QueryRefused::Body(error, spec.input_type))
            }
        };
        let room = feedback.and_then(|feedback| {
            // More than all the room there is would wait for ever.
            let count = feedback.count().min(self.plane.serving.feedback_queue_max);
            let room = self.feedback.room(count).ok_or(QueryRefused::FeedbackFull);
            let room = room.inspect_err(|_| self.plane.metrics.feedback_refused());
            Ok((room?, feedback))
        });
        let (room, feedback) = match room {
            Ok(found) => found,
            Err(refused) => return Box::pin(std::future::ready(Err(refused))),
        };
        let judge = Judge {
            plane: Arc::clone(&self.plane),
            facts: Arc::clone(&self.facts),
            chooser: self.chooser.clone(),
            feedback: self.feedback.clone(),
            app: ctx.address().recipient(),
        };
        Box::pin(judge.take(room, feedback))
    }
}

impl Handler<AskModel> for App {
    type Result = MessageResult<AskModel>;

    fn handle(&mut self, ask: AskModel, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.ask(ask))
    }
}

impl Handler<AskFacts> for App {
    type Result = MessageResult<AskFacts>;

    fn handle(&mut self, _: AskFacts, _: &mut Self::Context) -> Self::Result {
        let (facts, linked) = (Arc::clone(&self.facts), self.linked.clone());
        MessageResult(AppInputs { facts, linked })
    }
}

impl Handler<AppChange> for App {
    type Result = ();

    fn handle(&mut self, change: AppChange, ctx: &mut Self::Context) {
        match change {
            AppChange::Redefine(facts) => {
                let same = self.facts.spec.policy_spec() == facts.spec.policy_spec();
                self.share = share(&facts.spec);
                self.facts = facts;
                if !same {
                    self.rechoose();
                }
                self.roll();
            }
            AppChange::Relink(linked) => {
                self.linked = linked;
                self.rechoose();
            }
            AppChange::Stop => ctx.stop(),
        }
    }
}
