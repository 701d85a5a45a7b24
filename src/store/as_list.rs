//! Tables of the catalog as lists: a JSON key can only be text.

use std::collections::BTreeMap;
use std::sync::Arc;

use clipper_domain::{ModelName, ModelSpec, ModelVersion};

/// By name and version. Shared, so that a copy of the catalog is small and a version takes little
/// room in its node.
pub(super) type Models = BTreeMap<ModelName, BTreeMap<ModelVersion, Arc<ModelSpec>>>;

pub(super) mod replicas {
    //! Serialises the planned replicas as pairs, since a JSON key can only be text.
    use std::collections::BTreeMap;

    use clipper_domain::{ModelId, Replicas};
    use serde::{Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    type Table = BTreeMap<ModelId, Replicas>;

    pub(in crate::store) fn serialize<S: Serializer>(
        table: &Table,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        table.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Table, D::Error> {
        Ok(Vec::<(ModelId, Replicas)>::deserialize(from)?.into_iter().collect())
    }
}

pub(super) mod models {
    //! Serialises the nested model table as a plain list of specs.
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use clipper_domain::ModelSpec;
    use serde::Deserialize;

    use super::Models;
    use serde::{Deserializer, Serializer};

    pub(in crate::store) fn serialize<S: Serializer>(
        table: &Models,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(table.values().flat_map(BTreeMap::values).map(AsRef::<ModelSpec>::as_ref))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Models, D::Error> {
        let mut table = Models::new();
        for spec in Vec::<ModelSpec>::deserialize(from)? {
            let id = spec.id.clone();
            table.entry(id.name).or_default().insert(id.version, Arc::new(spec));
        }
        Ok(table)
    }
}
