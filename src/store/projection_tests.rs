//! The rules of the metadata, in the original's words, and the laws of `decide` and `apply`.

use proptest::prelude::*;

use super::*;
use crate::store::samples::{
    add_app, add_model, any_command, app, app_name, changes, deploy, model, model_id, model_name,
    update,
};
use crate::store::served::{Served, reconcile};
use clipper_domain::InputType;

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
        let keeps = |effect: &&Effect| matches!(effect, Effect::KeepReplicas(..));
        reconcile(state, &Served::default()).iter().filter(keeps).count()
    };
    assert_eq!(kept(&state), 1);
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<Catalog>(&json).unwrap(), state);
    state.apply(&Event::ModelVersionRetired { id: model_id("m", "3") });
    assert_eq!(kept(&state), 0);
    assert!(!serde_json::to_string(&golden_state()).unwrap().contains("replicas"));
}

fn run(state: &mut Catalog, command: &Command) -> Vec<Event> {
    let events = state.decide(command).unwrap();
    for event in &events {
        state.apply(event);
    }
    events
}

/// A deployment with something else about it.
fn deploy_with(change: impl FnOnce(&mut Deployment), command: Command) -> Command {
    let Command::Deploy(mut deployment) = command else { panic!("{command:?}") };
    change(&mut deployment);
    Command::Deploy(deployment)
}

#[test]
fn line_18_a_deployment_never_changes_what_another_application_answers() {
    let mut state = golden_state();
    run(&mut state, &add_app("new"));
    for command in [
        deploy("m", "3", "new", InputType::Doubles, false),
        deploy("m", "3", "brand-new", InputType::Doubles, true),
    ] {
        let refusal = state.decide(&command).unwrap_err().to_string();
        assert!(refusal.contains("'m' is what application 'app' queries"), "{refusal}");
        assert!(refusal.contains("new'"), "{refusal}");
    }
    // Linked on purpose, they share it: a new version is for both.
    run(&mut state, &link("new", &["m"]));
    run(&mut state, &deploy("m", "3", "new", InputType::Doubles, false));
}

#[test]
fn line_19_a_version_can_be_registered_without_switching_to_it() {
    let mut state = golden_state();
    run(&mut state, &Command::StageModel(model("m", "3", InputType::Doubles)));
    assert_eq!(state.current_version("m").unwrap().as_str(), "2");
    let wait = |deployment: &mut Deployment| deployment.make_current = false;
    let events =
        run(&mut state, &deploy_with(wait, deploy("m", "4", "app", InputType::Doubles, false)));
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(state.current_version("m").unwrap().as_str(), "2");
    let first = deploy_with(wait, deploy("n", "1", "app2", InputType::Doubles, true));
    let refusal = state.decide(&first).unwrap_err().to_string();
    assert!(refusal.contains("'app2' does not query model 'n' yet"), "{refusal}");
}

#[test]
fn line_19_the_current_version_of_a_linked_model_is_guarded_where_that_is_asked_for() {
    let mut state = golden_state();
    let guarded = |version| Command::DeleteUnqueriedModel(model_id("m", version));
    let refusal = state.decide(&guarded("2")).unwrap_err().to_string();
    assert!(refusal.contains("application 'app' queries it"), "{refusal}");
    run(&mut state, &guarded("1"));
    run(&mut state, &Command::DeleteUnqueriedModel(model_id("other", "1")));
    // Clients of the original ask for no guard.
    run(&mut state, &Command::DeleteVersionedModel(model_id("m", "2")));
}

#[test]
fn line_22_an_application_is_changed_by_an_event_and_keeps_its_links() {
    let mut state = golden_state();
    let events = run(&mut state, &Command::UpdateApp(update("app", 7)));
    assert_eq!(events.len(), 1);
    let app = state.app("app").unwrap();
    assert_eq!((app.latency_slo.as_micros(), app.cache), (7, false));
    assert_eq!(app.default_output, "-1");
    assert_eq!(state.linked_models("app").count(), 1);
    assert_eq!(run(&mut state, &Command::UpdateApp(update("app", 7))), [], "nothing to change");
    let unknown = state.decide(&Command::UpdateApp(update("zzz", 7))).unwrap_err();
    assert_eq!(unknown.to_string(), "Application 'zzz' does not exist");
    let slower = |deployment: &mut Deployment| deployment.app_update = Some(update("app", 9));
    let events =
        run(&mut state, &deploy_with(slower, deploy("m", "3", "app", InputType::Doubles, true)));
    assert!(matches!(events[0], Event::AppChanged { .. }), "{events:?}");
}

