//! Applications that share a model, and the part of it that each of them has, by who asks it and by
//! the classes of its queries.

use std::hash::{DefaultHasher, Hash, Hasher};

pub use clipper_domain::limits::Class;

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

/// Names somebody among those who ask an application: the holder of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tenant(u64);

impl Tenant {
    /// Everybody without a name.
    pub const NOBODY: Self = Self(0);

    /// Everybody beyond those of an application that can be told apart.
    pub const REST: Self = Self(1);

    /// The same for the same name on every thread.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(AppId::of(name).0.max(2))
    }
}

/// Queries of somebody to an application, of one class, and their part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub app: AppId,
    /// The application's service in overload, compared with that of the others.
    pub weight: u32,
    /// Who asks; all who ask an application share its part evenly.
    pub tenant: Tenant,
    pub class: Class,
}

impl Share {
    /// Whether it is the same part, whatever its weight is now.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.app, self.tenant, self.class) == (other.app, other.tenant, other.class)
    }

    /// Whether both are of one application and of one who asks it.
    #[must_use]
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        (self.app, self.tenant) == (other.app, other.tenant)
    }

    /// The same part as everybody else.
    #[must_use]
    pub fn equal(app: AppId) -> Self {
        Self { app, weight: 1, tenant: Tenant::NOBODY, class: Class::Normal }
    }
}
