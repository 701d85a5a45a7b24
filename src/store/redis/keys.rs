//! What the catalog says of keys of its tables. Pure.

use std::collections::BTreeSet;

use super::tables::{Key, Table, app_of, current_of, model_of};
use crate::store::projection::Catalog;
use crate::store::projection::turn::Turn;
use clipper_domain::AppSpec;

/// Whether the catalog has something of a key of its tables.
#[must_use]
pub fn has(catalog: &Catalog, key: &Key) -> bool {
    if let Some(app) = app_of(key) {
        let app = app.as_str();
        let linked = || catalog.linked_models(app).next().is_some();
        if key.table == Table::Links { linked() } else { catalog.app(app).is_some() }
    } else if let Some(id) = model_of(key) {
        catalog.model(id.name.as_str(), id.version.as_str()).is_some()
    } else {
        current_of(key).is_some_and(|model| catalog.current_version(model.as_str()).is_some())
    }
}

/// All keys of its tables that the catalog has something of.
pub fn keys(catalog: &Catalog) -> impl Iterator<Item = Key> {
    let linked = |app: &&AppSpec| catalog.linked_models(app.name.as_str()).next().is_some();
    let apps = catalog.apps().map(|app| Key::app(&app.name));
    let links = catalog.apps().filter(linked).map(|app| Key::links(&app.name));
    let models = catalog.models().map(|model| Key::model(&model.id));
    let current = catalog.current_versions().map(|(model, _)| Key::current(model));
    apps.chain(links).chain(models).chain(current)
}

/// All of them, and those of planned replicas and of keys of people.
#[must_use]
pub fn ours(catalog: &Catalog) -> BTreeSet<Key> {
    let access = catalog.keys().map(|key| Key::access(&key.name));
    keys(catalog).chain(plans(catalog)).chain(access).collect()
}

/// The keys of planned replicas.
pub fn plans(catalog: &Catalog) -> impl Iterator<Item = Key> {
    catalog.replicas().map(|(id, _)| Key::replicas(id))
}

/// A key of each kind that the catalog has entries of.
#[must_use]
pub fn samples(turn: &Turn) -> Vec<Key> {
    let Turn { app, linked, model, current } = turn;
    let samples = [
        app.as_ref().map(Key::app),
        linked.as_ref().map(Key::links),
        model.as_ref().map(Key::model),
        current.as_ref().map(Key::current),
    ];
    samples.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{add_app, add_model, app_name, changes, model_id};

    #[test]
    fn every_key_has_its_turn() {
        let models = [add_model("m", "1"), add_model("m", "2"), add_model("n", "1")];
        let (_, catalog) = changes(&[&[add_app("a"), add_app("b")], models.as_slice()].concat());
        let mut turn = Catalog::default().turn_after(&Turn::default());
        assert_eq!(samples(&turn), []);
        let turns = [("a", "m", "1", "m"), ("b", "m", "2", "n"), ("a", "n", "1", "m")];
        for (app, model, version, of_current) in turns.into_iter().chain([("b", "m", "1", "n")]) {
            turn = catalog.turn_after(&turn);
            let current = Key::current(&model_id(of_current, "1").name);
            let model = Key::model(&model_id(model, version));
            assert_eq!(samples(&turn), [Key::app(&app_name(app)), model, current]);
        }
        let current = Key::current(&model_id("m", "1").name);
        assert!(has(&catalog, &current) && has(&catalog, &Key::app(&app_name("b"))));
        assert!(!has(&catalog, &Key::links(&app_name("b"))));
        assert!(keys(&catalog).all(|key| has(&catalog, &key)));
        assert_eq!(keys(&catalog).count(), 7);
    }
}
