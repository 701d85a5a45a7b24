//! What is counted of the limits of keys and applications.

use std::sync::{Arc, OnceLock};

use clipper_domain::KeyName;
use clipper_scheduling::quota::{Limit, Quota};

use super::family::Family;
use super::histogram::float;
use super::table;

/// A key that has limits.
pub type OfKey = (KeyName, Arc<Quota>);

type AllKeys = Box<dyn Fn() -> Vec<OfKey> + Send + Sync>;

/// Where the keys that have limits are known.
#[derive(Default)]
pub(super) struct KeyQuotas(pub(super) OnceLock<AllKeys>);

impl KeyQuotas {
    pub(super) fn all(&self) -> Vec<OfKey> {
        self.0.get().map_or_else(Vec::new, |all| all())
    }
}

impl std::fmt::Debug for KeyQuotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyQuotas")
    }
}

pub(super) fn of_key(family: &mut Family, (name, quota): &OfKey) {
    let rows = [&table::KEY_QUERIES, &table::KEY_UNDER_WAY, &table::KEY_LIMITED];
    add(family, name.as_str(), quota, rows);
}

/// Adds the sample of one of the rows, in the order of what is admitted, under way and refused.
pub(super) fn add(family: &mut Family, name: &str, quota: &Quota, rows: [&table::Row; 3]) {
    match rows.iter().position(|row| *row == family.row()) {
        Some(0) => family.number(&[name], float(quota.admitted())),
        Some(1) => family.number(&[name], float(quota.under_way())),
        Some(_) => {
            for limit in Limit::ALL {
                family.number(&[name, limit.label()], float(quota.refused(limit)));
            }
        }
        None => {}
    }
}
