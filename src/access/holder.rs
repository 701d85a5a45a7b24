//! Whose key came.

use std::sync::Arc;

use clipper_domain::access::KnownBy;
use clipper_domain::{AccessKey, SecretHash};

/// Whoever has come with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub key: Arc<AccessKey>,
    pub(super) known_by: KnownBy,
    /// Of what came; of a token, that of the key it is signed by.
    pub(super) hash: SecretHash,
}

impl Holder {
    /// Of what came: another secret is another one.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        self.hash
    }

    /// Whether a browser would have shown it unasked.
    #[must_use]
    pub fn is_by_certificate(&self) -> bool {
        self.known_by == KnownBy::Certificate
    }
}
