//! From commands and events to keys and writes.

use std::collections::{BTreeMap, BTreeSet};

use super::key_rows;
use super::tables::{
    Fields, Key, POLICY_PARAMETERS, ROLLOUT, Raw, Table, access_of, app_fields, app_of, current_of,
    json_text, model_fields, model_of, replicas_of,
};
use crate::store::event::Event;
use crate::store::projection::Catalog;
use clipper_domain::rollout::Rollout;
use clipper_domain::{AccessKey, AppName, Command, KeyName, ModelId, Role};

/// One write of a transaction: a Redis command in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub command: &'static str,
    /// Its arguments after the key.
    pub args: Vec<Vec<u8>>,
}

impl Write {
    /// A write without further arguments, such as `DEL`.
    #[must_use]
    pub fn bare(key: Key, command: &'static str) -> Self {
        Self { key, command, args: Vec::new() }
    }

    /// A write with one more argument.
    #[must_use]
    pub fn one(key: Key, command: &'static str, arg: &str) -> Self {
        Self { key, command, args: vec![arg.as_bytes().to_vec()] }
    }

    /// Writes a hash whole.
    #[must_use]
    pub fn hash(key: Key, fields: Fields) -> Self {
        let args =
            fields.into_iter().flat_map(|(n, v)| [n.as_bytes().to_vec(), v.into_bytes()]).collect();
        Self { key, command: "HMSET", args }
    }
}

/// What was read, exactly.
pub type Entries = BTreeMap<Key, Raw>;

/// The keys that a change of `key` makes worth reading: itself, and what gives it its meaning.
#[must_use]
pub fn related(key: &Key) -> Vec<Key> {
    match key.table {
        Table::Application | Table::Links => {
            app_of(key).map_or_else(Vec::new, |app| of_app(&app).into())
        }
        Table::Model => model_of(key).map_or_else(
            || vec![key.clone()],
            |id| vec![key.clone(), Key::current(&id.name), Key::replicas(&id)],
        ),
        Table::Metadata if current_of(key).is_some() => vec![key.clone()],
        Table::Resource if replicas_of(key).is_some() || access_of(key).is_some() => {
            vec![key.clone()]
        }
        _ => Vec::new(),
    }
}

fn of_app(app: &AppName) -> [Key; 2] {
    [Key::app(app), Key::links(app)]
}

/// The keys that decide about `command`: read before it is decided, unchanged when it is written.
#[must_use]
pub fn keys_of(command: &Command, catalog: &Catalog) -> BTreeSet<Key> {
    match command {
        Command::AddApp(app) => of_app(&app.name).into(),
        Command::UpdateApp(update) => of_app(&update.name).into(),
        Command::SetPolicy { app, .. } => of_app(app).into(),
        Command::StartRollout { app, rollout } => of_rollout(app, Some(rollout)),
        Command::StepRollout { app, .. } => of_rollout(app, None),
        Command::EndRollout { app, .. } => {
            of_rollout(app, catalog.app(app.as_str()).and_then(|spec| spec.rollout.as_deref()))
        }
        Command::DeleteApp(name) => of_app(name).into(),
        Command::AddModel(model) | Command::StageModel(model) => of_version(&model.id, catalog),
        Command::UpdateModel(update) => [Key::model(&update.id)].into(),
        Command::UnsetModelVersion(model) => [Key::current(model)].into(),
        Command::SetReplicas { id, .. }
        | Command::KeepReplicas { id, .. }
        | Command::ReleaseReplicas(id) => [Key::model(id), Key::replicas(id)].into(),
        Command::Apply(plan) => plan.commands().flat_map(|c| keys_of(c, catalog)).collect(),
        Command::SetModelVersion(id) | Command::DeleteUnqueriedModel(id) => of_version(id, catalog),
        Command::Deploy(deployment) => {
            let mut keys = of_version(&deployment.model.id, catalog);
            keys.extend(of_app(&deployment.app));
            keys.insert(Key::replicas(&deployment.model.id));
            keys
        }
        Command::AddKey { key, .. } => of_access(&key.name, catalog),
        Command::RotateKey { name, .. }
        | Command::LimitKey { name, .. }
        | Command::RevokeKey { name, .. } => of_access(name, catalog),
        Command::DeleteVersionedModel(id) => [Key::model(id), Key::current(&id.name)].into(),
        Command::AddModelLinks { app, models }
        | Command::LinkAbsentModels { app, models }
        | Command::DeleteModelLinks { app, models } => {
            let current = models.iter().map(Key::current);
            of_app(app).into_iter().chain(current).collect()
        }
    }
}

