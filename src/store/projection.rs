//! The state that the journal's events add up to, and the two pure functions around it.
//!
//! [`Catalog::decide`] turns a command into events or a refusal; [`Catalog::apply`] folds one event
//! in and says what has to change in the running system. Neither does IO, reads a clock or draws a
//! random number.

mod keys;
mod links;
mod parts;
mod policy;
mod replicas;
mod rollout;
mod signatures;
pub mod turn;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::links::Links;
use super::as_list::{self, Models};
use super::event::Event;
use clipper_domain::{
    AccessKey, AppName, AppSpec, Command, CommandError, Deployment, KeyName, ModelId, ModelName,
    ModelSpec, ModelVersion, OldReplicas, Replicas,
};
use clipper_selection::parameters::MODELS_MAX;

/// What an applied event asks of the actors. Run only after the event is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start this application's actors, or give running ones the new definition.
    ServeApp(AppSpec),
    /// Stop serving it at once.
    StopApp(AppName),
    /// Start this model version's actors, or give running ones the new definition.
    ServeModel(ModelSpec),
    /// Keep processes of this model version alive.
    KeepReplicas(ModelId, Replicas),
    /// Keep no processes of this model version alive any more; it stays registered.
    ReleaseReplicas(ModelId),
    /// Drop its replicas, its queue and its cache entries.
    StopModel(ModelId),
    /// Queries to the model go to this version from now on (`None`: to no version).
    RouteModel(ModelName, Option<ModelVersion>),
    /// The application's queries go to these models from now on.
    /// These are at most as many as a policy can choose among, however many are linked.
    RouteApp(AppName, BTreeSet<ModelName>),
    /// Forget the series of an application that is not there any more.
    ForgetMetrics(AppName),
    /// Forget the series of a model version that is not there any more.
    ForgetModelMetrics(ModelId),
    /// Forget what users' feedback left with an application that is not there any more.
    ForgetPolicyState(AppName),
    /// Others may do something from now on, or not any more.
    KeysChanged,
}

/// The metadata: applications, model versions, current versions, links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    apps: BTreeMap<AppName, AppSpec>,
    #[serde(with = "as_list::models")]
    models: Models,
    current: BTreeMap<ModelName, ModelVersion>,
    links: Links,
    /// Absent in what older releases wrote.
    #[serde(default, with = "as_list::replicas", skip_serializing_if = "BTreeMap::is_empty")]
    replicas: BTreeMap<ModelId, Replicas>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<KeyName, AccessKey>,
}

impl Catalog {
    /// All applications, by name.
    pub fn apps(&self) -> impl Iterator<Item = &AppSpec> {
        self.apps.values()
    }

    #[must_use]
    pub fn app(&self, name: &str) -> Option<&AppSpec> {
        self.apps.get(name)
    }

    /// The models an application is linked to; empty for an unknown application.
    pub fn linked_models(&self, app: &str) -> impl Iterator<Item = &ModelName> {
        self.links.of_app(app)
    }

    /// The models that an application's queries can go to: of more than a policy can choose
    /// among, which only rows of Redis can link, the first by name.
    pub fn queried_models(&self, app: &str) -> impl Iterator<Item = &ModelName> {
        self.links.of_app(app).take(MODELS_MAX)
    }

    /// The applications that are linked to a model.
    pub fn apps_of<'c>(&'c self, model: &'c ModelName) -> impl Iterator<Item = &'c AppName> {
        self.links.of_model(model)
    }

    /// About how much there is, for what is done about all of it: applications, models, links.
    #[must_use]
    pub fn size(&self) -> usize {
        self.apps.len() + self.models.len() + self.links.len()
    }

    /// All versions of one model.
    pub fn versions_of(&self, model: &str) -> impl Iterator<Item = &ModelSpec> {
        self.models.get(model).into_iter().flat_map(|versions| versions.values().map(AsRef::as_ref))
    }

    /// All model versions, by name and version.
    pub fn models(&self) -> impl Iterator<Item = &ModelSpec> {
        self.models.values().flat_map(BTreeMap::values).map(AsRef::as_ref)
    }

    #[must_use]
    pub fn model(&self, name: &str, version: &str) -> Option<&ModelSpec> {
        self.models.get(name)?.get(version).map(AsRef::as_ref)
    }

    /// What the server keeps alive of model versions that were deployed.
    pub fn replicas(&self) -> impl Iterator<Item = (&ModelId, &Replicas)> {
        self.replicas.iter()
    }