#[test]
fn line_26_replicas_of_versions_before_the_previous_one_end_with_a_deployment() {
    let mut state = golden_state();
    let version = |version: &str| deploy("m", version, "app", InputType::Doubles, false);
    let kept = |state: &Catalog| -> Vec<String> {
        state.replicas().map(|(id, _)| id.version.to_string()).collect()
    };
    run(&mut state, &version("3"));
    run(&mut state, &version("4"));
    assert_eq!(kept(&state), ["3", "4"]);
    run(&mut state, &version("5"));
    assert_eq!(kept(&state), ["4", "5"]);
    assert!(state.model("m", "3").is_some(), "the version itself stays");
    let all = |deployment: &mut Deployment| deployment.old_replicas = OldReplicas::All;
    run(&mut state, &deploy_with(all, version("6")));
    assert_eq!(kept(&state), ["4", "5", "6"]);
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
            let name = app_name("app");
            let forgets = [
                Effect::StopApp(name.clone()),
                Effect::ForgetMetrics(name.clone()),
                Effect::ForgetPolicyState(name),
            ];
            assert_eq!(state.apply(&event), forgets);
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
            [
                Effect::RouteModel(model_name("m"), None),
                Effect::StopModel(id.clone()),
                Effect::ForgetModelMetrics(id.clone()),
            ]
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
        for (name, models) in state.links.by_app() {
            let app = state.app(name.as_str());
            let chooses = app.is_some_and(|app| !app.has_default_policy());
            prop_assert!(app.is_some() && (models.len() == 1 || chooses));
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
                followed.note_all(&state.apply(&event));
            }
        }
        let mut restarted = Served::default();
        restarted.note_all(&reconcile(&state, &Served::default()));
        prop_assert_eq!(followed, restarted);
    }
}

/// Many links in a row: the last effect says it for all, and nothing else changes.
#[test]
fn links_of_one_application_that_follow_each_other_are_told_once() {
    let (all, wanted) = changes(&[add_app("a"), add_app("b"), add_model("m", "1")]);
    let link = |app: &str, n: usize| Event::ModelLinked {
        app: app_name(app),
        model: model_name(&format!("m{n}")),
    };
    let mut events: Vec<Event> = all.concat().into_iter().map(|e| e.event).collect();
    let before = events.len();
    events.extend((0..1_000).map(|n| link("a", n)));
    events.push(link("b", 0));
    let mut catalog = Catalog::default();
    let effects = catalog.apply_all(&events.iter().collect::<Vec<_>>());
    let told: Vec<&Effect> = effects[before..].iter().flatten().collect();
    let [Effect::RouteApp(a, models), Effect::RouteApp(b, _)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((a.as_str(), models.len(), b.as_str()), ("a", MODELS_MAX, "b"));
    assert_eq!(catalog.linked_models("a").count(), 1_000);
    let mut folded = wanted;
    events[before..].iter().for_each(|event| folded.fold(event));
    assert_eq!(folded, catalog);
}

/// What a change hands on does not grow with what there is: 200,000 links of one application, as
/// Redis tells of them, and further changes beside them.
#[test]
fn line_11e_an_effect_of_a_link_is_as_small_among_many_links_as_among_few() {
    let mut catalog = Catalog::default();
    let mut spec = app("a", InputType::Doubles);
    spec.policy = "exp3".to_owned();
    catalog.apply(&Event::AppAdded { app: spec });
    let links: Vec<Event> = (0..200_000)
        .map(|n| Event::ModelLinked { app: app_name("a"), model: model_name(&format!("m{n}")) })
        .collect();
    let (mut batches, mut handed_on) = (0, 0);
    let mut count = |effects: Vec<Vec<Effect>>| {
        for effect in effects.into_iter().flatten() {
            let Effect::RouteApp(_, models) = effect else { continue };
            handed_on += models.len();
        }
    };
    for batch in links.chunks(1_024) {
        batches += 1;
        count(catalog.apply_all(&batch.iter().collect::<Vec<_>>()));
    }
    count(vec![
        catalog.apply(&Event::ModelUnlinked { app: app_name("a"), model: model_name("m7") }),
    ]);
    assert!(handed_on <= (batches + 1) * MODELS_MAX, "{handed_on} names in {batches} batches");
    // The other way round: who is linked to a model is not searched for among all applications.
    assert_eq!(catalog.apps_of(&model_name("m8")).count(), 1);
    assert_eq!(catalog.apps_of(&model_name("m7")).count(), 0);
    assert_eq!(reconcile(&catalog, &Served::default()).len(), 2);
}
