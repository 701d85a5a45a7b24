//! Why a change of the keys is refused.

use super::identity::KnownBy;
use super::key::KEYS_MAX;
use super::role::Role;
use crate::ids::KeyName;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    #[error("a key with name '{0}' already exists")]
    Exists(KeyName),
    #[error("no key with name '{0}' exists")]
    Unknown(KeyName),
    /// From then on nobody could manage keys.
    #[error(
        "the first key has to be one of the role admin that does not expire: from then on only \
         its holder can add others"
    )]
    FirstIsNotAdmin,
    #[error(
        "key '{0}' is the last one of the role admin that does not expire, and other keys remain: \
         nobody could manage them"
    )]
    LastAdmin(KeyName),
    #[error("there are {KEYS_MAX} keys already")]
    TooMany,
    #[error("a key of the role {0} is for all applications and models")]
    NotLimitable(Role),
    #[error("another key has this secret, or what stands in its place")]
    SameSecret,
    /// What these roles ask for are no queries.
    #[error("a key of the role {0} asks for no predictions: there is nothing to limit")]
    NothingToLimit(Role),
    #[error("a key of the role {0} cannot be known by a {known_by}", known_by = .1.name())]
    NotForRole(Role, KnownBy),
    #[error("key '{0}' is known by a {known_by}: give it another of these", known_by = .1.name())]
    OtherKind(KeyName, KnownBy),
}
