//! Applications that share a model, and the part of it that each of them has.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Names an application among those that share a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u64);

impl AppId {
    /// The same for the same name on every thread.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// An application and its part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub app: AppId,
    /// Its service in overload, compared with that of the others.
    pub weight: u32,
}

impl Share {
    /// The same part as everybody else.
    #[must_use]
    pub fn equal(app: AppId) -> Self {
        Self { app, weight: 1 }
    }
}
