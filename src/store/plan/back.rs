//! The state that a rollback wants.

use crate::store::event::Event;
use crate::store::projection::Catalog;
use clipper_domain::{AppName, ModelId};

/// `then`, with the keys that there are now; or the state now, with one application as it was then:
/// its definition and links, and of the models that it queried then the versions that there were,
/// their current version and the replicas of that. Versions that came later stay.
#[must_use]
pub fn back_to(current: &Catalog, then: &Catalog, app: Option<&AppName>) -> Catalog {
    let Some(app) = app else { return then.clone() };
    let mut wanted = current.clone();
    let Some(spec) = then.app(app.as_str()) else {
        wanted.fold(&Event::AppDeleted { name: app.clone() });
        return wanted;
    };
    for model in then.linked_models(app.as_str()) {
        for version in then.versions_of(model.as_str()) {
            wanted.fold(&Event::ModelAdded { model: version.clone() });
        }
        let Some(version) = then.current_version(model.as_str()) else {
            wanted.fold(&Event::ModelVersionUnset { model: model.clone() });
            continue;
        };
        let id = ModelId::new(model.clone(), version.clone());
        match then.replicas_of(&id).cloned() {
            Some(replicas) => {
                wanted.fold(&Event::ReplicasPlanned { id: id.clone(), replicas });
            }
            None => wanted.fold(&Event::ReplicasReleased { id: id.clone() }),
        }
        wanted.fold(&Event::ModelVersionSet { id });
    }
    let linked: Vec<_> = wanted.linked_models(app.as_str()).cloned().collect();
    for model in linked.into_iter().filter(|model| !then.is_linked(app, model)) {
        wanted.fold(&Event::ModelUnlinked { app: app.clone(), model });
    }
    wanted.fold(&Event::AppAdded { app: spec.clone() });
    for model in then.linked_models(app.as_str()) {
        wanted.fold(&Event::ModelLinked { app: app.clone(), model: model.clone() });
    }
    wanted
}
