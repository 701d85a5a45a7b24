//! What files declare, as a state to go to; and a state as a file declares it.
//!
//! Architecture invariant: nothing here changes anything. What it takes to get to a state is
//! [`crate::store::plan::plan`]'s.

mod entries;
mod export;
pub mod merge;

use std::collections::{BTreeMap, BTreeSet};

pub use self::entries::{DeclaredApp, DeclaredModel, InvalidEntry};
pub use self::export::export;
use crate::store::event::Event;
use crate::store::projection::Catalog;
use clipper_config::{ContainerConfig, Lists, ModelConfig};
use clipper_domain::{AppName, AppSpec, InputType, ModelId, ModelName, ModelVersion, Replicas};

/// Applications and models as somebody wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declaration {
    pub apps: Vec<DeclaredApp>,
    pub models: Vec<DeclaredModel>,
}

/// What a declaration asks for and cannot get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDeclarable {
    #[error(
        "application '{name}': it takes {is}, and not {wanted}: an input type cannot change, as \
         models and clients rely on it. Give the application another name, or replace it with \
         --prune"
    )]
    InputType { name: AppName, is: InputType, wanted: InputType },
    #[error(
        "model '{0}': it is registered with another input type or signature, which do not change: \
         give it another version, or replace it with --prune"
    )]
    Version(ModelId),
    #[error("model '{0}': more than one version is said to be the current one")]
    SeveralCurrent(ModelName),
    #[error(
        "application '{app}': model '{model}' has no current version, here or on the server; a \
         link that waits for one is listed in absent_models"
    )]
    NoSuchModel { app: AppName, model: ModelName },
    #[error("{what} '{name}' is declared twice")]
    Twice { what: &'static str, name: String },
}

impl Declaration {
    /// What the lists of a file say; with `keeps_replicas`, the server keeps the containers that
    /// they describe.
    ///
    /// # Errors
    /// A value that is none of its type.
    pub fn read(lists: &Lists, keeps_replicas: bool) -> Result<Self, InvalidEntry> {
        let model = |model: &ModelConfig| -> Result<DeclaredModel, InvalidEntry> {
            let container = model.container.as_ref().filter(|_| keeps_replicas);
            let replicas = |container: &ContainerConfig| Replicas {
                runtime: container.runtime(),
                count: container.replicas(),
            };
            Ok(DeclaredModel {
                spec: entries::model_spec(model)?,
                replicas: container.map(replicas),
                current: model.current,
            })
        };
        Ok(Self {
            apps: lists.applications.iter().map(entries::declared_app).collect::<Result<_, _>>()?,
            models: lists.models.iter().map(model).collect::<Result<_, _>>()?,
        })
    }

    /// The state with all that is declared, and what cannot be, which is left out. What is not
    /// declared stays as it is in `current`, or goes, if `prune`.
    #[must_use]
    pub fn wanted(&self, current: &Catalog, prune: bool) -> (Catalog, Vec<NotDeclarable>) {
        let mut faults = self.twice();
        let mut wanted = if prune { Catalog::default() } else { current.clone() };
        for DeclaredModel { spec, replicas, .. } in &self.models {
            let known = current.model_by_id(&spec.id);
            if !prune && known.is_some_and(|known| !known.serves_as(spec)) {
                faults.push(NotDeclarable::Version(spec.id.clone()));
                continue;
            }
            wanted.fold(&Event::ModelAdded { model: spec.clone() });
            if let Some(replicas) = replicas.clone() {
                wanted.fold(&Event::ReplicasPlanned { id: spec.id.clone(), replicas });
            }
        }
        self.route(current, &mut wanted, &mut faults);
        for app in &self.apps {
            let known = current.app(app.spec.name.as_str());
            match known.filter(|known| known.input_type != app.spec.input_type) {
                Some(known) if !prune => faults.push(NotDeclarable::InputType {
                    name: known.name.clone(),
                    is: known.input_type,
                    wanted: app.spec.input_type,
                }),
                other => {
                    // No file says anything of a rollout: it goes on.
                    let rollout = known.filter(|_| other.is_none());
                    let rollout = rollout.and_then(|known| known.rollout.clone());
                    let spec = AppSpec { rollout, ..app.spec.clone() };
                    put_app(spec, app, current, &mut wanted, &mut faults);
                }
            }
        }
        (wanted, faults)
    }

