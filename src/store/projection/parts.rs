//! Less than the whole catalog, for whoever must not or need not have it all.

use super::Catalog;
use clipper_domain::SecretHash;

impl Catalog {
    /// One application and its links, and nothing else.
    #[must_use]
    pub fn only(&self, app: &str) -> Self {
        let mut alone = Self::default();
        if let Some(spec) = self.apps.get(app) {
            alone.apps.insert(spec.name.clone(), spec.clone());
            self.links.of_app(app).for_each(|model| alone.links.add(&spec.name, model));
        }
        alone
    }

    /// The same, and nothing of what secrets are made into.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        for key in shown.keys.values_mut() {
            (key.hash, key.previous) = (SecretHash([0; 32]), None);
        }
        shown
    }
}