/// The key that an event is about.
#[must_use]
pub fn key_of(event: &Event) -> Key {
    match event {
        Event::AppAdded { app } | Event::AppChanged { app } => Key::app(&app.name),
        Event::AppDeleted { name } => Key::app(name),
        Event::PolicySet { app, .. }
        | Event::RolloutStarted { app, .. }
        | Event::RolloutStepped { app, .. }
        | Event::RolloutEnded { app, .. } => Key::app(app),
        Event::ModelAdded { model } | Event::ModelChanged { model } => Key::model(&model.id),
        Event::ModelVersionRetired { id } => Key::model(id),
        Event::ReplicasPlanned { id, .. } | Event::ReplicasReleased { id } => Key::replicas(id),
        Event::ModelVersionSet { id } => Key::current(&id.name),
        Event::ModelVersionUnset { model } => Key::current(model),
        Event::ModelLinked { app, .. } | Event::ModelUnlinked { app, .. } => Key::links(app),
        Event::KeyAdded { key } | Event::KeyRotated { key } | Event::KeyLimited { key } => {
            Key::access(&key.name)
        }
        Event::KeyRevoked { name } => Key::access(name),
    }
}

/// A key, and those of the role admin, of which one has to remain.
fn of_access(name: &KeyName, catalog: &Catalog) -> BTreeSet<Key> {
    let admins = catalog.keys().filter(|key| key.role == Role::Admin);
    admins.map(|key| Key::access(&key.name)).chain([Key::access(name)]).collect()
}

fn row_of(key: &AccessKey) -> Write {
    Write::one(Key::access(&key.name), "SET", &key_rows::text_of(key))
}

/// An application, and the versions that its rollout is about.
fn of_rollout(app: &AppName, rollout: Option<&Rollout>) -> BTreeSet<Key> {
    let versions = rollout.into_iter().flat_map(|rollout| {
        let (from, to) = (&rollout.plan.from, &rollout.plan.to);
        [Key::model(from), Key::model(to), Key::current(&from.name)]
    });
    of_app(app).into_iter().chain(versions).collect()
}

/// A version, and the applications that are linked to its model.
fn of_version(id: &ModelId, catalog: &Catalog) -> BTreeSet<Key> {
    let apps = catalog.apps_of(&id.name).filter(|app| catalog.app(app.as_str()).is_some());
    apps.flat_map(of_app).chain([Key::model(id), Key::current(&id.name)]).collect()
}

/// What `event` writes, where `before` is what its keys hold.
#[must_use]
pub fn writes(event: &Event, before: &Entries) -> Vec<Write> {
    let leftover = |key: Key| {
        let there = before.get(&key).is_some_and(|raw| *raw != Raw::Absent);
        there.then(|| Write::bare(key, "DEL"))
    };
    let mut writes = Vec::new();
    match event {
        Event::AppAdded { app } => {
            // Leftovers of another application of that name, or something malformed.
            writes.extend(leftover(Key::app(&app.name)));
            writes.extend(leftover(Key::links(&app.name)));
            writes.push(Write::hash(Key::app(&app.name), app_fields(app)));
        }
        Event::AppChanged { app } => {
            // Whole, so that a field that the definition has no more is gone; links stay.
            writes.extend(leftover(Key::app(&app.name)));
            writes.push(Write::hash(Key::app(&app.name), app_fields(app)));
        }
        Event::PolicySet { app, policy } => {
            let key = Key::app(app);
            let mut fields = vec![("policy", policy.name.clone())];
            if policy.parameters.is_empty() {
                writes.push(Write::one(key.clone(), "HDEL", POLICY_PARAMETERS));
            } else {
                fields.push((POLICY_PARAMETERS, json_text(&policy.parameters)));
            }
            writes.push(Write::hash(key, fields));
        }
        Event::RolloutStarted { app, rollout }
        | Event::RolloutStepped { app, rollout }
        | Event::RolloutEnded { app, rollout } => {
            writes.push(Write::hash(Key::app(app), vec![(ROLLOUT, json_text(rollout))]));
        }
        Event::AppDeleted { name } => {
            writes.extend(of_app(name).map(|key| Write::bare(key, "DEL")));
        }
        Event::ModelAdded { model } | Event::ModelChanged { model } => {
            let key = Key::model(&model.id);
            writes.extend(leftover(key.clone()));
            writes.push(Write::hash(key, model_fields(model)));
        }
        Event::ModelVersionSet { id } => {
            writes.push(Write::one(Key::current(&id.name), "SET", id.version.as_str()));
        }
        // For every frontend: each keeps replicas of its own, or says that it cannot.
        Event::ReplicasPlanned { id, replicas } => {
            let plan = serde_json::to_string(replicas).unwrap_or_default();
            writes.push(Write::one(Key::replicas(id), "SET", &plan));
        }
        Event::ReplicasReleased { id } => writes.push(Write::bare(Key::replicas(id), "DEL")),
        Event::ModelVersionUnset { model } => {
            writes.push(Write::bare(Key::current(model), "DEL"));
        }
        Event::ModelVersionRetired { id } => {
            // Two steps, as in the original: the first is what its query frontends listen for.
            writes.push(Write::one(Key::model(id), "HDEL", "valid"));
            writes.push(Write::bare(Key::model(id), "DEL"));
            writes.push(Write::bare(Key::replicas(id), "DEL"));
        }
        Event::ModelLinked { app, model } => {
            writes.push(Write::one(Key::links(app), "SADD", model.as_str()));
        }
        Event::ModelUnlinked { app, model } => {
            writes.push(Write::one(Key::links(app), "SREM", model.as_str()));
        }
        Event::KeyAdded { key } | Event::KeyRotated { key } | Event::KeyLimited { key } => {
            writes.push(row_of(key));
        }
        Event::KeyRevoked { name } => {
            writes.push(Write::one(Key::access(name), "SET", key_rows::REVOKED));
        }
    }
    writes
}

