//! From any state to any other, and nothing to do where there is nothing.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::samples::{
    add_app, add_model, any_command, app, app_name, changes, model, model_id, model_name, replicas,
    rollout, set_policy,
};
use clipper_domain::{BatchSize, Command, InputType, ModelSpec};

fn state(commands: &[Command]) -> Catalog {
    changes(commands).1
}

fn is_empty(plan: &Plan) -> bool {
    plan.steps.is_empty() && plan.refused.is_empty()
}

fn after(state: &Catalog, plan: &Plan) -> Catalog {
    let mut state = state.clone();
    for event in state.decide(&Command::Apply(Box::new(plan.clone()))).unwrap() {
        state.apply(&event);
    }
    state
}

fn tensors(name: &str, version: &str) -> ModelSpec {
    let datatype = if version == "1" { "FP32" } else { "FP64" };
    let signature = json!({
        "inputs": [{"name": "x", "datatype": datatype, "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    });
    ModelSpec {
        signature: Some(serde_json::from_value(signature).unwrap()),
        ..model(name, version, InputType::Tensors)
    }
}

/// Also of applications over tensors, whose models need one signature.
fn any_of_all() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let version = prop::sample::select(vec!["1", "2", "3"]);
    let app_of_tensors = |name| Command::AddApp(app(name, InputType::Tensors));
    prop_oneof![
        8 => any_command(),
        1 => name.clone().prop_map(app_of_tensors),
        1 => (name.clone(), version.clone()).prop_map(|(n, v)| Command::AddModel(tensors(n, v))),
        1 => (name, version).prop_map(|(n, v)| Command::StageModel(tensors(n, v))),
    ]
}

fn some() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_of_all(), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_plan_leads_from_any_state_to_any_other(before in some(), other in some()) {
        let (current, wanted) = (state(&before), state(&other));
        let made = plan(7, &current, &wanted);
        prop_assert_eq!(&made.refused, &vec![]);
        let arrived = after(&current, &made);
        prop_assert_eq!(arrived.planned(), wanted.planned());
        prop_assert!(is_empty(&plan(8, &arrived, &wanted)));
        // Keys are nobody's plan.
        prop_assert_eq!(arrived.keys().count(), current.keys().count());
    }

    /// A history, back to any of its points, and on.
    #[test]
    fn a_plan_leads_back(before in some(), later in some()) {
        let then = state(&before);
        let now = state(&[before, later].concat());
        let back = plan(1, &now, &then);
        prop_assert_eq!(&back.refused, &vec![]);
        let there = after(&now, &back);
        prop_assert_eq!(there.planned(), then.planned());
        let forth = plan(2, &there, &now);
        prop_assert_eq!(after(&there, &forth).planned(), now.planned());
    }
}

#[test]
fn a_plan_says_what_becomes_of_what() {
    let link = |app: &str, model: &str| Command::AddModelLinks {
        app: app_name(app),
        models: vec![model_name(model)],
    };
    let keep = |count| Command::KeepReplicas {
        id: model_id("m", "1"),
        replicas: clipper_domain::Replicas { count, ..replicas() },
    };
    let current =
        state(&[add_app("a"), add_model("m", "1"), keep(2), link("a", "m"), add_app("b")]);
    let faster = clipper_domain::AppUpdate {
        latency_slo: clipper_domain::LatencySlo::from_micros(20_000),
        ..clipper_domain::AppUpdate::of(app_name("a"))
    };
    let smaller = clipper_domain::ModelUpdate {
        batch_size: BatchSize::from_number(8),
        ..clipper_domain::ModelUpdate::of(model_id("m", "1"))
    };
    let wanted = state(&[
        add_app("a"),
        Command::UpdateApp(faster),
        set_policy("a", "exp3", json!({"explore": 0.1})),
        add_model("m", "1"),
        Command::UpdateModel(smaller),
        keep(3),
        add_model("m", "2"),
        link("a", "m"),
    ]);
    let steps = plan(9, &current, &wanted).describe().steps;
    let said: Vec<String> = steps.iter().map(|step| serde_json::to_string(step).unwrap()).collect();
    let expected = [
        r#"{"kind":"removed","thing":"application","name":"b"}"#,
        r#""fields":[{"field":"latency_slo_micros","before":100000,"after":20000}]"#,
        r#"{"field":"name","before":"DefaultOutputSelectionPolicy","after":"exp3"}"#,
        r#""name":"m:1","fields":[{"field":"batch_size","before":-1,"after":8}]"#,
        r#"{"kind":"added","thing":"model","name":"m:2","fields":"#,
        r#""thing":"replicas","name":"m:1","fields":[{"field":"count","before":2,"after":3}]"#,
        r#"{"kind":"changed","thing":"current_version","name":"m","fields":"#,
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (step, expected) in said.iter().zip(expected) {
        assert!(step.contains(expected), "{step}");
    }
}

#[test]
fn a_rollout_that_runs_now_and_did_not_then_is_ended() {
    let models = vec![model_name("m")];
    let then = [
        add_app("a"),
        add_model("m", "1"),
        Command::StageModel(model("m", "2", InputType::Doubles)),
        Command::AddModelLinks { app: app_name("a"), models },
    ];
    let start =
        Command::StartRollout { app: app_name("a"), rollout: Box::new(rollout(7, "m:1", "m:2")) };
    let (then, now) = (state(&then), state(&[then.to_vec(), vec![start]].concat()));
    let made = plan(1, &now, &then);
    assert_eq!(made.steps.len(), 1);
    assert!(after(&now, &made).app("a").unwrap().running_rollout().is_none());
    // One that ran then, too, goes on; one that did not is not begun.
    assert!(is_empty(&plan(1, &now, &now)));
    assert!(is_empty(&plan(1, &then, &now)));
}

#[test]
fn a_plan_of_a_state_that_has_moved_on_is_refused() {
    let view = crate::store::CatalogView::new(5, state(&[add_app("a")]));
    let wanted = state(&[add_app("b")]);
    let made = plan(4, &view.read(), &wanted);
    let old = Command::Apply(Box::new(made.clone()));
    let why = view.decide(&old).unwrap_err();
    assert_eq!(why, CommandError::PlanIsOld { base: 4, now: 5 });
    let fresh = Command::Apply(Box::new(Plan { base: 5, ..made }));
    assert_eq!(view.decide(&fresh).unwrap().len(), 2);
}

#[test]
fn what_the_rules_refuse_is_told_and_the_rest_is_ordered() {
    // Only rows of Redis can make such a state.
    let mut wanted = state(&[add_app("a"), add_model("m", "1"), add_model("n", "1")]);
    for model in ["m", "n"] {
        let (app, model) = (app_name("a"), model_name(model));
        wanted.apply(&crate::store::event::Event::ModelLinked { app, model });
    }
    let made = plan(0, &Catalog::default(), &wanted);
    assert_eq!(made.refused.len(), 1);
    assert!(made.refused[0].why.to_string().contains("is already linked"));
    assert_eq!(after(&Catalog::default(), &made).linked_models("a").count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// One application goes back; no other definition is touched.
    #[test]
    fn one_application_goes_back_alone(before in some(), later in some()) {
        let then = state(&before);
        let now = state(&[before, later].concat());
        let name = app_name("a");
        let wanted = back_to(&now, &then, Some(&name));
        let made = plan(1, &now, &wanted);
        // Others may rely by now on what would have to go: that is said.
        if made.refused.is_empty() {
            let there = after(&now, &made);
            let of = |state: &Catalog, app: &str| state.planned().app(app).cloned();
            prop_assert_eq!(of(&there, "a"), of(&then, "a"));
            prop_assert!(there.linked_models("a").eq(then.linked_models("a")));
            for other in ["b", "c"] {
                prop_assert_eq!(of(&there, other), of(&now, other));
                prop_assert!(there.linked_models(other).eq(now.linked_models(other)));
            }
            for model in then.linked_models("a") {
                let current = |state: &Catalog| state.current_version(model.as_str()).cloned();
                prop_assert_eq!(current(&there), current(&then));
            }
        }
    }
}