    fn twice(&self) -> Vec<NotDeclarable> {
        let apps = self.apps.iter().map(|app| ("application", app.spec.name.to_string()));
        let models = self.models.iter().map(|model| ("model", model.spec.id.to_string()));
        let mut seen = BTreeSet::new();
        let twice = apps.chain(models).filter(|entry| !seen.insert(entry.clone()));
        twice.map(|(what, name)| NotDeclarable::Twice { what, name }).collect()
    }

    /// Which versions are the current ones.
    fn route(&self, current: &Catalog, wanted: &mut Catalog, faults: &mut Vec<NotDeclarable>) {
        let mut by_name: BTreeMap<&ModelName, Vec<&DeclaredModel>> = BTreeMap::new();
        for model in &self.models {
            by_name.entry(&model.spec.id.name).or_default().push(model);
        }
        for (name, versions) in by_name {
            if versions.iter().filter(|version| version.current == Some(true)).count() > 1 {
                faults.push(NotDeclarable::SeveralCurrent(name.clone()));
            }
            match chosen(name, &versions, current, wanted) {
                Some(version) => {
                    let id = ModelId::new(name.clone(), version);
                    wanted.fold(&Event::ModelVersionSet { id });
                }
                None => wanted.fold(&Event::ModelVersionUnset { model: name.clone() }),
            }
        }
    }
}

/// The version of a model that queries go to: the one of which that is said; else the last that is
/// new; else the one that they go to now; else the last.
fn chosen(
    name: &ModelName,
    versions: &[&DeclaredModel],
    current: &Catalog,
    wanted: &Catalog,
) -> Option<ModelVersion> {
    let version = |model: &&DeclaredModel| model.spec.id.version.clone();
    if let Some(said) = versions.iter().find(|version| version.current == Some(true)) {
        return Some(version(said));
    }
    let unsaid = || versions.iter().rev().filter(|version| version.current.is_none());
    let new = unsaid().find(|version| current.model_by_id(&version.spec.id).is_none());
    let is_not = |version: &&ModelVersion| {
        versions.iter().any(|v| v.current == Some(false) && v.spec.id.version == **version)
    };
    let now = current.current_version(name.as_str()).filter(|version| {
        wanted.model(name.as_str(), version.as_str()).is_some() && !is_not(version)
    });
    new.map(version).or_else(|| now.cloned()).or_else(|| unsaid().next().map(version))
}

/// Puts an application and exactly its links.
fn put_app(
    spec: AppSpec,
    app: &DeclaredApp,
    current: &Catalog,
    wanted: &mut Catalog,
    faults: &mut Vec<NotDeclarable>,
) {
    let name = spec.name.clone();
    wanted.fold(&Event::AppAdded { app: spec });
    let declared = |model: &ModelName| app.models.contains(model) || app.absent.contains(model);
    let gone = wanted.linked_models(name.as_str()).filter(|model| !declared(model));
    for model in gone.cloned().collect::<Vec<_>>() {
        wanted.fold(&Event::ModelUnlinked { app: name.clone(), model });
    }
    for model in app.models.iter().chain(&app.absent).cloned() {
        let is_there = wanted.current_version(model.as_str()).is_some();
        if is_there || app.absent.contains(&model) || current.is_linked(&name, &model) {
            wanted.fold(&Event::ModelLinked { app: name.clone(), model });
        } else {
            faults.push(NotDeclarable::NoSuchModel { app: name.clone(), model });
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
