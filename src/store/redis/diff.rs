//! From what was read of the tables to the events that make the catalog equal to them.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{Entry, Key, Raw, Table, app_of, current_of, decode, model_of};
use crate::store::event::Event;
use crate::store::projection::Catalog;
use clipper_domain::{
    AccessKey, AppName, AppSpec, KeyName, ModelId, ModelName, ModelSpec, ModelVersion, Replicas,
};

/// What a look at some or all keys has found. A name that is not in it was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    apps: BTreeMap<AppName, Option<AppSpec>>,
    models: BTreeMap<ModelId, Option<ModelSpec>>,
    current: BTreeMap<ModelName, Option<ModelVersion>>,
    links: BTreeMap<AppName, BTreeSet<ModelName>>,
    /// Planned replicas; those that are not there say nothing, as a plan made without Redis is a
    /// plan.
    replicas: BTreeMap<ModelId, Replicas>,
    /// Replicas that another frontend has let go of.
    released: BTreeSet<ModelId>,
    marked: BTreeSet<ModelId>,
    /// Keys, and `None` for those that were revoked. One that is not there says nothing.
    keys: BTreeMap<KeyName, Option<Box<AccessKey>>>,
    /// Entries that mean nothing, by key, with the reason; they count as absent.
    pub malformed: BTreeMap<Key, String>,
}

impl Observed {
    /// What these keys hold.
    #[must_use]
    pub fn of<'k>(entries: impl IntoIterator<Item = (&'k Key, &'k Raw)>) -> Self {
        let mut observed = Self::default();
        for (key, raw) in entries {
            observed.add(key, raw);
        }
        observed
    }

    /// Whole tables that hold `catalog`.
    #[must_use]
    pub fn of_catalog(catalog: &Catalog) -> Self {
        let app = |app: &AppSpec| (app.name.clone(), Some(app.clone()));
        let model = |model: &ModelSpec| (model.id.clone(), Some(model.clone()));
        let current = |(m, v): (&ModelName, &ModelVersion)| (m.clone(), Some(v.clone()));
        let links = |app: &AppSpec| {
            (app.name.clone(), catalog.linked_models(app.name.as_str()).cloned().collect())
        };
        Self {
            apps: catalog.apps().map(app).collect(),
            models: catalog.models().map(model).collect(),
            current: catalog.current_versions().map(current).collect(),
            links: catalog.apps().map(links).collect(),
            replicas: catalog.replicas().map(|(id, plan)| (id.clone(), plan.clone())).collect(),
            keys: catalog.keys().map(|k| (k.name.clone(), Some(Box::new(k.clone())))).collect(),
            ..Self::default()
        }
    }

    /// Notes what `key` holds.
    pub fn add(&mut self, key: &Key, raw: &Raw) {
        self.absent(key);
        match decode(key, raw) {
            Ok(None) => {}
            Ok(Some(Entry::App(app))) => {
                self.apps.insert(app.name.clone(), Some(app));
            }
            Ok(Some(Entry::Model(model))) => {
                self.models.insert(model.id.clone(), Some(model));
            }
            Ok(Some(Entry::Marked(id))) => {
                self.marked.insert(id);
            }
            Ok(Some(Entry::Current(model, version))) => {
                self.current.insert(model, Some(version));
            }
            Ok(Some(Entry::Links(app, models))) => {
                self.links.insert(app, models);
            }
            Ok(Some(Entry::Replicas(id, plan))) => {
                self.replicas.insert(id, plan);
            }
            Ok(Some(Entry::Access(name, key))) => {
                self.keys.insert(name, key);
            }
            Err(reason) => {
                self.malformed.insert(key.clone(), reason.to_string());
            }
        }
    }

    fn absent(&mut self, key: &Key) {
        self.malformed.remove(key);
        match key.table {
            Table::Application => {
                self.apps.extend(app_of(key).map(|app| (app, None)));
            }
            Table::Links => {
                self.links.extend(app_of(key).map(|app| (app, BTreeSet::new())));
            }
            Table::Model => {
                self.models.extend(model_of(key).map(|id| (id, None)));
                model_of(key).map(|id| self.marked.remove(&id));
            }
            Table::Metadata => {
                self.current.extend(current_of(key).map(|model| (model, None)));
            }
            Table::State | Table::Container | Table::Resource => {}
        }
    }

    /// The whole tables were read: what `catalog` has and they have not is absent.
    pub fn complete(&mut self, catalog: &Catalog) {
        for app in catalog.apps() {
            self.apps.entry(app.name.clone()).or_default();
            self.links.entry(app.name.clone()).or_default();
        }
        for model in catalog.models() {
            self.models.entry(model.id.clone()).or_default();
        }
        for (model, _) in catalog.current_versions() {
            self.current.entry(model.clone()).or_default();
        }
    }

    /// What was lost and is to be written again: it counts as being there as `catalog` has it.
    pub fn believe(&mut self, key: &Key, catalog: &Catalog) {
        if let Some(app) = app_of(key) {
            if key.table == Table::Links {
                let linked = catalog.linked_models(app.as_str()).cloned().collect();
                self.links.insert(app, linked);
            } else {
                self.apps.insert(app.clone(), catalog.app(app.as_str()).cloned());
            }
        } else if let Some(id) = model_of(key) {
            let model = catalog.model(id.name.as_str(), id.version.as_str()).cloned();
            self.models.insert(id, model);
        } else if let Some(model) = current_of(key) {
            let version = catalog.current_version(model.as_str()).cloned();
            self.current.insert(model, version);
        }
    }

    /// Another frontend has said that it lets go of these replicas.
    pub fn release(&mut self, id: ModelId) {
        self.released.insert(id);
    }

    /// Leaves planned replicas out of account.
    pub fn ignore_replicas(&mut self) {
        self.replicas.clear();
    }

    /// Keys that have to be read too before this means anything: definitions of current versions.
    pub fn follow_up(&self) -> impl Iterator<Item = Key> {
        let named = self
            .current
            .iter()
            .filter_map(|(model, version)| Some(ModelId::new(model.clone(), version.clone()?)));
        named.filter(|id| !self.models.contains_key(id)).map(|id| Key::model(&id))
    }

    /// Versions that `catalog` serves and a management frontend has marked as deleted.
    pub fn marked<'o>(&'o self, catalog: &'o Catalog) -> impl Iterator<Item = &'o ModelId> {
        let served = |id: &&ModelId| catalog.model(id.name.as_str(), id.version.as_str()).is_some();
        self.marked.iter().filter(served)
    }

    fn has_app(&self, name: &AppName, catalog: &Catalog) -> bool {
        match self.apps.get(name) {
            Some(observed) => observed.is_some(),
            None => catalog.app(name.as_str()).is_some(),
        }
    }

    fn has_model(&self, name: &ModelName, version: &ModelVersion, catalog: &Catalog) -> bool {
        match self.models.get(&ModelId::new(name.clone(), version.clone())) {
            Some(observed) => observed.is_some(),
            None => catalog.model(name.as_str(), version.as_str()).is_some(),
        }
    }
}

