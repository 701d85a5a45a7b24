//! What a key may be for, and what there is to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::identity::KnownBy;

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask applications, and say what would have been right.
    Predict,
    /// Read metrics and metadata.
    Observe,
    /// Read them, and change applications, models, links and rollouts.
    Operate,
    /// Everything that a person does: also start programs and manage keys.
    Admin,
    /// Serve a model: a container, never a person.
    Container,
}

/// What somebody wants to do. Every endpoint and method is one of these (`src/access/table.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Whether the process lives and is ready.
    Health,
    /// The pages of the dashboard and the descriptions, as everybody's are: what they show is asked
    /// for by them.
    Page,
    /// What is spoken here, whatever is served.
    Describe,
    /// Ask an application or model, or give feedback.
    Predict,
    /// What one application or model takes and how it does.
    Inspect,
    /// All metrics.
    Scrape,
    /// All names.
    Observe,
    /// Change the metadata.
    Operate,
    /// Start programs.
    Deploy,
    ManageKeys,
    /// Take everything that is kept.
    BackUp,
    /// Connect as a replica of a model.
    Serve,
}

impl Role {
    pub const ALL: [Self; 5] =
        [Self::Predict, Self::Observe, Self::Operate, Self::Admin, Self::Container];

    /// The name in commands and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Observe => "observe",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Container => "container",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The table of roles.
    #[must_use]
    pub fn may(self, action: Action) -> bool {
        use Action::{
            BackUp, Deploy, Describe, Health, Inspect, ManageKeys, Observe, Operate, Page, Predict,
            Scrape,
        };
        match (self, action) {
            (Self::Container, action) => action == Action::Serve,
            (_, Health | Page | Describe | Inspect) => true,
            (Self::Predict, action) => action == Predict,
            (Self::Observe, action) => [Scrape, Observe].contains(&action),
            (Self::Operate, action) => [Scrape, Observe, Operate].contains(&action),
            (Self::Admin, action) => {
                [Predict, Scrape, Observe, Operate, Deploy, ManageKeys, BackUp].contains(&action)
            }
        }
    }

    /// Whether the holder of a key that is stored may be known by that: containers and people come
    /// by different ports.
    #[must_use]
    pub fn may_be(self, known_by: KnownBy) -> bool {
        match known_by {
            KnownBy::Secret => true,
            KnownBy::Curve => self == Self::Container,
            KnownBy::Certificate => self != Self::Container,
            KnownBy::Token => false,
        }
    }

    /// Whether a key of this role may be for some applications or models only. The others see or
    /// change what concerns all.
    #[must_use]
    pub fn is_limitable(self) -> bool {
        matches!(self, Self::Predict | Self::Operate | Self::Container)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Action {
    pub const ALL: [Self; 12] = [
        Self::Health,
        Self::Page,
        Self::Describe,
        Self::Predict,
        Self::Inspect,
        Self::Scrape,
        Self::Observe,
        Self::Operate,
        Self::Deploy,
        Self::ManageKeys,
        Self::BackUp,
        Self::Serve,
    ];

    /// In a sentence: "may not ...".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Health => "ask for its health",
            Self::Page => "see the pages",
            Self::Describe => "ask what is spoken here",
            Self::Predict => "make predictions",
            Self::Inspect => "look at a model",
            Self::Scrape => "read metrics",
            Self::Observe => "read metadata",
            Self::Operate => "change applications, models and links",
            Self::Deploy => "start programs",
            Self::ManageKeys => "manage keys",
            Self::BackUp => "take backups",
            Self::Serve => "serve a model",
        }
    }

    /// The roles that may, for a sentence.
    #[must_use]
    pub fn roles(self) -> String {
        let may = Role::ALL.into_iter().filter(|role| role.may(self)).map(Role::name);
        may.collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_roles() {
        use Action::{
            BackUp, Deploy, Describe, Health, Inspect, ManageKeys, Observe, Operate, Page, Predict,
            Scrape, Serve,
        };
        let may = |role: Role| -> Vec<Action> {
            Action::ALL.into_iter().filter(|action| role.may(*action)).collect()
        };
        assert_eq!(may(Role::Predict), [Health, Page, Describe, Predict, Inspect]);
        assert_eq!(may(Role::Observe), [Health, Page, Describe, Inspect, Scrape, Observe]);
        assert_eq!(may(Role::Operate), [Health, Page, Describe, Inspect, Scrape, Observe, Operate]);
        assert_eq!(
            may(Role::Admin),
            [
                Health, Page, Describe, Predict, Inspect, Scrape, Observe, Operate, Deploy,
                ManageKeys, BackUp
            ]
        );
        assert_eq!(may(Role::Container), [Serve]);
        assert_eq!(Action::Deploy.roles(), "admin");
        assert_eq!(Action::Observe.roles(), "observe or operate or admin");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.name()), Some(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
