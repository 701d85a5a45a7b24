//! One per HTTP worker: keeps the worker's `App` actors as the metadata says, and alive.
//!
//! Supervision: applications go on while a router that has panicked is replaced. Its successor
//! takes them over, follows the catalog from its state, and does what is missing.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use rustc_hash::FxHashMap;
use tracing::debug;

use super::app::App;
use super::feedback::FeedbackQueue;
use super::messages::AppChange;
use super::prediction::AppFacts;
use crate::actors::catalog::follower::{self, Followed};
use crate::actors::catalog::writer::CatalogWriter;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelEntry;
use crate::store::projection::Effect;
use crate::store::served as store;
use crate::supervision::budget::RestartBudget;
use crate::supervision::control::Outbox;
use crate::supervision::kept::{Child, Kept, Lifeline, Role};
use clipper_domain::{
    AppName, AppSpec, DEFAULT_POLICY, InputType, LatencySlo, Limits, ModelName, OnModelError,
    PolicyParameters, Weight,
};
use clipper_scheduling::output::Output;
use clipper_scheduling::pace::OwnPaces;
use clipper_scheduling::quota::Quota;
use clipper_selection::sticky::Sticky;

/// The worker's applications by name, read by its request handlers on the same thread.
#[derive(Debug, Clone, Default)]
pub struct Routes(Rc<RefCell<RouteTable>>);

#[derive(Debug, Default)]
struct RouteTable {
    loaded: bool,
    /// By names that operators choose, however strangers ask for them.
    apps: FxHashMap<AppName, Addr<App>>,
    /// Of applications whose policy goes by a header, its name.
    key_headers: HashMap<AppName, Arc<str>>,
    /// Of applications that have limits.
    quotas: HashMap<AppName, Arc<Quota>>,
    /// What stands for models that are queried by themselves, once they have been.
    of_models: HashMap<ModelName, Addr<App>>,
}

/// What a worker knows of an application.
#[derive(Debug)]
pub enum Route {
    To(Addr<App>),
    /// There is none of this name.
    Unknown,
    /// The worker has not heard of any yet.
    Starting,
}

impl Routes {
    /// Where requests for `app` go.
    #[must_use]
    pub fn of(&self, app: &str) -> Route {
        let table = self.0.borrow();
        match table.apps.get(app) {
            Some(addr) => Route::To(addr.clone()),
            None if table.loaded => Route::Unknown,
            None => Route::Starting,
        }
    }

    /// What a request for `app` says in the header that its policy goes by, if it does.
    pub fn key<'r>(
        &self,
        app: &str,
        header: impl FnOnce(&str) -> Option<&'r [u8]>,
    ) -> Option<String> {
        let table = self.0.borrow();
        let value = header(table.key_headers.get(app)?)?;
        (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
    }

    /// What limits all clients of `app`, if anything does.
    #[must_use]
    pub fn quota(&self, app: &str) -> Option<Arc<Quota>> {
        self.0.borrow().quotas.get(app).cloned()
    }

    fn set_quota(&self, app: &AppName, quota: Option<Arc<Quota>>) {
        let quotas = &mut self.0.borrow_mut().quotas;
        match quota {
            Some(quota) => drop(quotas.insert(app.clone(), quota)),
            None => drop(quotas.remove(app)),
        }
    }

    fn set_key_header(&self, app: &AppName, header: Option<Arc<str>>) {
        let headers = &mut self.0.borrow_mut().key_headers;
        match header {
            Some(header) => drop(headers.insert(app.clone(), header)),
            None => drop(headers.remove(app)),
        }
    }

    /// Where queries for a model by itself go, if some have gone there before.
    #[must_use]
    pub fn of_model(&self, model: &ModelName) -> Option<Addr<App>> {
        self.0.borrow().of_models.get(model).filter(|app| app.connected()).cloned()
    }
}

/// The application that stands for a model by itself on this worker, started if it does not run.
/// Sender: the HTTP handler, on the same thread. Reply: none where the model's name cannot be one.
#[derive(Debug, Message)]
#[rtype(result = "Option<Addr<App>>")]
pub struct AppOfModel(pub ModelName, pub InputType);

/// An application as its actor is started with it, or told of it.
#[derive(Debug)]
struct ServedApp {
    facts: Arc<AppFacts>,
    linked: Vec<Arc<ModelEntry>>,
    /// To the actor that lives now.
    changes: Option<Outbox<AppChange>>,
}