/// The rows of current versions that a change of `catalog` must not leave: a version that is
/// deleted leaves its row, as with the original, and that would speak for another one of its name.
#[must_use]
pub fn stale_current(events: &[Event], before: &Entries, catalog: &Catalog) -> Vec<Write> {
    let added = events.iter().filter_map(|event| match event {
        Event::ModelAdded { model } => Some(&model.id),
        _ => None,
    });
    let named = added.filter(|id| {
        let row = before.get(&Key::current(&id.name));
        matches!(row, Some(Raw::Text(version)) if version == id.version.as_str().as_bytes())
    });
    let named: BTreeSet<&ModelId> = named.collect();
    if named.is_empty() {
        return Vec::new();
    }
    let mut after = catalog.clone();
    for event in events {
        after.fold(event);
    }
    let is_stale = |id: &&ModelId| after.current_version(id.name.as_str()).is_none();
    let stale = named.into_iter().filter(is_stale);
    stale.map(|id| Write::bare(Key::current(&id.name), "DEL")).collect()
}

/// The writes that put what `catalog` has of one key where there is nothing.
#[must_use]
pub fn of_key(key: &Key, catalog: &Catalog) -> Vec<Write> {
    let none = Entries::new();
    let all = |event: Event| writes(&event, &none);
    let written = if let Some(app) = app_of(key) {
        let Some(spec) = catalog.app(app.as_str()) else { return Vec::new() };
        let linked = catalog.linked_models(app.as_str()).cloned();
        let links = linked.map(|model| Event::ModelLinked { app: app.clone(), model });
        std::iter::once(Event::AppAdded { app: spec.clone() }).chain(links).flat_map(all).collect()
    } else if let Some(id) = model_of(key) {
        let model = catalog.model(id.name.as_str(), id.version.as_str());
        model.map_or_else(Vec::new, |model| all(Event::ModelAdded { model: model.clone() }))
    } else if let Some(model) = current_of(key) {
        let version = catalog.current_version(model.as_str()).cloned();
        version.map_or_else(Vec::new, |version| {
            all(Event::ModelVersionSet { id: ModelId::new(model, version) })
        })
    } else if let Some(id) = replicas_of(key) {
        let replicas = catalog.replicas_of(&id).cloned();
        replicas.map_or_else(Vec::new, |replicas| all(Event::ReplicasPlanned { id, replicas }))
    } else if let Some(name) = access_of(key) {
        catalog.key(name.as_str()).map(row_of).into_iter().collect()
    } else {
        Vec::new()
    };
    written.into_iter().filter(|write: &Write| write.key == *key).collect()
}

/// The writes that put all of `catalog` into empty tables, in groups that belong together.
#[must_use]
pub fn of_catalog(catalog: &Catalog) -> Vec<Vec<Write>> {
    let none = Entries::new();
    let one = |event: Event| writes(&event, &none);
    let models = catalog.models().map(|model| one(Event::ModelAdded { model: model.clone() }));
    let replicas = catalog.replicas().map(|(id, replicas)| {
        one(Event::ReplicasPlanned { id: id.clone(), replicas: replicas.clone() })
    });
    let current = catalog.current_versions().map(|(model, version)| {
        one(Event::ModelVersionSet { id: ModelId::new(model.clone(), version.clone()) })
    });
    let apps = catalog.apps().map(|app| {
        let mut group = one(Event::AppAdded { app: app.clone() });
        for model in catalog.linked_models(app.name.as_str()) {
            let link = Event::ModelLinked { app: app.name.clone(), model: model.clone() };
            group.extend(one(link));
        }
        group
    });
    let keys = catalog.keys().map(|key| vec![row_of(key)]);
    keys.chain(models).chain(replicas).chain(current).chain(apps).collect()
}
