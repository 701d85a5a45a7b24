//! Who may do what: keys, their roles, and how a presented secret is found among them. Pure; the
//! time is an argument, and so is the hash of a secret.
//!
//! A secret is 256 random bits, so that nobody can try out all of them or those that people choose:
//! a fast hash keeps it as safe as a slow one would. Only the hash is stored, like that of what
//! stands in the place of a secret ([`PublicIdentity`]).

mod identity;
mod key;
pub mod listed;
mod pattern;
pub mod refusal;
mod role;
mod table;

pub use self::identity::{InvalidIdentity, KnownBy, PublicIdentity};
pub use self::key::{AccessKey, Denied, KEYS_MAX, PreviousSecret, SecretHash};
pub use self::pattern::{InvalidPattern, Pattern};
pub use self::role::{Action, Role};
pub use self::table::{KeyTable, Standing, Unidentified};