impl ServedApp {
    /// One that is dead takes the newest definition when it is started again.
    fn tell(&self, change: AppChange) {
        let told = self.changes.as_ref().map(|changes| changes.tell(change));
        if !matches!(told, Some(Ok(()))) {
            debug!(app = %self.facts.spec.name, "its actor is not there to take a change");
        }
    }
}

/// An application's actor, and what it is started with.
struct RunningApp {
    served: Rc<RefCell<ServedApp>>,
    /// Supervises it as long as it is held.
    _actor: Kept<App>,
}

/// Starts an application's actor.
struct AppChild {
    plane: Arc<DataPlane>,
    feedback: FeedbackQueue,
    routes: Routes,
    served: Rc<RefCell<ServedApp>>,
}

impl Child for AppChild {
    type Actor = App;

    fn start(&mut self, lifeline: Lifeline) -> Addr<App> {
        let mut served = self.served.borrow_mut();
        let (facts, linked) = (Arc::clone(&served.facts), served.linked.clone());
        let name = facts.spec.name.clone();
        let (plane, feedback) = (Arc::clone(&self.plane), self.feedback.clone());
        let actor = App::new(plane, facts, linked, feedback, lifeline).start();
        served.changes = Some(Outbox::new(actor.clone().recipient()));
        self.routes.0.borrow_mut().apps.insert(name, actor.clone());
        actor
    }
}

/// What a router that has ended leaves to its successor.
#[derive(Default)]
struct RouterInheritance {
    apps: HashMap<AppName, RunningApp>,
    /// Told once, when the first snapshot is in place.
    on_loaded: Option<Box<dyn FnOnce()>>,
}

pub struct Router {
    plane: Arc<DataPlane>,
    catalog: Kept<CatalogWriter>,
    feedback: FeedbackQueue,
    routes: Routes,
    keeps: RouterInheritance,
    left: Rc<RefCell<RouterInheritance>>,
    _lifeline: Lifeline,
}

impl Router {
    /// Starts one on this thread that fills `routes` and then calls `on_loaded`.
    #[must_use]
    pub fn keep(
        plane: Arc<DataPlane>,
        catalog: Kept<CatalogWriter>,
        feedback: FeedbackQueue,
        routes: Routes,
        on_loaded: impl FnOnce() + 'static,
    ) -> Kept<Self> {
        let on_loaded: Option<Box<dyn FnOnce()>> = Some(Box::new(on_loaded));
        let left = Rc::new(RefCell::new(RouterInheritance { apps: HashMap::new(), on_loaded }));
        let budget = RestartBudget::for_actor(&plane.containers);
        Kept::start("router", Arc::clone(&plane.metrics), budget, move |lifeline| Self {
            plane: Arc::clone(&plane),
            catalog: catalog.clone(),
            feedback: feedback.clone(),
            routes: routes.clone(),
            keeps: left.take(),
            left: Rc::clone(&left),
            _lifeline: lifeline,
        })
    }

    /// What this worker serves; models are not its business.
    fn running(&self) -> store::Served {
        let mut running = store::Served::default();
        for (name, app) in &self.keeps.apps {
            let served = app.served.borrow();
            running.apps.insert(name.clone(), served.facts.spec.clone());
            if !served.linked.is_empty() {
                let models = served.linked.iter().map(|entry| entry.name().clone());
                running.links.insert(name.clone(), models.collect());
            }
        }
        running
    }

    fn run(&mut self, effect: &Effect) {
        match effect {
            Effect::ServeApp(spec) => self.serve(spec),
            Effect::StopApp(name) => self.stop(name),
            Effect::RouteApp(name, models) => self.link(name, models),
            // Its last address gone, it ends. Another version may go on: the next query starts it.
            Effect::StopModel(id) => drop(self.routes.0.borrow_mut().of_models.remove(&id.name)),
            // One place forgets for all workers.
            Effect::ForgetMetrics(_)
            | Effect::ForgetModelMetrics(_)
            | Effect::ForgetPolicyState(_)
            | Effect::KeysChanged
            | Effect::ServeModel(_)
            | Effect::KeepReplicas(..)
            | Effect::ReleaseReplicas(_)
            | Effect::RouteModel(..) => {}
        }
    }

