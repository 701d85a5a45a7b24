//! States as files and back, and what a file makes of a state that has more.

use proptest::prelude::*;

use super::*;
use crate::store::plan::plan;
use crate::store::samples::{
    add_app, add_model, any_command, app_name, changes, model_name, replicas,
};
use clipper_domain::Command;

fn state(commands: &[Command]) -> Catalog {
    changes(commands).1
}

fn declared(toml: &str) -> Declaration {
    Declaration::read(&toml::from_str(toml).unwrap(), true).unwrap()
}

fn applied(declaration: &Declaration, to: &Catalog, prune: bool) -> Catalog {
    let (wanted, faults) = declaration.wanted(to, prune);
    assert_eq!(faults, vec![]);
    let made = plan(0, to, &wanted);
    assert_eq!(made.refused, vec![]);
    let mut state = to.clone();
    for event in state.decide(&Command::Apply(Box::new(made))).unwrap() {
        state.apply(&event);
    }
    state
}

const APP: &str = "[[application]]\nname = \"a\"\ninput_type = \"doubles\"\n\
                   default_output = \"-1\"\nlatency_slo_micros = 100000\n";
const MODEL: &str = "[[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_exported_state_is_made_by_applying_the_file(
        commands in prop::collection::vec(any_command(), 0..60),
        others in prop::collection::vec(any_command(), 0..20),
    ) {
        let state = state(&commands);
        let text = export(&state).to_toml().unwrap();
        let declaration = declared(&text);
        let made = applied(&declaration, &Catalog::default(), false);
        prop_assert_eq!(made.planned(), state.planned(), "{}", text);
        // Twice changes nothing.
        let again = plan(1, &made, &declaration.wanted(&made, false).0);
        prop_assert!(again.steps.is_empty() && again.refused.is_empty());
        // Of a server with other things, what is not in the file is pruned.
        let (_, other) = changes(&others);
        prop_assert_eq!(applied(&declaration, &other, true).planned(), state.planned());
    }
}

#[test]
fn what_is_not_declared_stays_unless_it_is_pruned() {
    let current = state(&[add_app("a"), add_app("b"), add_model("n", "1")]);
    let declaration = declared(&format!("{APP}model = \"m\"\n{MODEL}"));
    let kept = applied(&declaration, &current, false);
    assert!(kept.app("b").is_some() && kept.model("n", "1").is_some());
    assert!(kept.is_linked(&app_name("a"), &model_name("m")));
    let pruned = applied(&declaration, &current, true);
    assert_eq!((pruned.apps().count(), pruned.models().count()), (1, 1));
    // The links of a declared application are those that are declared.
    let linked_elsewhere = declared(&format!("{APP}model = \"n\"\n"));
    let moved = applied(&linked_elsewhere, &kept, false);
    let links: Vec<&str> = moved.linked_models("a").map(ModelName::as_str).collect();
    assert_eq!(links, ["n"]);
}

#[test]
fn the_current_version_is_the_one_that_is_said_or_new_or_was() {
    let version = |version: &str, more: &str| {
        format!("{}{more}\n", MODEL.replace("\"1\"", &format!("\"{version}\"")))
    };
    let current = |text: &str, to: &Catalog| {
        let made = applied(&declared(text), to, false);
        made.current_version("m").map(ToString::to_string)
    };
    let none = Catalog::default();
    let both = version("1", "") + &version("2", "");
    assert_eq!(current(&both, &none).as_deref(), Some("2"));
    let first = version("1", "current = true") + &version("2", "");
    assert_eq!(current(&first, &none).as_deref(), Some("1"));
    // An operator went back to 1: nothing is said against that, and 3 is new.
    let back = applied(&declared(&first), &none, false);
    assert_eq!(current(&both, &back).as_deref(), Some("1"));
    assert_eq!(current(&(both + &version("3", "")), &back).as_deref(), Some("3"));
    let neither = version("1", "current = false") + &version("2", "current = false");
    assert_eq!(current(&neither, &back), None);
    let two = version("1", "current = true") + &version("2", "current = true");
    let faults = declared(&two).wanted(&none, false).1;
    assert_eq!(faults, [NotDeclarable::SeveralCurrent(model_name("m"))]);
}

#[test]
fn what_cannot_be_declared_is_said_all_at_once() {
    let keep = Command::KeepReplicas {
        id: crate::store::samples::model_id("m", "1"),
        replicas: replicas(),
    };
    let current = state(&[add_app("a"), add_model("m", "1"), keep]);
    let text = format!("{APP}model = \"x\"\n{MODEL}").replace("doubles", "strings");
    let faults = declared(&text).wanted(&current, false).1;
    let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 2, "{text:?}");
    assert!(text[0].contains("'m:1'") && text[1].contains("'a'"));
    let unknown = declared(&format!("{APP}model = \"x\"\n")).wanted(&current, false).1;
    assert!(unknown[0].to_string().contains("'x' has no current version"), "{unknown:?}");
    // A container that is not declared is left to who started it.
    let kept = applied(&declared(MODEL), &current, false);
    assert_eq!(kept.replicas().count(), 1);
    assert_eq!(applied(&declared(MODEL), &current, true).replicas().count(), 0);
}
