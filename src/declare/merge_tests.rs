//! Who has the last word: whoever changed last.

use super::*;
use crate::store::samples::{add_app, add_model, app, changes, model, model_name};
use clipper_domain::{BatchSize, Command, InputType, LatencySlo};

fn declaration(spec: AppSpec, models: &[&str]) -> Declaration {
    let models = models.iter().map(|model| model_name(model)).collect();
    Declaration {
        apps: vec![DeclaredApp { spec, models, absent: BTreeSet::new() }],
        models: Vec::new(),
    }
}

fn of(slo: i64) -> AppSpec {
    let latency_slo = LatencySlo::from_micros(slo).unwrap();
    AppSpec { latency_slo, ..app("a", InputType::Doubles) }
}

fn links(models: &[&str]) -> BTreeSet<ModelName> {
    models.iter().map(|model| model_name(model)).collect()
}

#[test]
fn line_22_what_was_edited_in_the_file_is_changed_and_what_an_operator_changed_stays() {
    let (_, current) = changes(&[Command::AddApp(of(20_000))]);
    let remembered = |slo| Remembered::of(&declaration(of(slo), &[]));
    let merged = |file: &AppSpec, remembered: Option<&Remembered>| {
        let (merged, stays) = merge(&declaration(file.clone(), &[]), remembered, &current);
        let why = stays.first().map(|stays| stays.why);
        (merged.apps.first().map(|app| app.spec.clone()), why)
    };
    let new = of(100_000);
    let edited = merged(&new, Some(&remembered(20_000)));
    assert_eq!(edited, (Some(new.clone()), None));
    let (spec, why) = merged(&new, Some(&remembered(100_000)));
    assert!(spec == Some(of(20_000)) && why.unwrap().contains("operator"));
    let (spec, why) = merged(&new, None);
    assert!(spec == Some(of(20_000)) && why.unwrap().contains("somebody else"));
    let strings = AppSpec { input_type: InputType::Strings, ..new.clone() };
    let (spec, why) = merged(&strings, Some(&remembered(20_000)));
    assert!(spec.is_none() && why.unwrap().contains("input type"));
    // The file names it for the first time: that is an edit.
    assert_eq!(merged(&new, Some(&Remembered::default())), (Some(new), None));
}

#[test]
fn a_policy_is_judged_by_itself() {
    let (_, current) = changes(&[Command::AddApp(of(20_000))]);
    let chooses = AppSpec { policy: "exp3".to_owned(), ..of(20_000) };
    let before = Remembered::of(&declaration(of(10_000), &[]));
    let (merged, stays) = merge(&declaration(chooses.clone(), &[]), Some(&before), &current);
    assert!(stays.is_empty() && merged.apps[0].spec == chooses, "{stays:?}");
    // An operator took it back, the objective was edited.
    let before = Remembered::of(&declaration(AppSpec { policy: "exp3".to_owned(), ..of(9) }, &[]));
    let (merged, stays) = merge(&declaration(chooses, &[]), Some(&before), &current);
    assert_eq!((merged.apps[0].spec.clone(), stays.len()), (of(20_000), 1));
}

#[test]
fn links_are_added_and_go_when_the_file_drops_them() {
    let link = |model| Command::AddModelLinks {
        app: crate::store::samples::app_name("a"),
        models: vec![model_name(model)],
    };
    let models = [add_model("m", "1"), add_model("n", "1")];
    let with = |more: &[Command]| changes(&[&[add_app("a")], &models[..], more].concat()).1;
    let spec = || app("a", InputType::Doubles);
    let merged = |file: &[&str], before: Option<&[&str]>, current: &Catalog| {
        let before = before.map(|before| Remembered::of(&declaration(spec(), before)));
        let (merged, stays) = merge(&declaration(spec(), file), before.as_ref(), current);
        (merged.apps[0].models.clone(), stays.len())
    };
    assert_eq!(merged(&["m"], None, &with(&[])), (links(&["m"]), 0));
    // Unlinked by an operator: the file still says so, as at every start.
    assert_eq!(merged(&["m"], Some(&["m"]), &with(&[])), (links(&["m"]), 0));
    assert_eq!(merged(&["m"], Some(&["m"]), &with(&[link("n")])), (links(&["n"]), 1));
    assert_eq!(merged(&["m"], Some(&["n"]), &with(&[link("n")])), (links(&["m"]), 0));
    assert_eq!(merged(&[], Some(&["n"]), &with(&[link("n")])), (links(&[]), 0));
    assert_eq!(merged(&[], Some(&[]), &with(&[link("n")])), (links(&["n"]), 0));
}

#[test]
fn a_version_changes_where_the_file_was_edited() {
    let (_, current) = changes(&[add_model("m", "1")]);
    let spec = model("m", "1", InputType::Doubles);
    let of = |spec: &ModelSpec, current| Declaration {
        apps: Vec::new(),
        models: vec![DeclaredModel { spec: spec.clone(), replicas: None, current }],
    };
    let eight = ModelSpec { batch_size: BatchSize::from_number(8).unwrap(), ..spec.clone() };
    let merged = |file: &Declaration, before: Option<&Declaration>| {
        let before = before.map(Remembered::of);
        let (merged, stays) = merge(file, before.as_ref(), &current);
        let models = merged.models.iter().map(|model| (model.spec.clone(), model.current));
        (models.collect::<Vec<_>>(), stays.len())
    };
    let (file, before) = (of(&eight, None), of(&spec, None));
    assert_eq!(merged(&file, Some(&before)), (vec![(eight.clone(), None)], 0));
    assert_eq!(merged(&file, Some(&file)), (vec![(spec.clone(), None)], 1));
    assert_eq!(merged(&file, None), (vec![(spec.clone(), None)], 1));
    // What was said before does not switch back what an operator has switched.
    let (said, unsaid) = (of(&spec, Some(true)), of(&spec, None));
    assert_eq!(merged(&said, Some(&unsaid)).0[0].1, Some(true));
    assert_eq!(merged(&said, Some(&said)).0[0].1, None);
    let strings = of(&model("m", "1", InputType::Strings), None);
    assert_eq!(merged(&strings, Some(&before)), (vec![], 1));
}
