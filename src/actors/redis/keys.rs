//! What the catalog says of keys of its tables. Pure.

use crate::store::projection::Catalog;
use crate::store::redis::tables::{Key, Table, app_of, current_of, model_of};
use clipper_domain::AppSpec;

/// Whether the catalog has something of a key of its tables.
pub(super) fn has(catalog: &Catalog, key: &Key) -> bool {
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
pub(super) fn keys(catalog: &Catalog) -> impl Iterator<Item = Key> {
    let linked = |app: &&AppSpec| catalog.linked_models(app.name.as_str()).next().is_some();
    let apps = catalog.apps().map(|app| Key::app(&app.name));
    let links = catalog.apps().filter(linked).map(|app| Key::links(&app.name));
    let models = catalog.models().map(|model| Key::model(&model.id));
    let current = catalog.current_versions().map(|(model, _)| Key::current(model));
    apps.chain(links).chain(models).chain(current)
}

/// One key of each table that the catalog has entries of; others at each turn.
pub(super) fn samples(catalog: &Catalog, turn: usize) -> Vec<Key> {
    let linked = |app: &str| catalog.linked_models(app).next().is_some();
    let apps: Vec<_> = catalog.apps().map(|app| &app.name).collect();
    let linked: Vec<_> = apps.iter().filter(|app| linked(app.as_str())).copied().collect();
    let models: Vec<_> = catalog.models().map(|model| &model.id).collect();
    let current: Vec<_> = catalog.current_versions().map(|(model, _)| model).collect();
    let samples = [
        pick(&apps, turn).map(Key::app),
        pick(&linked, turn).map(Key::links),
        pick(&models, turn).map(Key::model),
        pick(&current, turn).map(Key::current),
    ];
    samples.into_iter().flatten().collect()
}

fn pick<'i, T>(items: &[&'i T], turn: usize) -> Option<&'i T> {
    items.get(turn.checked_rem(items.len())?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{add_app, add_model, app_name, changes, model_id};

    #[test]
    fn every_key_has_its_turn() {
        let (_, catalog) = changes(&[add_app("a"), add_app("b"), add_model("m", "1")]);
        assert_eq!(samples(&Catalog::default(), 3), []);
        let current = Key::current(&model_id("m", "1").name);
        for (turn, app) in [(0, "a"), (1, "b"), (2, "a")] {
            let wanted =
                [Key::app(&app_name(app)), Key::model(&model_id("m", "1")), current.clone()];
            assert_eq!(samples(&catalog, turn), wanted);
        }
        assert!(has(&catalog, &current) && has(&catalog, &Key::app(&app_name("b"))));
        assert!(!has(&catalog, &Key::links(&app_name("b"))));
        assert!(keys(&catalog).all(|key| has(&catalog, &key)));
        assert_eq!(keys(&catalog).count(), 4);
    }
}
