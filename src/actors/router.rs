//! One per HTTP worker: keeps the worker's `App` actors as the metadata says, and alive.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use tracing::{error, warn};

use super::app::{App, FeedbackLog};
use super::catalog::{CatalogWriter, Published, Subscribe, Subscribed};
use super::data_plane::DataPlane;
use super::directory::ModelEntry;
use super::kept::{Kept, Replaced};
use super::messages::{AppEnded, AppFacts, Redefine, Relink, StopApp};
use super::supervisor::{RestartBudget, Verdict};
use crate::store::projection::{Catalog, Effect};
use clipper_clock as clock;
use clipper_domain::{AppName, AppSpec, ModelName};
use clipper_scheduling::output::Output;

/// The worker's applications by name, read by its request handlers on the same thread.
#[derive(Debug, Clone, Default)]
pub struct Routes(Rc<RefCell<Table>>);

#[derive(Debug, Default)]
struct Table {
    loaded: bool,
    apps: HashMap<AppName, Addr<App>>,
}

/// What a worker knows of an application.
#[derive(Debug)]
pub enum Route {
    /// Send requests here.
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
}

struct Served {
    actor: Addr<App>,
    facts: Arc<AppFacts>,
    linked: Option<Arc<ModelEntry>>,
    budget: RestartBudget,
}

/// The actor.
pub struct Router {
    plane: Arc<DataPlane>,
    catalog: Kept<CatalogWriter>,
    /// The last event that the applications include.
    seq: u64,
    feedback: Arc<dyn FeedbackLog>,
    routes: Routes,
    apps: HashMap<AppName, Served>,
    /// Told once, when the first snapshot is in place.
    on_loaded: Option<Box<dyn FnOnce()>>,
}

impl Router {
    /// A router that fills `routes` and then calls `on_loaded`.
    #[must_use]
    pub fn new(
        plane: Arc<DataPlane>,
        catalog: Kept<CatalogWriter>,
        feedback: Arc<dyn FeedbackLog>,
        routes: Routes,
        on_loaded: impl FnOnce() + 'static,
    ) -> Self {
        let on_loaded: Option<Box<dyn FnOnce()>> = Some(Box::new(on_loaded));
        Self { plane, catalog, seq: 0, feedback, routes, apps: HashMap::new(), on_loaded }
    }

    /// Follows the catalog from its present state on.
    fn follow(&mut self, ctx: &mut Context<Self>) {
        let recipient = ctx.address().recipient();
        let subscribed = self.catalog.send(Subscribe { recipient }).into_actor(self);
        // Nothing published may be handled before the snapshot it follows.
        ctx.wait(subscribed.map(|catalog, router, ctx| match catalog {
            Ok(snapshot) => router.load(&snapshot, ctx),
            // Its successor is followed.
            Err(error) => warn!(%error, "an HTTP worker cannot follow the catalog for now"),
        }));
    }

    /// Makes the applications what the snapshot says, whatever they were.
    fn load(&mut self, snapshot: &Subscribed, ctx: &mut Context<Self>) {
        let catalog: &Catalog = &snapshot.catalog;
        self.seq = snapshot.seq;
        let names: Vec<AppName> = self.apps.keys().cloned().collect();
        for name in names {
            if catalog.app(name.as_str()).is_none() {
                self.stop(&name);
            } else if catalog.linked_models(name.as_str()).next().is_none() {
                self.link(&name, &BTreeSet::new());
            }
        }
        for effect in catalog.boot_effects() {
            self.run(&effect, ctx);
        }
        self.routes.0.borrow_mut().loaded = true;
        if let Some(on_loaded) = self.on_loaded.take() {
            on_loaded();
        }
    }

