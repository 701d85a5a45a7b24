//! What actors serve, and the effects that make it what the catalog says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::projection::{Catalog, Effect};
use clipper_domain::{AppName, AppSpec, ModelId, ModelName, ModelSpec, ModelVersion, Replicas};

/// What runs, as far as somebody follows it: of what a follower has nothing to do with, it says
/// nothing, and passes over the effects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Applications that are answered.
    pub apps: BTreeMap<AppName, AppSpec>,
    /// The models that their queries go to; applications without any are not in it.
    pub links: BTreeMap<AppName, BTreeSet<ModelName>>,
    /// Model versions with actors.
    pub models: BTreeMap<ModelId, ModelSpec>,
    /// Versions whose processes are kept alive.
    pub replicas: BTreeMap<ModelId, Replicas>,
    /// The versions that queries of a model go to.
    pub current: BTreeMap<ModelName, ModelVersion>,
    /// Applications that have left something to forget: metrics, policy state.
    pub traces: BTreeSet<AppName>,
}

impl Served {
    /// [`Self::note`] of all.
    pub fn note_all<'e>(&mut self, effects: impl IntoIterator<Item = &'e Effect>) {
        for effect in effects {
            self.note(effect);
        }
    }

    /// Notes what an effect has changed, once it was run.
    pub fn note(&mut self, effect: &Effect) {
        match effect.clone() {
            Effect::ServeApp(app) => {
                self.traces.insert(app.name.clone());
                self.apps.insert(app.name.clone(), app);
            }
            Effect::StopApp(name) => {
                self.apps.remove(&name);
                self.links.remove(&name);
            }
            Effect::ServeModel(model) => drop(self.models.insert(model.id.clone(), model)),
            Effect::KeepReplicas(id, replicas) => drop(self.replicas.insert(id, replicas)),
            Effect::ReleaseReplicas(id) => drop(self.replicas.remove(&id)),
            Effect::StopModel(id) => {
                self.models.remove(&id);
                self.replicas.remove(&id);
            }
            Effect::RouteModel(name, Some(version)) => drop(self.current.insert(name, version)),
            Effect::RouteModel(name, None) => drop(self.current.remove(&name)),
            Effect::RouteApp(app, models) if models.is_empty() => drop(self.links.remove(&app)),
            Effect::RouteApp(app, models) => drop(self.links.insert(app, models)),
            Effect::ForgetMetrics(name) | Effect::ForgetPolicyState(name) => {
                self.traces.remove(&name);
            }
            Effect::ForgetModelMetrics(_) | Effect::KeysChanged => {}
        }
    }
}

/// The effects that turn what runs into what the catalog describes: all of it at a start, what was
/// missed after an absence, nothing otherwise. What is not wanted any more goes first.
#[must_use]
pub fn reconcile(wanted: &Catalog, running: &Served) -> Vec<Effect> {
    let mut effects = Vec::new();
    stop(wanted, running, &mut effects);
    for model in wanted.models() {
        if running.models.get(&model.id) != Some(model) {
            effects.push(Effect::ServeModel(model.clone()));
        }
    }
    for (id, replicas) in wanted.replicas() {
        if running.replicas.get(id) != Some(replicas) {
            effects.push(Effect::KeepReplicas(id.clone(), replicas.clone()));
        }
    }
    for (model, version) in wanted.current_versions() {
        if running.current.get(model) != Some(version) {
            effects.push(Effect::RouteModel(model.clone(), Some(version.clone())));
        }
    }
    for app in wanted.apps() {
        if running.apps.get(&app.name) != Some(app) {
            effects.push(Effect::ServeApp(app.clone()));
        }
        let links: BTreeSet<ModelName> =
            wanted.queried_models(app.name.as_str()).cloned().collect();
        if running.links.get(&app.name).cloned().unwrap_or_default() != links {
            effects.push(Effect::RouteApp(app.name.clone(), links));
        }
    }
    effects
}

fn stop(wanted: &Catalog, running: &Served, effects: &mut Vec<Effect>) {
    let is_wanted = |app: &AppName| wanted.app(app.as_str()).is_some();
    for name in running.apps.keys().filter(|name| !is_wanted(name)) {
        effects.push(Effect::StopApp(name.clone()));
    }
    for name in running.traces.iter().filter(|name| !is_wanted(name)) {
        effects.push(Effect::ForgetMetrics(name.clone()));
        effects.push(Effect::ForgetPolicyState(name.clone()));
    }
    for name in running.current.keys() {
        if wanted.current_version(name.as_str()).is_none() {
            effects.push(Effect::RouteModel(name.clone(), None));
        }
    }
    let is_registered =
        |id: &ModelId| wanted.model(id.name.as_str(), id.version.as_str()).is_some();
    for id in running.models.keys().filter(|id| !is_registered(id)) {
        effects.push(Effect::StopModel(id.clone()));
        effects.push(Effect::ForgetModelMetrics(id.clone()));
    }
    let planned: BTreeSet<&ModelId> = wanted.replicas().map(|(id, _)| id).collect();
    for id in running.replicas.keys().filter(|id| is_registered(id) && !planned.contains(id)) {
        effects.push(Effect::ReleaseReplicas(id.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::samples::{any_command, app_name, changes};
    use clipper_domain::Command;

    fn served(catalog: &Catalog) -> Served {
        let mut served = Served::default();
        served.note_all(&reconcile(catalog, &Served::default()));
        served
    }

    #[test]
    fn a_deleted_application_leaves_nothing() {
        let (_, mut catalog) = changes(&[crate::store::samples::add_app("a")]);
        let mut running = served(&catalog);
        let events = catalog.decide(&Command::DeleteApp(app_name("a"))).unwrap();
        let effects: Vec<Effect> = events.iter().flat_map(|event| catalog.apply(event)).collect();
        let name = app_name("a");
        assert_eq!(
            effects,
            [
                Effect::StopApp(name.clone()),
                Effect::ForgetMetrics(name.clone()),
                Effect::ForgetPolicyState(name)
            ]
        );
        // The same for who was away meanwhile.
        assert_eq!(reconcile(&catalog, &running), effects);
        running.note_all(&effects);
        assert_eq!(running, Served::default());
    }

    proptest! {
        /// Following only the effects leads where a restart leads, and so does having been away for
        /// any part of it.
        #[test]
        fn whoever_was_away_ends_where_the_others_are(
            before in prop::collection::vec(any_command(), 0..40),
            after in prop::collection::vec(any_command(), 0..40),
        ) {
            let (_, mut catalog) = changes(&before);
            let mut away = served(&catalog);
            let mut there = away.clone();
            for command in &after {
                for event in catalog.decide(command).unwrap_or_default() {
                    there.note_all(&catalog.apply(&event));
                }
            }
            let missed = reconcile(&catalog, &away);
            away.note_all(&missed);
            prop_assert_eq!(&there, &served(&catalog));
            prop_assert_eq!(&away, &served(&catalog));
            prop_assert_eq!(reconcile(&catalog, &away), vec![]);
        }
    }
}
