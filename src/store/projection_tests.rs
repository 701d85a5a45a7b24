//! The rules of the metadata, in the original's words, and the laws of `decide` and `apply`.

use proptest::prelude::*;

use super::*;
use crate::store::samples::{
    add_app, add_model, any_command, app, app_name, changes, deploy, model, model_id, model_name,
};

fn link(app: &str, models: &[&str]) -> Command {
    let models = models.iter().map(|m| model_name(m)).collect();
    Command::AddModelLinks { app: app_name(app), models }
}

fn unlink(app: &str, models: &[&str]) -> Command {
    let models = models.iter().map(|m| model_name(m)).collect();
    Command::DeleteModelLinks { app: app_name(app), models }
}

/// Applications `app` (doubles) and `strings`; models `m` (doubles, versions 1 and 2), `m_ints`,
/// `other`.
fn golden_state() -> Catalog {
    changes(&[
        add_app("app"),
        Command::AddApp(app("strings", InputType::Strings)),
        add_model("m", "1"),
        add_model("m", "2"),
        Command::AddModel(model("m_ints", "1", InputType::Integers)),
        add_model("other", "1"),
        link("app", &["m"]),
    ])
    .1
}

#[test]
fn a_deployment_is_one_change_or_none() {
    let mut state = golden_state();
    let kinds = |command: &Command, state: &Catalog| -> Vec<&'static str> {
        let events = state.decide(command).unwrap();
        let kind = |event: &Event| match event {
            Event::AppAdded { .. } => "app",
            Event::ModelAdded { .. } => "model",
            Event::ReplicasPlanned { .. } => "replicas",
            Event::ModelVersionSet { .. } => "current",
            Event::ModelLinked { .. } => "link",
            other => panic!("{other:?}"),
        };
        events.iter().map(kind).collect()
    };
    let new = deploy("n", "1", "new", InputType::Doubles, true);
    assert_eq!(kinds(&new, &state), ["app", "model", "replicas", "current", "link"]);
    // Of a linked model there is a new version only, and the application stays as it is.
    let next = deploy("m", "3", "app", InputType::Doubles, true);
    assert_eq!(kinds(&next, &state), ["model", "replicas", "current"]);
    for (command, why) in [
        (deploy("n", "1", "new", InputType::Doubles, false), "No app with name 'new' exists."),
        (deploy("m", "1", "app", InputType::Doubles, false), "already exists"),
        (deploy("n", "1", "app", InputType::Doubles, false), "is already linked to 'app'"),
        (deploy("m", "3", "app", InputType::Strings, false), "incompatible input_type"),
    ] {
        let refusal = state.decide(&command).unwrap_err().to_string();
        assert!(refusal.contains(why), "{refusal}");
    }
    for event in state.decide(&next).unwrap() {
        state.apply(&event);
    }
    let kept = |state: &Catalog| {
        let keeps = |effect: &Effect| matches!(effect, Effect::KeepReplicas(..));
        state.boot_effects().filter(keeps).count()
    };
    assert_eq!(kept(&state), 1);
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<Catalog>(&json).unwrap(), state);
    state.apply(&Event::ModelVersionRetired { id: model_id("m", "3") });
    assert_eq!(kept(&state), 0);
    assert!(!serde_json::to_string(&golden_state()).unwrap().contains("replicas"));
}

#[test]
fn refusals_are_in_the_originals_words() {
    let integers = Command::AddModel(model("m", "3", InputType::Integers));
    let cases = [
        (add_app("app"), "application 'app' already exists"),
        (Command::DeleteApp(app_name("zzz")), "Application 'zzz' does not exist"),
        (add_model("m", "1"), "model with name 'm' and version '1' already exists"),
        (
            integers,
            "Model with name 'm' is already linked to app 'app' using input type 'doubles'. The \
             input type you provided for a new version of the model, 'integers', is not \
             compatible.",
        ),
        (
            Command::SetModelVersion(model_id("m", "77")),
            "Cannot set non-existent version '77' for model with name 'm'",
        ),
        (
            Command::SetModelVersion(model_id("zz", "1")),
            "Cannot set version for nonexistent model 'zz'",
        ),
        (
            Command::DeleteVersionedModel(model_id("zz", "1")),
            "model with name 'zz' and version '1' does not exist",
        ),
        (link("zzz", &["m"]), "No app with name 'zzz' exists."),
        (link("app", &["zzz"]), "No model with name 'zzz' exists."),
        (
            link("app", &["m_ints"]),
            "Model with name 'm_ints' has incompatible input_type 'integers'. Requested app to \
             link to has input_type 'doubles'.",
        ),
        (link("app", &["m"]), "The model with name 'm' is already linked to 'app'"),
        (link("app", &["other"]), "A model with name m is already linked to 'app'."),
        (
            link("app", &[]),
            "Please provide the name of the model that you want to link to the application 'app'",
        ),
        (
            link("app", &["m", "other"]),
            "Applications must be linked with at most one model. Attempted to add links to 2 \
             models.",
        ),
        (unlink("zzz", &["m"]), "No app with name zzz exists."),
        (
            unlink("app", &["other"]),
            "Cannot remove nonexistent link between app app and model other",
        ),
    ];
    let state = golden_state();
    for (command, text) in cases {
        let refusal = state.decide(&command).unwrap_err();
        assert_eq!(refusal.to_string(), text, "{command:?}");
    }
}

