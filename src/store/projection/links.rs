//! Which applications are linked to which models, found from either side.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use clipper_domain::{AppName, ModelName};

/// Links of applications without any are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ByApp")]
pub(super) struct Links {
    by_app: ByApp,
    /// The same, found by the model without a look at every application. `None` comes before all
    /// applications of a model and is only looked for.
    by_model: BTreeSet<(ModelName, Option<AppName>)>,
}

pub(super) type ByApp = BTreeMap<AppName, BTreeSet<ModelName>>;

impl From<ByApp> for Links {
    fn from(by_app: ByApp) -> Self {
        let pairs = by_app.iter().flat_map(|(app, models)| {
            models.iter().map(|model| (model.clone(), Some(app.clone())))
        });
        Self { by_model: pairs.collect(), by_app }
    }
}

impl Serialize for Links {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.by_app.serialize(to)
    }
}

impl Links {
    pub(super) fn add(&mut self, app: &AppName, model: &ModelName) {
        self.by_app.entry(app.clone()).or_default().insert(model.clone());
        self.by_model.insert((model.clone(), Some(app.clone())));
    }

    pub(super) fn remove(&mut self, app: &AppName, model: &ModelName) {
        let Some(models) = self.by_app.get_mut(app) else { return };
        models.remove(model);
        if models.is_empty() {
            self.by_app.remove(app);
        }
        self.by_model.remove(&(model.clone(), Some(app.clone())));
    }

    pub(super) fn remove_app(&mut self, app: &AppName) {
        for model in self.by_app.remove(app).into_iter().flatten() {
            self.by_model.remove(&(model, Some(app.clone())));
        }
    }

    pub(super) fn has(&self, app: &AppName, model: &ModelName) -> bool {
        self.by_app.get(app).is_some_and(|models| models.contains(model))
    }

    pub(super) fn of_app(&self, app: &str) -> impl Iterator<Item = &ModelName> {
        self.by_app.get(app).into_iter().flatten()
    }

    pub(super) fn count_of_app(&self, app: &AppName) -> usize {
        self.by_app.get(app).map_or(0, BTreeSet::len)
    }

    pub(super) fn of_model<'l>(
        &'l self,
        model: &'l ModelName,
    ) -> impl Iterator<Item = &'l AppName> {
        let from = self.by_model.range((model.clone(), None)..);
        from.take_while(move |(of, _)| of == model).filter_map(|(_, app)| app.as_ref())
    }

    pub(super) fn by_app(&self) -> &ByApp {
        &self.by_app
    }

    /// All links.
    pub(super) fn len(&self) -> usize {
        self.by_model.len()
    }
}
