//! How two states of the metadata differ, and what their entries are made of. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::projection::Catalog;
use clipper_domain::difference::{Difference, EntryChange, Kind};
use clipper_domain::{AccessKey, ModelId, ModelName};

type Fields = Map<String, Value>;

/// What turns `before` into `after`; of more than `entries_max` entries the number of the others.
#[must_use]
pub fn difference(before: &Catalog, after: &Catalog, entries_max: usize) -> Difference {
    let apps = names(before.apps().map(|app| &app.name), after.apps().map(|app| &app.name));
    let apps = apps.into_iter().filter_map(|name| {
        let name = name.as_str();
        let linked = |catalog: &Catalog| catalog.linked_models(name).cloned().collect::<Vec<_>>();
        let is_same = before.app(name) == after.app(name) && linked(before) == linked(after);
        let entry = || {
            let fields = [before, after].map(|catalog| app_fields(catalog, name));
            entry((Kind::Application, name), fields)
        };
        (!is_same).then(entry).flatten()
    });
    let current = |catalog| Catalog::current_versions(catalog).map(|(model, _)| model);
    let models = names(current(before), current(after)).into_iter().filter_map(|model| {
        let name = model.as_str();
        let fields = [before, after].map(|catalog| {
            let version = catalog.current_version(name)?;
            Some(Map::from_iter([("current_version".to_owned(), json!(version))]))
        });
        entry((Kind::Model, name), fields)
    });
    let ids = |catalog| Catalog::models(catalog).map(|model| &model.id);
    let versions = names(ids(before), ids(after)).into_iter().filter_map(|id| {
        let both = [before, after];
        let [old, new] = both.map(|catalog| (catalog.model_by_id(id), catalog.replicas_of(id)));
        let fields = || both.map(|catalog| version_fields(catalog, id));
        if old == new { None } else { entry((Kind::ModelVersion, &id.to_string()), fields()) }
    });
    let keys = names(before.keys().map(|key| &key.name), after.keys().map(|key| &key.name));
    let keys = keys.into_iter().filter_map(|name| key_change(before, after, name.as_str()));
    let mut all = apps.chain(models).chain(versions).chain(keys);
    let entries: Vec<EntryChange> = all.by_ref().take(entries_max).collect();
    Difference { entries, left_out: all.count() }
}

fn names<'n, T: Ord>(
    before: impl Iterator<Item = &'n T>,
    after: impl Iterator<Item = &'n T>,
) -> BTreeSet<&'n T> {
    before.chain(after).collect()
}

fn entry(which: (Kind, &str), [before, after]: [Option<Fields>; 2]) -> Option<EntryChange> {
    EntryChange::between(which, before, after)
}

fn fields_of(entry: &impl Serialize) -> Fields {
    match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => fields,
        _ => Fields::new(),
    }
}

/// What an application is made of, its links among it; also what is left out of records where it
/// is as usual.
#[must_use]
pub fn app_fields(catalog: &Catalog, name: &str) -> Option<Fields> {
    let app = catalog.app(name)?;
    let mut fields = fields_of(app);
    fields.remove("name");
    if let Some(slo) = fields.remove("latency_slo") {
        fields.insert("latency_slo_micros".to_owned(), slo);
    }
    let linked: Vec<&str> = catalog.linked_models(name).map(ModelName::as_str).collect();
    for (field, value) in [
        ("linked_models", json!(linked)),
        ("cache", json!(app.cache)),
        ("on_model_error", json!(app.on_model_error)),
        ("weight", json!(app.weight)),
    ] {
        fields.insert(field.to_owned(), value);
    }
    Some(fields)
}

fn version_fields(catalog: &Catalog, id: &ModelId) -> Option<Fields> {
    let model = catalog.model_by_id(id)?;
    let mut fields = fields_of(model);
    fields.remove("id");
    fields.insert("cache".to_owned(), json!(model.cache));
    if let Some(replicas) = catalog.replicas_of(id) {
        fields.insert("replicas".to_owned(), json!(replicas));
    }
    Some(fields)
}