#[test]
fn adding_a_model_version_makes_it_current() {
    let mut state = golden_state();
    assert_eq!(state.current_version("m").unwrap().as_str(), "2");
    let events = state.decide(&Command::SetModelVersion(model_id("m", "1"))).unwrap();
    let effects: Vec<Effect> = events.iter().flat_map(|e| state.apply(e)).collect();
    assert_eq!(effects, [Effect::RouteModel(model_name("m"), Some(model_id("m", "1").version))]);
}

#[test]
fn deleting_an_application_takes_its_links_and_adding_it_again_is_a_new_definition() {
    let mut state = golden_state();
    for command in [Command::DeleteApp(app_name("app"))] {
        for event in state.decide(&command).unwrap() {
            assert_eq!(state.apply(&event), [Effect::StopApp(app_name("app"))]);
        }
    }
    assert_eq!(state.linked_models("app").count(), 0);
    let again = app("app", InputType::Strings);
    for event in state.decide(&Command::AddApp(again.clone())).unwrap() {
        assert_eq!(
            state.apply(&event),
            [Effect::ServeApp(again.clone()), Effect::RouteApp(app_name("app"), BTreeSet::new())]
        );
    }
    assert_eq!(state.app("app"), Some(&again));
}

#[test]
fn retiring_the_current_version_leaves_the_model_without_one() {
    let mut state = golden_state();
    let id = model_id("m", "2");
    for event in state.decide(&Command::DeleteVersionedModel(id.clone())).unwrap() {
        let effects = state.apply(&event);
        assert_eq!(
            effects,
            [Effect::RouteModel(model_name("m"), None), Effect::StopModel(id.clone())]
        );
    }
    assert_eq!(state.current_version("m"), None);
    assert!(state.model("m", "1").is_some());
}

#[test]
fn unlinking_nothing_is_a_success_that_changes_nothing() {
    assert_eq!(golden_state().decide(&unlink("app", &[])), Ok(Vec::new()));
}

proptest! {
    /// Whatever users ask: versions and links point at things that exist, one link an application,
    /// and types agree wherever a current version is linked.
    #[test]
    fn the_state_stays_consistent(commands in prop::collection::vec(any_command(), 0..60)) {
        let (_, state) = changes(&commands);
        for (name, version) in &state.current {
            prop_assert!(state.model(name.as_str(), version.as_str()).is_some());
        }
        for (name, models) in &state.links {
            let app = state.app(name.as_str());
            prop_assert!(app.is_some() && models.len() == 1);
            for model in models {
                let current = state.current_version(model.as_str());
                let spec = current.and_then(|v| state.model(model.as_str(), v.as_str()));
                prop_assert!(spec.is_none_or(|s| Some(s.input_type) == app.map(|a| a.input_type)));
            }
        }
    }

    /// Applying an event twice is applying it once; a catalog survives its JSON form (J2 rests on
    /// both).
    #[test]
    fn apply_is_idempotent_and_json_keeps_everything(
        commands in prop::collection::vec(any_command(), 0..60),
    ) {
        let (changes, state) = changes(&commands);
        let mut twice = Catalog::default();
        for envelope in changes.iter().flatten() {
            twice.apply(&envelope.event);
            twice.apply(&envelope.event);
        }
        prop_assert_eq!(&twice, &state);
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Catalog>(&json).unwrap(), &state);
    }

    /// Following only the effects leads to what a restart starts: applications, models, routes.
    #[test]
    fn effects_lead_where_a_restart_leads(
        commands in prop::collection::vec(any_command(), 0..60),
    ) {
        let mut state = Catalog::default();
        let mut followed = Served::default();
        for command in &commands {
            for event in state.decide(command).unwrap_or_default() {
                state.apply(&event).into_iter().for_each(|e| followed.follow(e));
            }
        }
        let mut restarted = Served::default();
        state.boot_effects().for_each(|e| restarted.follow(e));
        prop_assert_eq!(followed, restarted);
    }
}

/// What actors would serve.
#[derive(Debug, Default, PartialEq)]
struct Served {
    apps: BTreeMap<AppName, AppSpec>,
    models: BTreeMap<ModelId, ModelSpec>,
    versions: BTreeMap<ModelName, ModelVersion>,
    routes: BTreeMap<AppName, BTreeSet<ModelName>>,
    replicas: BTreeMap<ModelId, Replicas>,
}

impl Served {
    fn follow(&mut self, effect: Effect) {
        match effect {
            Effect::ServeApp(app) => drop(self.apps.insert(app.name.clone(), app)),
            Effect::StopApp(name) => {
                self.apps.remove(&name);
                self.routes.remove(&name);
            }
            Effect::ServeModel(model) => drop(self.models.insert(model.id.clone(), model)),
            Effect::KeepReplicas(id, replicas) => drop(self.replicas.insert(id, replicas)),
            Effect::StopModel(id) => {
                self.models.remove(&id);
                self.replicas.remove(&id);
            }
            Effect::RouteModel(name, Some(version)) => drop(self.versions.insert(name, version)),
            Effect::RouteModel(name, None) => drop(self.versions.remove(&name)),
            Effect::RouteApp(app, models) if models.is_empty() => drop(self.routes.remove(&app)),
            Effect::RouteApp(app, models) => drop(self.routes.insert(app, models)),
        }
    }
}
