//! One entry of each kind after the other, without a walk past those before it.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::Catalog;
use clipper_domain::{AppName, ModelId, ModelName, ModelVersion};

/// One entry of each kind that there is any of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    pub app: Option<AppName>,
    /// An application with links.
    pub linked: Option<AppName>,
    pub model: Option<ModelId>,
    /// A model with a current version.
    pub current: Option<ModelName>,
}

impl Catalog {
    /// Those that come after `last`; after the last of a kind comes its first.
    #[must_use]
    pub fn turn_after(&self, last: &Turn) -> Turn {
        let model = last.model.as_ref();
        let sibling = model.and_then(|id| {
            let versions = self.models.get(&id.name)?;
            versions.range::<ModelVersion, _>((Excluded(&id.version), Unbounded)).next()
        });
        let first_of_next = || next(&self.models, model.map(|id| &id.name))?.1.first_key_value();
        Turn {
            app: next(&self.apps, last.app.as_ref()).map(|(app, _)| app.clone()),
            linked: next(self.links.by_app(), last.linked.as_ref()).map(|(app, _)| app.clone()),
            model: sibling.or_else(first_of_next).map(|(_, spec)| spec.id.clone()),
            current: next(&self.current, last.current.as_ref()).map(|(model, _)| model.clone()),
        }
    }
}

fn next<'m, K: Ord, V>(map: &'m BTreeMap<K, V>, last: Option<&K>) -> Option<(&'m K, &'m V)> {
    let after = last.and_then(|key| map.range((Excluded(key), Unbounded)).next());
    after.or_else(|| map.first_key_value())
}