/// What secrets are made into stays here; that there is another one is told.
fn key_change(before: &Catalog, after: &Catalog, name: &str) -> Option<EntryChange> {
    let [old, new] = [before, after].map(|catalog| catalog.key(name));
    if old == new {
        return None;
    }
    let is_rotated = old.zip(new).is_some_and(|(old, new)| old.hash != new.hash);
    let fields = |key: Option<&AccessKey>, secret: &str| {
        let mut fields = fields_of(key?);
        let secrets = ["name", "hash", "previous"].map(|field| fields.remove(field));
        debug_assert!(secrets[1].is_some(), "what is left out is named as it was");
        if is_rotated {
            fields.insert("secret".to_owned(), json!(secret));
        }
        Some(fields)
    };
    entry((Kind::Key, name), [fields(old, "one"), fields(new, "another")])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::samples::{
        access_key, add_app, add_model, any_command, app_name, changes, model_id, model_name,
        update,
    };
    use clipper_domain::difference::Became;
    use clipper_domain::{Command, Role};

    fn state(commands: &[Command]) -> Catalog {
        changes(commands).1
    }

    #[test]
    fn what_became_of_applications_models_versions_and_keys_is_told() {
        let key = |hash| Command::AddKey {
            key: Box::new(access_key("root", Role::Admin, hash)),
            admin_elsewhere: true,
        };
        let link = Command::AddModelLinks { app: app_name("a"), models: vec![model_name("m")] };
        let before = state(&[add_app("a"), add_app("gone"), add_model("m", "1"), key(1)]);
        let rest = [
            Command::UpdateApp(update("a", 5_000)),
            link,
            Command::DeleteApp(app_name("gone")),
            add_model("m", "2"),
        ];
        let same = [add_app("a"), add_app("gone"), add_model("m", "1"), key(2)];
        let after = state(&[&same[..], &rest[..]].concat());
        let told = difference(&before, &after, 100);
        let entries: Vec<(&str, Became)> =
            told.entries.iter().map(|entry| (entry.name.as_str(), entry.became)).collect();
        assert_eq!(
            entries,
            [
                ("a", Became::Changed),
                ("gone", Became::Removed),
                ("m", Became::Changed),
                ("m:2", Became::Added),
                ("root", Became::Changed),
            ]
        );
        let words = told.to_string();
        for line in [
            "~ application a changed\n    latency_slo_micros: 100000 -> 5000\n    \
             linked_models: [] -> [\"m\"]",
            "current_version: \"1\" -> \"2\"",
            "secret: \"one\" -> \"another\"",
        ] {
            assert!(words.contains(line), "{words}");
        }
        assert!(!serde_json::to_string(&told).unwrap().contains("0101"), "no hash is told");
        assert_eq!(difference(&before, &after, 2).left_out, 3);
    }

    #[test]
    fn replicas_are_part_of_their_version() {
        let deployed =
            crate::store::samples::deploy("m", "1", "a", clipper_domain::InputType::Doubles, true);
        let before = state(std::slice::from_ref(&deployed));
        let more = Command::SetReplicas { id: model_id("m", "1"), count: 7 };
        let words = difference(&before, &state(&[deployed, more]), 9).to_string();
        assert!(words.starts_with("~ version m:1 changed\n    replicas: "), "{words}");
    }

    proptest! {
        /// Nothing is told of what is the same, and something of everything else.
        #[test]
        fn a_difference_is_empty_only_between_equal_states(
            commands in prop::collection::vec(any_command(), 0..30),
            cut in 0..30_usize,
        ) {
            let before = state(&commands[..cut.min(commands.len())]);
            let after = state(&commands);
            let told = difference(&before, &after, usize::MAX);
            prop_assert_eq!(told.entries.is_empty(), before == after);
            prop_assert!(difference(&after, &after, usize::MAX).entries.is_empty());
            let back = difference(&after, &before, usize::MAX);
            prop_assert_eq!(back.entries.len(), told.entries.len());
        }
    }
}
