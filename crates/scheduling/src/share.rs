//! Applications that share a model, and the part of it that each of them has, by the classes of its
//! queries.

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

/// What a query counts among those of its application, in overload. It takes nothing from other
/// applications, and those of no class are without a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    Low,
    #[default]
    Normal,
    High,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// From the number in requests: 1 is the highest, 0 what is meant where none is given.
    #[must_use]
    pub fn of_priority(priority: u64) -> Self {
        match priority {
            0 => Self::Normal,
            1 => Self::High,
            _ => Self::Low,
        }
    }

    /// Its service, compared with that of the other classes of its application.
    #[must_use]
    pub fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }
}

/// Queries of one class of an application, and their part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub app: AppId,
    /// The application's service in overload, compared with that of the others.
    pub weight: u32,
    pub class: Class,
}

impl Share {
    /// Whether it is the same part, whatever its weight is now.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.app, self.class) == (other.app, other.class)
    }

    /// The same part as everybody else.
    #[must_use]
    pub fn equal(app: AppId) -> Self {
        Self { app, weight: 1, class: Class::Normal }
    }
}
