//! What a config file asks of a state that operators change, too: what was edited in the file since
//! it was read last; the rest stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Declaration, DeclaredApp, DeclaredModel};
use crate::store::projection::Catalog;
use clipper_domain::{AppName, AppSpec, ModelName, ModelSpec};

/// What the file said when it was read last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub apps: BTreeMap<AppName, RememberedApp>,
    pub models: Vec<RememberedModel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedApp {
    pub spec: AppSpec,
    pub models: BTreeSet<ModelName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedModel {
    pub spec: ModelSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
}

/// What stays as it is, though the file says something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// `application`, `model`.
    pub what: &'static str,
    pub name: String,
    pub why: &'static str,
}

const BY_OTHERS: &str = "it was registered before by somebody else; `clipper apply` changes it";
const BY_OPERATOR: &str = "an operator has changed it since; `clipper apply` changes it back";
const TYPE: &str = "an input type cannot change; add another application";
const VERSION: &str = "what a version takes and gives does not change; give it another version";

impl Remembered {
    #[must_use]
    pub fn of(declaration: &Declaration) -> Self {
        let app = |app: &DeclaredApp| {
            let remembered = RememberedApp { spec: app.spec.clone(), models: app.models.clone() };
            (app.spec.name.clone(), remembered)
        };
        let model = |model: &DeclaredModel| RememberedModel {
            spec: model.spec.clone(),
            current: model.current,
        };
        Self {
            apps: declaration.apps.iter().map(app).collect(),
            models: declaration.models.iter().map(model).collect(),
        }
    }

    fn model(&self, spec: &ModelSpec) -> Option<&RememberedModel> {
        self.models.iter().find(|model| model.spec.id == spec.id)
    }
}

/// What is to be declared of the file; `remembered`: none if nobody remembers.
#[must_use]
pub fn merge(
    file: &Declaration,
    remembered: Option<&Remembered>,
    current: &Catalog,
) -> (Declaration, Vec<Stays>) {
    let mut stays = Vec::new();
    let models = file.models.iter().filter_map(|model| {
        let Some(known) = current.model_by_id(&model.spec.id) else { return Some(model.clone()) };
        let (model, why) = merged_model(model, remembered, known);
        stays.extend(why.map(|why| Stays { what: "model", name: known.id.to_string(), why }));
        model
    });
    let models = models.collect();
    let apps = file.apps.iter().filter_map(|app| {
        let name = &app.spec.name;
        let Some(known) = current.app(name.as_str()) else { return Some(app.clone()) };
        if known.input_type != app.spec.input_type {
            stays.push(Stays { what: "application", name: name.to_string(), why: TYPE });
            return None;
        }
        let before = remembered.map(|remembered| remembered.apps.get(name));
        let (spec, why) = merged_app(&app.spec, before, known);
        let (models, links_why) = merged_links(app, before, known, current);
        let why = why.into_iter().chain(links_why);
        stays.extend(why.map(|why| Stays { what: "application", name: name.to_string(), why }));
        Some(DeclaredApp { spec, models, absent: app.absent.clone() })
    });
    (Declaration { apps: apps.collect(), models }, stays)
}

/// Of one thing: what it is to be, if the file says something else than what is.
#[allow(clippy::option_option, reason = "nobody remembers, or there was none")]
fn chosen<T: Clone + PartialEq>(
    file: &T,
    before: Option<Option<&T>>,
    known: &T,
) -> (T, Option<&'static str>) {
    match before {
        _ if known == file => (file.clone(), None),
        None => (known.clone(), Some(BY_OTHERS)),
        Some(before) if before == Some(file) => (known.clone(), Some(BY_OPERATOR)),
        Some(_) => (file.clone(), None),
    }
}

/// `before`: outer none if nobody remembers, inner if the file did not have it.
#[allow(clippy::option_option, reason = "nobody remembers, or there was none")]
fn merged_app(
    file: &AppSpec,
    before: Option<Option<&RememberedApp>>,
    known: &AppSpec,
) -> (AppSpec, Option<&'static str>) {
    let before = before.map(|before| before.map(|before| &before.spec));
    let policies = before.map(|before| before.map(AppSpec::policy_spec));
    let policies = policies.as_ref().map(Option::as_ref);
    let (policy, policy_why) = chosen(&file.policy_spec(), policies, &known.policy_spec());
    // The policy is judged by itself, and of a rollout no file says anything.
    let without = |spec: &AppSpec| AppSpec {
        policy: String::new(),
        policy_parameters: clipper_domain::PolicyParameters::new(),
        rollout: None,
        ..spec.clone()
    };
    let before = before.map(|before| before.map(&without));
    let before = before.as_ref().map(Option::as_ref);
    let (rest, why) = chosen(&without(file), before, &without(known));
    let spec = AppSpec { policy: policy.name, policy_parameters: policy.parameters, ..rest };
    (spec, why.or(policy_why))
}

#[allow(clippy::option_option, reason = "nobody remembers, or there was none")]
fn merged_links(
    file: &DeclaredApp,
    before: Option<Option<&RememberedApp>>,
    known: &AppSpec,
    current: &Catalog,
) -> (BTreeSet<ModelName>, Option<&'static str>) {
    let now: BTreeSet<ModelName> = current.linked_models(known.name.as_str()).cloned().collect();
    let before = before.flatten().map(|before| &before.models);
    let all = || file.models.union(&now).cloned().collect();
    match before {
        // What the file does not name any more goes; what others have linked stays.
        Some(before) if *before != file.models => {
            let kept = now.difference(before).chain(&file.models).cloned();
            let has_one = file.spec.has_default_policy();
            (if has_one { file.models.clone() } else { kept.collect() }, None)
        }
        _ if now.is_empty() || !known.has_default_policy() => (all(), None),
        _ if file.models.is_subset(&now) => (now, None),
        _ => {
            (now, Some("it is linked to another model; `clipper apply` links it as the file says"))
        }
    }
}

fn merged_model(
    file: &DeclaredModel,
    remembered: Option<&Remembered>,
    known: &ModelSpec,
) -> (Option<DeclaredModel>, Option<&'static str>) {
    if !known.serves_as(&file.spec) {
        return (None, Some(VERSION));
    }
    let before = remembered.and_then(|remembered| remembered.model(&file.spec));
    // Notes are the file's, if nobody remembers: so they always were.
    let noted = ModelSpec { batch_size: known.batch_size, cache: known.cache, ..file.spec.clone() };
    let (spec, why) = match before {
        None => {
            let why = (noted.batch_size, noted.cache) != (file.spec.batch_size, file.spec.cache);
            (noted, why.then_some(BY_OTHERS))
        }
        Some(before) => chosen(&file.spec, Some(Some(&before.spec)), known),
    };
    // An operator may have switched to another version since the file said so.
    let is_said_again = before.is_some_and(|before| before.current == file.current);
    let current = file.current.filter(|_| !is_said_again);
    (Some(DeclaredModel { spec, replicas: file.replicas.clone(), current }), why)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
