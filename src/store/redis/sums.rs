//! The keys of what policies have learned from users.

use super::tables::{Key, Table};
use clipper_domain::AppName;

/// What the key of a user's sums ends with, where the original's policy state has a number.
const SUMS_SUFFIX: &str = ":sums";

/// Whose [`Key::sums`] it is.
#[must_use]
pub fn sums_of(key: &Key) -> Option<(AppName, i64)> {
    if key.table != Table::State {
        return None;
    }
    let name = std::str::from_utf8(&key.name).ok()?.strip_suffix(SUMS_SUFFIX)?;
    let (app, uid) = name.split_once(':')?;
    Some((AppName::parse(app).ok()?, uid.parse().ok()?))
}

impl Key {
    /// The key of what frontends have learned from a user's feedback.
    #[must_use]
    pub fn sums(app: &AppName, uid: i64) -> Self {
        Self::new(Table::State, &format!("{app}:{uid}{SUMS_SUFFIX}"))
    }
}