/// The events that turn `catalog` into what was observed, in an order that never leaves a linked
/// model without a version if it has one before and after.
///
/// A current version that is not defined counts as none, and links of an application that is not
/// defined do not count.
#[must_use]
pub fn diff(observed: &Observed, catalog: &Catalog) -> Vec<Event> {
    let of_key = |(name, key): (&KeyName, &Option<Box<AccessKey>>)| {
        key_change(catalog, name, key.as_deref())
    };
    let mut events: Vec<Event> = observed.keys.iter().filter_map(of_key).collect();
    for model in observed.models.values().flatten() {
        if catalog.model(model.id.name.as_str(), model.id.version.as_str()) != Some(model) {
            events.push(Event::ModelAdded { model: model.clone() });
        }
    }
    // Before a version becomes current: it is there to be queried then.
    for (id, plan) in &observed.replicas {
        let planned = catalog.replicas_of(id) == Some(plan);
        if !planned && observed.has_model(&id.name, &id.version, catalog) {
            events.push(Event::ReplicasPlanned { id: id.clone(), replicas: plan.clone() });
        }
    }
    for id in &observed.released {
        let kept = observed.has_model(&id.name, &id.version, catalog);
        if kept && catalog.replicas_of(id).is_some() {
            events.push(Event::ReplicasReleased { id: id.clone() });
        }
    }
    for (model, version) in &observed.current {
        events.extend(current_change(observed, catalog, model, version.as_ref()));
    }
    for app in observed.apps.values().flatten() {
        if catalog.app(app.name.as_str()) != Some(app) {
            events.push(Event::AppAdded { app: app.clone() });
        }
    }
    for (app, models) in observed.links.iter().filter(|(app, _)| observed.has_app(app, catalog)) {
        let had: BTreeSet<&ModelName> = catalog.linked_models(app.as_str()).collect();
        let linked = models.iter().filter(|model| !had.contains(model));
        events.extend(linked.map(|m| Event::ModelLinked { app: app.clone(), model: m.clone() }));
        let unlinked = had.iter().filter(|model| !models.contains(**model));
        events.extend(
            unlinked.map(|m| Event::ModelUnlinked { app: app.clone(), model: (*m).clone() }),
        );
    }
    for (name, _) in observed.apps.iter().filter(|(_, app)| app.is_none()) {
        if catalog.app(name.as_str()).is_some() {
            events.push(Event::AppDeleted { name: name.clone() });
        }
    }
    for (id, _) in observed.models.iter().filter(|(_, model)| model.is_none()) {
        if catalog.model(id.name.as_str(), id.version.as_str()).is_some() {
            events.push(Event::ModelVersionRetired { id: id.clone() });
        }
    }
    events
}

fn key_change(catalog: &Catalog, name: &KeyName, key: Option<&AccessKey>) -> Option<Event> {
    let boxed = |key: &AccessKey| Box::new(key.clone());
    match (key, catalog.key(name.as_str())) {
        (None, Some(_)) => Some(Event::KeyRevoked { name: name.clone() }),
        (Some(key), None) => Some(Event::KeyAdded { key: boxed(key) }),
        (Some(key), Some(known)) if key == known => None,
        (Some(key), Some(known)) if *key == (AccessKey { limits: key.limits, ..known.clone() }) => {
            Some(Event::KeyLimited { key: boxed(key) })
        }
        (Some(key), Some(_)) => Some(Event::KeyRotated { key: boxed(key) }),
        _ => None,
    }
}

fn current_change(
    observed: &Observed,
    catalog: &Catalog,
    model: &ModelName,
    version: Option<&ModelVersion>,
) -> Option<Event> {
    let had = catalog.current_version(model.as_str());
    match version.filter(|version| observed.has_model(model, version, catalog)) {
        Some(version) if had == Some(version) => None,
        Some(version) => {
            Some(Event::ModelVersionSet { id: ModelId::new(model.clone(), version.clone()) })
        }
        // A retired version takes its being current with it.
        None => had
            .filter(|had| observed.has_model(model, had, catalog))
            .map(|_| Event::ModelVersionUnset { model: model.clone() }),
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