    fn run(&mut self, effect: &Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::ServeApp(spec) => self.serve(spec, ctx),
            Effect::StopApp(name) => self.stop(name),
            Effect::RouteApp(name, models) => self.link(name, models),
            Effect::ServeModel(_)
            | Effect::KeepReplicas(..)
            | Effect::ReleaseReplicas(_)
            | Effect::StopModel(_)
            | Effect::RouteModel(..) => {}
        }
    }

    fn serve(&mut self, spec: &AppSpec, ctx: &mut Context<Self>) {
        let facts = Arc::new(AppFacts {
            default_output: Output::from_text(spec.default_output.as_bytes())
                .unwrap_or_else(Output::null),
            metrics: self.plane.metrics.app(&spec.name),
            spec: spec.clone(),
        });
        facts.metrics.set_objective(spec.latency_slo.as_duration());
        if let Some(served) = self.apps.get_mut(&spec.name) {
            served.facts = Arc::clone(&facts);
            tell(&served.actor, Redefine(facts));
            return;
        }
        let mut budget = RestartBudget::new(&self.plane.containers);
        budget.started(clock::now());
        let actor = self.start_app(&facts, None, ctx);
        self.apps.insert(spec.name.clone(), Served { actor, facts, linked: None, budget });
    }

    fn start_app(
        &self,
        facts: &Arc<AppFacts>,
        linked: Option<Arc<ModelEntry>>,
        ctx: &mut Context<Self>,
    ) -> Addr<App> {
        let actor = App::new(
            Arc::clone(&self.plane),
            Arc::clone(facts),
            linked,
            Arc::clone(&self.feedback),
            ctx.address(),
        )
        .start();
        self.routes.0.borrow_mut().apps.insert(facts.spec.name.clone(), actor.clone());
        actor
    }

    fn stop(&mut self, name: &AppName) {
        self.routes.0.borrow_mut().apps.remove(name);
        if let Some(served) = self.apps.remove(name) {
            tell(&served.actor, StopApp);
        }
    }

    /// The default policy queries one model; should the tables ever name several, the first.
    fn link(&mut self, name: &AppName, models: &BTreeSet<ModelName>) {
        let Some(served) = self.apps.get_mut(name) else { return };
        served.linked = models.first().map(|model| self.plane.directory.entry(model));
        tell(&served.actor, Relink(served.linked.clone()));
    }

    fn start_again(&mut self, name: &AppName, ctx: &mut Context<Self>) {
        let Some(served) = self.apps.get(name) else { return };
        let actor = self.start_app(&Arc::clone(&served.facts), served.linked.clone(), ctx);
        if let Some(served) = self.apps.get_mut(name) {
            served.budget.started(clock::now());
            served.actor = actor;
        }
    }
}

/// Same thread, so the mailbox is drained before the next message is made unless the actor is dead;
/// then its restart takes the newest definition.
fn tell<M>(app: &Addr<App>, message: M)
where
    M: Message<Result = ()> + Send + 'static,
    App: Handler<M>,
{
    if app.try_send(message).is_err() {
        warn!("an application's actor did not take a change");
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        ctx.add_stream(self.catalog.replacements());
        self.follow(ctx);
    }
}

impl StreamHandler<Replaced> for Router {
    fn handle(&mut self, _: Replaced, ctx: &mut Self::Context) {
        self.follow(ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        error!("there is no catalog writer any more; applications stay as they are");
    }
}

impl Handler<Published> for Router {
    type Result = ();

    fn handle(&mut self, published: Published, ctx: &mut Self::Context) {
        // Of a dead writer, or known by the snapshot of its successor.
        if published.envelope.seq <= self.seq {
            return;
        }
        self.seq = published.envelope.seq;
        for effect in published.effects.iter() {
            self.run(effect, ctx);
        }
    }
}

impl Handler<AppEnded> for Router {
    type Result = ();

    fn handle(&mut self, ended: AppEnded, ctx: &mut Self::Context) {
        let name = ended.name;
        // A stopped application is not in the table any more, or has a new, living actor.
        let Some(served) = self.apps.get_mut(&name).filter(|s| !s.actor.connected()) else {
            return;
        };
        self.plane.metrics.actor_restarted("app");
        match served.budget.died(clock::now()) {
            Verdict::GiveUp => error!(app = %name, "its actor failed too often; register it anew"),
            Verdict::RestartAfter(pause) => {
                warn!(app = %name, panicked = ended.panicked, ?pause, "its actor is started again");
                ctx.run_later(pause, move |router, ctx| router.start_again(&name, ctx));
            }
        }
    }
}
