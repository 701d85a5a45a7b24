//! The steps of a plan, in the order that serves without a gap.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::store::projection::Catalog;
use clipper_domain::command::Step;
use clipper_domain::difference::{Became, FieldChange};
use clipper_domain::plan::{StepDescription, Thing, changed_fields};
use clipper_domain::rollout::RolloutEnd;
use clipper_domain::{
    AppName, AppSpec, AppUpdate, Command, ModelId, ModelName, ModelSpec, ModelUpdate, ModelVersion,
    Replicas,
};

/// Members of definitions that are steps of their own, or their names.
const PASSED_OVER: &[&str] = &["id", "name", "rollout"];

const POLICY: &[&str] = &["policy", "policy_parameters"];

/// Between two states.
pub(super) struct PlanDraft<'c> {
    pub(super) current: &'c Catalog,
    pub(super) wanted: &'c Catalog,
}

fn step(
    kind: Became,
    thing: Thing,
    name: &impl ToString,
    fields: Vec<FieldChange>,
    command: Command,
) -> Step {
    Step { about: StepDescription { kind, thing, name: name.to_string(), fields }, command }
}

fn kind_of(is_there: bool) -> Became {
    if is_there { Became::Changed } else { Became::Added }
}

fn changed<T: Serialize>(field: &str, before: Option<&T>, after: Option<&T>) -> Vec<FieldChange> {
    let value = |value: Option<&T>| value.and_then(|value| serde_json::to_value(value).ok());
    vec![FieldChange { field: field.to_owned(), before: value(before), after: value(after) }]
}

/// Those of an application, by the names that files have for them.
fn changed_app(
    before: Option<&AppSpec>,
    after: &AppSpec,
    passed_over: &[&str],
) -> Vec<FieldChange> {
    let mut fields = changed_fields(before, Some(after), passed_over);
    for field in fields.iter_mut().filter(|field| field.field == "latency_slo") {
        field.field.push_str("_micros");
    }
    fields
}

/// Of links that come or go.
fn of_link(kind: Became, app: &AppName, models: &[ModelName], command: Command) -> Step {
    let fields = match kind {
        Became::Removed => changed("models", Some(&models), None),
        Became::Added | Became::Changed => changed("models", None, Some(&models)),
    };
    step(kind, Thing::Links, app, fields, command)
}

pub(super) fn unlinked(app: &AppName, models: Vec<ModelName>) -> Step {
    let about = models.clone();
    let command = Command::DeleteModelLinks { app: app.clone(), models };
    of_link(Became::Removed, app, &about, command)
}

/// Links of an application to models that `wanted` gives a current version, or none.
pub(super) fn linked(app: &AppName, models: Vec<ModelName>, wanted: &Catalog) -> Step {
    let has_current = |model: &ModelName| wanted.current_version(model.as_str()).is_some();
    let about = models.clone();
    let command = if models.iter().all(has_current) {
        Command::AddModelLinks { app: app.clone(), models }
    } else {
        Command::LinkAbsentModels { app: app.clone(), models }
    };
    of_link(Became::Added, app, &about, command)
}