    /// What the server keeps alive of one model version.
    #[must_use]
    pub fn replicas_of(&self, id: &ModelId) -> Option<&Replicas> {
        self.replicas.get(id)
    }

    /// The current version of a model.
    #[must_use]
    pub fn current_version(&self, model: &str) -> Option<&ModelVersion> {
        self.current.get(model)
    }

    /// Every model's current version.
    pub fn current_versions(&self) -> impl Iterator<Item = (&ModelName, &ModelVersion)> {
        self.current.iter()
    }

    /// Decides what `command` makes happen, without changing anything.
    ///
    /// # Errors
    /// Why the command is refused, in the original's words.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, CommandError> {
        match command {
            Command::AddApp(app) => {
                if self.apps.contains_key(&app.name) {
                    return Err(CommandError::AppExists(app.name.clone()));
                }
                Self::check_policy(&app.name, &app.policy_spec())?;
                Ok(vec![Event::AppAdded { app: app.clone() }])
            }
            Command::DeleteApp(name) => {
                if !self.apps.contains_key(name) {
                    return Err(CommandError::AppUnknown(name.clone()));
                }
                Ok(vec![Event::AppDeleted { name: name.clone() }])
            }
            Command::UpdateApp(update) => {
                let Some(app) = self.apps.get(&update.name) else {
                    return Err(CommandError::AppUnknown(update.name.clone()));
                };
                let changed = update.applied_to(app);
                let changed = (changed != *app).then_some(Event::AppChanged { app: changed });
                let policy = update.policy.as_ref().map(|p| self.decide_policy(&app.name, p));
                Ok(changed.into_iter().chain(policy.transpose()?.into_iter().flatten()).collect())
            }
            Command::AddModel(model) => {
                self.check_new_version(model)?;
                Ok(vec![
                    Event::ModelAdded { model: model.clone() },
                    Event::ModelVersionSet { id: model.id.clone() },
                ])
            }
            Command::StageModel(model) => {
                self.check_new_version(model)?;
                Ok(vec![Event::ModelAdded { model: model.clone() }])
            }
            Command::UpdateModel(update) => self.decide_update_model(update),
            Command::SetModelVersion(id) => self.decide_set_version(id),
            Command::UnsetModelVersion(model) => self.decide_unset_version(model),
            Command::DeleteVersionedModel(id) => self.decide_delete_version(id),
            Command::DeleteUnqueriedModel(id) => {
                if self.current.get(&id.name) == Some(&id.version)
                    && let Some(app) = self.apps_of(&id.name).next()
                {
                    let (id, app) = (id.clone(), app.clone());
                    return Err(CommandError::VersionQueried { id, app });
                }
                self.decide_delete_version(id)
            }
            Command::AddModelLinks { app, models } => self.decide_link(app, models, false),
            Command::LinkAbsentModels { app, models } => self.decide_link(app, models, true),
            Command::DeleteModelLinks { app, models } => self.decide_unlink(app, models),
            Command::SetPolicy { app, policy } => self.decide_policy(app, policy),
            Command::StartRollout { app, rollout } => self.decide_rollout_start(app, rollout),
            Command::StepRollout { app, id, step } => self.decide_rollout_step(app, *id, *step),
            Command::EndRollout { app, id, end } => self.decide_rollout_end(app, *id, end),
            Command::Deploy(deployment) => self.decide_deploy(deployment),
            Command::SetReplicas { id, count } => self.decide_replicas(id, *count),
            Command::KeepReplicas { id, replicas } => self.decide_keep(id, replicas),
            Command::ReleaseReplicas(id) => self.decide_release(id),
            Command::Apply(plan) => self.decide_all(plan.commands()),
            Command::AddKey { key, admin_elsewhere } => self.decide_key_add(key, *admin_elsewhere),
            Command::RotateKey { name, known_by, hash, previous_until_ms } => {
                self.decide_key_rotate(name, (*known_by, *hash), *previous_until_ms)
            }
            Command::LimitKey { name, limits } => self.decide_key_limit(name, *limits),
            Command::RevokeKey { name, admin_elsewhere } => {
                self.decide_key_revoke(name, *admin_elsewhere)
            }
        }
    }

    fn check_new_version(&self, model: &ModelSpec) -> Result<(), CommandError> {
        if self.model_by_id(&model.id).is_some() {
            return Err(CommandError::ModelExists(model.id.clone()));
        }
        self.check_linked_apps_take(model)
    }

    fn decide_deploy(&self, deployment: &Deployment) -> Result<Vec<Event>, CommandError> {
        let Deployment { model, replicas, app, new_app, app_update, make_current, .. } = deployment;
        let (id, name) = (&model.id, &model.id.name);
        let known = self.apps.get(app);
        let Some(spec) = known.or(new_app.as_ref()) else {
            return Err(CommandError::LinkUnknownApp(app.clone()));
        };
        self.check_deployable(deployment, spec)?;
        let mut events = Vec::new();
        if known.is_none() {
            events.push(Event::AppAdded { app: spec.clone() });
        } else if let Some(changed) = app_update.as_ref().map(|update| update.applied_to(spec))
            && changed != *spec
        {
            events.push(Event::AppChanged { app: changed });
        }
        // Replicas first: a version is there to be queried when it becomes current.
        events.push(Event::ModelAdded { model: model.clone() });
        events.push(Event::ReplicasPlanned { id: id.clone(), replicas: replicas.clone() });
        if *make_current {
            events.push(Event::ModelVersionSet { id: id.clone() });
            if !self.is_linked(app, name) {
                events.push(Event::ModelLinked { app: app.clone(), model: name.clone() });
            }
            events.extend(self.released(deployment));
        }
        Ok(events)
    }

    fn check_deployable(&self, deployment: &Deployment, app: &AppSpec) -> Result<(), CommandError> {
        let (model, name) = (&deployment.model, &deployment.model.id.name);
        match self.linked_models(app.name.as_str()).next() {
            Some(_) if self.is_linked(&app.name, name) => {}
            Some(linked) if app.has_default_policy() => {
                let (app, linked) = (app.name.clone(), linked.clone());
                return Err(CommandError::LinkedElsewhere { app, linked });
            }
            _ => {
                let others: Vec<AppName> = self.apps_of(name).cloned().collect();
                let (app, model) = (app.name.clone(), name.clone());
                if !others.is_empty() {
                    return Err(CommandError::ModelOfOthers { model, app, others });
                }
                if !deployment.make_current {
                    return Err(CommandError::NothingToStayWith { app, model });
                }
            }
        }
        if app.input_type != model.input_type {
            return Err(CommandError::LinkIncompatible {
                model: name.clone(),
                model_type: model.input_type,
                app_type: app.input_type,
            });
        }
        let linked = self.linked_models(app.name.as_str()).filter(|linked| *linked != name);
        self.check_alike(&app.name, linked.chain([name]), Some(model))?;
        self.check_new_version(model)
    }

    /// The replicas that end when the deployed version has taken over.
    fn released(&self, deployment: &Deployment) -> impl Iterator<Item = Event> {
        let name = &deployment.model.id.name;
        let previous = self.current.get(name);
        let ends = deployment.old_replicas == OldReplicas::Previous;
        let versions = self.versions_of(name.as_str()).map(|spec| &spec.id);
        let old = versions.filter(move |id| {
            let is_other = previous.is_some_and(|previous| *previous != id.version);
            ends && is_other && self.replicas.contains_key(id)
        });
        old.map(|id| Event::ReplicasReleased { id: id.clone() })
    }

    fn decide_unlink(
        &self,
        app: &AppName,
        models: &[ModelName],
    ) -> Result<Vec<Event>, CommandError> {
        if !self.apps.contains_key(app) {
            return Err(CommandError::UnlinkUnknownApp(app.clone()));
        }
        let wanted: BTreeSet<&ModelName> = models.iter().collect();
        for model in &wanted {
            if !self.links.has(app, model) {
                return Err(CommandError::UnlinkUnknown {
                    app: app.clone(),
                    model: (*model).clone(),
                });
            }
        }
        Ok(wanted
            .into_iter()
            .map(|model| Event::ModelUnlinked { app: app.clone(), model: model.clone() })
            .collect())
    }

    #[must_use]
    pub fn model_by_id(&self, id: &ModelId) -> Option<&ModelSpec> {
        self.model(id.name.as_str(), id.version.as_str())
    }

    fn check_linked_apps_take(&self, model: &ModelSpec) -> Result<(), CommandError> {
        for app in self.apps_of(&model.id.name) {
            let Some(spec) = self.apps.get(app) else { continue };
            if spec.input_type != model.input_type {
                return Err(CommandError::IncompatibleVersion {
                    model: model.id.name.clone(),
                    app: app.clone(),
                    app_type: spec.input_type,
                    model_type: model.input_type,
                });
            }
            self.check_alike(app, self.linked_models(app.as_str()), Some(model))?;
        }
        Ok(())
    }

    /// Folds one event in, for those who have nothing to do about it. Unlike [`Self::apply`] it
    /// takes the same time however many models an application is linked to.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::ModelLinked { app, model } => self.links.add(app, model),
            Event::ModelUnlinked { app, model } => self.links.remove(app, model),
            other => drop(self.apply(other)),
        }
    }

    /// Folds events in, in order, and says for each what must change outside. Where several in a
    /// row change the links of one application, the last says it for all.
    pub fn apply_all(&mut self, events: &[&Event]) -> Vec<Vec<Effect>> {
        let next = events.iter().skip(1).map(|event| links_of(event)).chain([None]);
        let effects = events.iter().zip(next).map(|(event, next)| {
            if links_of(event).is_some() && links_of(event) == next {
                self.fold(event);
                Vec::new()
            } else {
                self.apply(event)
            }
        });
        effects.collect()
    }

    /// Folds one event in and says what must change outside. Applying an event twice is harmless.
    pub fn apply(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::AppAdded { app } => {
                self.apps.insert(app.name.clone(), app.clone());
                vec![Effect::ServeApp(app.clone()), self.route_app(&app.name)]
            }
            Event::AppChanged { app } => {
                self.apps.insert(app.name.clone(), app.clone());
                vec![Effect::ServeApp(app.clone())]
            }
            Event::PolicySet { app, policy } => self.apply_policy(app, policy),
            Event::RolloutStarted { app, rollout }
            | Event::RolloutStepped { app, rollout }
            | Event::RolloutEnded { app, rollout } => self.apply_rollout(app, rollout),
            Event::AppDeleted { name } => {
                self.apps.remove(name);
                self.links.remove_app(name);
                vec![
                    Effect::StopApp(name.clone()),
                    Effect::ForgetMetrics(name.clone()),
                    Effect::ForgetPolicyState(name.clone()),
                ]
            }
            Event::ModelAdded { model } | Event::ModelChanged { model } => {
                let id = model.id.clone();
                self.models.entry(id.name).or_default().insert(id.version, model.clone().into());
                vec![Effect::ServeModel(model.clone())]
            }
            Event::ReplicasPlanned { id, replicas } => {
                if self.model_by_id(id).is_none() {
                    return Vec::new();
                }
                self.replicas.insert(id.clone(), replicas.clone());
                vec![Effect::KeepReplicas(id.clone(), replicas.clone())]
            }
            Event::ReplicasReleased { id } => match self.replicas.remove(id) {
                Some(_) => vec![Effect::ReleaseReplicas(id.clone())],
                None => Vec::new(),
            },
            Event::ModelVersionSet { id } => {
                self.current.insert(id.name.clone(), id.version.clone());
                vec![Effect::RouteModel(id.name.clone(), Some(id.version.clone()))]
            }
            Event::ModelVersionUnset { model } => {
                self.current.remove(model);
                vec![Effect::RouteModel(model.clone(), None)]
            }
            Event::ModelVersionRetired { id } => self.apply_retired(id),
            Event::KeyAdded { key } | Event::KeyRotated { key } | Event::KeyLimited { key } => {
                self.apply_key(key)
            }
            Event::KeyRevoked { name } => self.apply_key_revoked(name),
            Event::ModelLinked { app, .. } | Event::ModelUnlinked { app, .. } => {
                self.fold(event);
                vec![self.route_app(app)]
            }
        }
    }

    fn apply_retired(&mut self, id: &ModelId) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.current.get(&id.name) == Some(&id.version) {
            self.current.remove(&id.name);
            effects.push(Effect::RouteModel(id.name.clone(), None));
        }
        self.replicas.remove(id);
        if let Some(versions) = self.models.get_mut(&id.name) {
            versions.remove(&id.version);
            if versions.is_empty() {
                self.models.remove(&id.name);
            }
        }
        effects.push(Effect::StopModel(id.clone()));
        effects.push(Effect::ForgetModelMetrics(id.clone()));
        effects
    }

    fn route_app(&self, app: &AppName) -> Effect {
        Effect::RouteApp(app.clone(), self.queried_models(app.as_str()).cloned().collect())
    }
}

/// The application whose links an event changes.
fn links_of(event: &Event) -> Option<&AppName> {
    match event {
        Event::ModelLinked { app, .. } | Event::ModelUnlinked { app, .. } => Some(app),
        _ => None,
    }
}

#[cfg(test)]
#[path = "projection_tests.rs"]
mod tests;