    fn serve(&mut self, spec: &AppSpec) {
        let (mut key_field, mut key_header) = (None, None);
        match Sticky::of(&spec.policy_spec()) {
            Sticky::Field(name) => key_field = Some(Arc::from(name)),
            Sticky::Header(name) => key_header = Some(Arc::from(name)),
            Sticky::None | Sticky::User => {}
        }
        self.routes.set_key_header(&spec.name, key_header);
        let facts = Arc::new(AppFacts {
            default_output: Output::from_text(spec.default_output.as_bytes())
                .unwrap_or_else(Output::null),
            metrics: self.plane.metrics.app(&spec.name),
            kept: OwnPaces::default(),
            policy: Arc::from(spec.policy.as_str()),
            key_field,
            spec: spec.clone(),
        });
        facts.metrics.set_objective(spec.latency_slo.as_duration());
        self.routes.set_quota(&spec.name, facts.metrics.limit(&spec.name, spec.limits));
        if let Some(app) = self.keeps.apps.get(&spec.name) {
            let mut served = app.served.borrow_mut();
            served.facts = Arc::clone(&facts);
            served.tell(AppChange::Redefine(facts));
            return;
        }
        let role = Role {
            actor: "app",
            of: spec.name.to_string(),
            remedy: "register the application anew",
        };
        let served = Rc::new(RefCell::new(ServedApp { facts, linked: Vec::new(), changes: None }));
        let child = AppChild {
            plane: Arc::clone(&self.plane),
            feedback: self.feedback.clone(),
            routes: self.routes.clone(),
            served: Rc::clone(&served),
        };
        let budget = RestartBudget::for_actor(&self.plane.containers);
        let actor = Kept::supervise(role, Arc::clone(&self.plane.metrics), budget, child);
        self.keeps.apps.insert(spec.name.clone(), RunningApp { served, _actor: actor });
    }

    fn stop(&mut self, name: &AppName) {
        self.routes.0.borrow_mut().apps.remove(name);
        self.routes.set_key_header(name, None);
        self.routes.set_quota(name, None);
        if let Some(app) = self.keeps.apps.remove(name) {
            app.served.borrow().tell(AppChange::Stop);
        }
    }

    /// The application of a model by itself: its name, a default objective, no default output.
    fn facts_of(&self, model: &ModelName, input_type: InputType) -> Option<AppFacts> {
        let objective = i64::from(self.plane.serving.direct_slo_micros);
        Some(AppFacts {
            spec: AppSpec {
                name: AppName::parse(model.as_str()).ok()?,
                input_type,
                policy: DEFAULT_POLICY.to_owned(),
                policy_parameters: PolicyParameters::new(),
                default_output: "null".to_owned(),
                latency_slo: LatencySlo::from_micros(objective)?,
                on_model_error: OnModelError::Error,
                cache: true,
                weight: Weight::default(),
                limits: Limits::default(),
                rollout: None,
            },
            default_output: Output::null(),
            // Not among those of applications: what it does is counted with the model.
            metrics: Arc::default(),
            kept: OwnPaces::default(),
            policy: Arc::from(DEFAULT_POLICY),
            key_field: None,
        })
    }

    fn link(&mut self, name: &AppName, models: &BTreeSet<ModelName>) {
        let Some(app) = self.keeps.apps.get(name) else { return };
        let mut served = app.served.borrow_mut();
        served.linked = models.iter().map(|model| self.plane.directory.entry(model)).collect();
        served.tell(AppChange::Relink(served.linked.clone()));
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        // That the first state is there is seen by what it does.
        drop(follower::follow(self.catalog.clone(), ctx.address().recipient()));
    }
}

/// Also where it panics, before its parent hears of its end.
impl Drop for Router {
    fn drop(&mut self) {
        self.left.replace(std::mem::take(&mut self.keeps));
    }
}

impl Handler<Followed> for Router {
    type Result = ();

    fn handle(&mut self, followed: Followed, _: &mut Self::Context) {
        let is_state = followed.is_state();
        for effect in followed.effects(|| self.running()).iter() {
            self.run(effect);
        }
        if is_state {
            self.routes.0.borrow_mut().loaded = true;
            if let Some(on_loaded) = self.keeps.on_loaded.take() {
                on_loaded();
            }
        }
    }
}

impl Handler<AppOfModel> for Router {
    type Result = Option<Addr<App>>;

    fn handle(&mut self, asked: AppOfModel, _: &mut Self::Context) -> Self::Result {
        let AppOfModel(model, input_type) = asked;
        // Asked for by several at the same time.
        if let Some(app) = self.routes.of_model(&model) {
            return Some(app);
        }
        let facts = Arc::new(self.facts_of(&model, input_type)?);
        let linked = vec![self.plane.directory.entry(&model)];
        let (plane, feedback) = (Arc::clone(&self.plane), self.feedback.clone());
        // One that dies is started again by the next query.
        let app = App::new(plane, facts, linked, feedback, Lifeline::default()).start();
        self.routes.0.borrow_mut().of_models.insert(model, app.clone());
        Some(app)
    }
}