impl PlanDraft<'_> {
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.end_rollouts(&mut steps);
        self.unlink(&mut steps);
        self.delete_apps(&mut steps);
        self.delete_versions(&mut steps, |id| self.is_replaced_version(id));
        self.put_apps(&mut steps);
        self.put_versions(&mut steps);
        self.put_replicas(&mut steps);
        self.set_versions(&mut steps);
        self.link(&mut steps, true);
        self.delete_versions(&mut steps, |id| self.wanted.model_by_id(id).is_none());
        self.link(&mut steps, false);
        steps
    }

    /// An application that is there before and after, as the same one.
    fn before(&self, app: &AppSpec) -> Option<&AppSpec> {
        let before = self.current.app(app.name.as_str());
        before.filter(|before| before.input_type == app.input_type)
    }

    /// Likewise a version, which always takes and gives the same.
    fn version_before(&self, model: &ModelSpec) -> Option<&ModelSpec> {
        self.current.model_by_id(&model.id).filter(|before| before.serves_as(model))
    }

    fn is_replaced_version(&self, id: &ModelId) -> bool {
        self.wanted.model_by_id(id).is_some_and(|wanted| self.version_before(wanted).is_none())
    }

    fn end_rollouts(&self, steps: &mut Vec<Step>) {
        for app in self.wanted.apps() {
            let running = self.before(app).and_then(AppSpec::running_rollout);
            let Some(running) = running else { continue };
            if app.running_rollout().is_some_and(|wanted| wanted.id == running.id) {
                continue;
            }
            let [from, to] = [&running.plan.from, &running.plan.to].map(ToString::to_string);
            let command = Command::EndRollout {
                app: app.name.clone(),
                id: Some(running.id),
                end: RolloutEnd::Aborted { reason: "by a plan without it".to_owned() },
            };
            let fields = [changed("from", Some(&from), None), changed("to", Some(&to), None)];
            let fields = fields.concat();
            steps.push(step(Became::Removed, Thing::Rollout, &app.name, fields, command));
        }
    }

    fn unlink(&self, steps: &mut Vec<Step>) {
        for app in self.wanted.apps().filter(|app| self.before(app).is_some()) {
            let name = &app.name;
            let linked = self.current.linked_models(name.as_str());
            let gone: Vec<ModelName> =
                linked.filter(|model| !self.wanted.is_linked(name, model)).cloned().collect();
            if !gone.is_empty() {
                steps.push(unlinked(name, gone));
            }
        }
    }

    fn delete_apps(&self, steps: &mut Vec<Step>) {
        for app in self.current.apps() {
            let wanted = self.wanted.app(app.name.as_str());
            if wanted.is_some_and(|wanted| self.before(wanted).is_some()) {
                continue;
            }
            let command = Command::DeleteApp(app.name.clone());
            steps.push(step(Became::Removed, Thing::Application, &app.name, Vec::new(), command));
        }
    }

    fn delete_versions(&self, steps: &mut Vec<Step>, goes: impl Fn(&ModelId) -> bool) {
        for model in self.current.models().filter(|model| goes(&model.id)) {
            let command = Command::DeleteVersionedModel(model.id.clone());
            steps.push(step(Became::Removed, Thing::Model, &model.id, Vec::new(), command));
        }
    }

    fn put_apps(&self, steps: &mut Vec<Step>) {
        for app in self.wanted.apps() {
            let Some(before) = self.before(app) else {
                let new = AppSpec { rollout: None, ..app.clone() };
                let fields = changed_app(None, &new, PASSED_OVER);
                let command = Command::AddApp(new);
                steps.push(step(Became::Added, Thing::Application, &app.name, fields, command));
                continue;
            };
            let update = AppUpdate::between(before, app);
            if !update.is_empty() {
                let passed_over = [PASSED_OVER, POLICY].concat();
                let fields = changed_app(Some(before), app, &passed_over);
                let command = Command::UpdateApp(update);
                steps.push(step(Became::Changed, Thing::Application, &app.name, fields, command));
            }
            let policies = (before.policy_spec(), app.policy_spec());
            if policies.0 != policies.1 {
                let fields = changed_fields(Some(&policies.0), Some(&policies.1), &[]);
                let command = Command::SetPolicy { app: app.name.clone(), policy: policies.1 };
                steps.push(step(Became::Changed, Thing::Policy, &app.name, fields, command));
            }
        }
    }

    fn put_versions(&self, steps: &mut Vec<Step>) {
        for model in self.wanted.models() {
            let before = self.version_before(model);
            let command = match before {
                None => Command::StageModel(model.clone()),
                Some(before) if before == model => continue,
                Some(before) => Command::UpdateModel(ModelUpdate::between(before, model)),
            };
            let fields = changed_fields(before, Some(model), PASSED_OVER);
            let kind = kind_of(before.is_some());
            steps.push(step(kind, Thing::Model, &model.id, fields, command));
        }
    }

    fn replicas_before(&self, id: &ModelId) -> Option<&Replicas> {
        self.current.replicas_of(id).filter(|_| !self.is_replaced_version(id))
    }

    fn put_replicas(&self, steps: &mut Vec<Step>) {
        for (id, replicas) in self.wanted.replicas() {
            let before = self.replicas_before(id);
            let command = match before {
                Some(before) if before == replicas => continue,
                Some(before) if before.runtime == replicas.runtime => {
                    Command::SetReplicas { id: id.clone(), count: replicas.count }
                }
                _ => Command::KeepReplicas { id: id.clone(), replicas: replicas.clone() },
            };
            let fields = changed_fields(before, Some(replicas), &[]);
            steps.push(step(kind_of(before.is_some()), Thing::Replicas, id, fields, command));
        }
        for (id, _) in self.current.replicas() {
            let stays = self.wanted.model_by_id(id).is_some() && !self.is_replaced_version(id);
            if stays && self.wanted.replicas_of(id).is_none() {
                let command = Command::ReleaseReplicas(id.clone());
                steps.push(step(Became::Removed, Thing::Replicas, id, Vec::new(), command));
            }
        }
    }

    fn set_versions(&self, steps: &mut Vec<Step>) {
        let names: BTreeSet<&ModelName> =
            self.wanted.models().map(|model| &model.id.name).collect();
        for name in names {
            let before = self.current.current_version(name.as_str());
            let wanted = self.wanted.current_version(name.as_str());
            let id = |version: &ModelVersion| ModelId::new(name.clone(), version.clone());
            // One that goes away takes its being current with it.
            let stays = |version: &&ModelVersion| {
                let id = id(version);
                self.wanted.model_by_id(&id).is_some() && !self.is_replaced_version(&id)
            };
            let (kind, command) = match wanted {
                Some(version) if before.filter(stays) == Some(version) => continue,
                Some(version) => (kind_of(before.is_some()), Command::SetModelVersion(id(version))),
                None if before.is_none_or(|version| !stays(&version)) => continue,
                None => (Became::Removed, Command::UnsetModelVersion(name.clone())),
            };
            let fields = changed("version", before, wanted);
            steps.push(step(kind, Thing::CurrentVersion, name, fields, command));
        }
    }

    /// Links to models that have a current version in the end, or those to others.
    fn link(&self, steps: &mut Vec<Step>, is_current: bool) {
        for app in self.wanted.apps() {
            let name = &app.name;
            let is_there = |model: &ModelName| {
                self.before(app).is_some() && self.current.is_linked(name, model)
            };
            let new = self.wanted.linked_models(name.as_str()).filter(|model| {
                let has_current = self.wanted.current_version(model.as_str()).is_some();
                has_current == is_current && !is_there(model)
            });
            let new: Vec<ModelName> = new.cloned().collect();
            if new.is_empty() {
                continue;
            }
            if app.has_default_policy() {
                steps.extend(new.into_iter().map(|model| linked(name, vec![model], self.wanted)));
            } else {
                steps.push(linked(name, new, self.wanted));
            }
        }
    }
}
