//! What a cached output and an unfinished flight are found by.

use std::hash::{Hash, Hasher};

use clipper_domain::Input;

/// An input to one model version. The hash is computed once.
#[derive(Debug, Clone)]
pub struct CacheKey {
    /// The serial number of the model version's registration: a version that is retired and
    /// registered again has another one.
    pub model: u64,
    pub input: Input,
    pub(crate) hash: u64,
}

impl CacheKey {
    /// Equal for equal keys, and hardly ever for others; nobody outside can choose it.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.model == other.model && self.input == other.input
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
