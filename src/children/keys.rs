//! Keys of the server's own replicas, where containers need one: each process has its own, which is
//! no good any more once the process has ended. They are in memory alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::access;
use clipper_domain::ModelId;
use clipper_domain::access::SecretHash;
use parking_lot::Mutex;

/// The name that all of them have.
pub const NAME: &str = "replica-of-this-server";

/// The variables in which a container finds its key.
pub(super) const NAME_VARIABLE: &str = "CLIPPER_RPC_KEY_NAME";
pub(super) const SECRET_VARIABLE: &str = "CLIPPER_RPC_KEY";

/// Whether containers need keys now.
type Asks = Arc<dyn Fn() -> bool + Send + Sync>;

/// The keys of all processes that run.
#[derive(Clone, Default)]
pub struct ChildKeys {
    asks: Option<Asks>,
    good: Arc<Mutex<HashMap<SecretHash, ModelId>>>,
}

impl fmt::Debug for ChildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildKeys")
    }
}

impl ChildKeys {
    /// Without [`Self::default`]'s indifference: a process that starts while `asks` gets a key.
    pub fn new(asks: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { asks: Some(Arc::new(asks)), good: Arc::default() }
    }

    /// One for a process of this model, if it needs one.
    pub(super) fn issue(&self, model: &ModelId) -> Option<ChildKey> {
        let asks = self.asks.as_ref()?;
        if !asks() {
            return None;
        }
        let bytes: [u8; 32] = rand::random();
        let secret = hexadecimal(bytes);
        let hash = access::hash(secret.as_bytes());
        self.good.lock().insert(hash, model.clone());
        Some(ChildKey { keys: self.clone(), hash, secret })
    }

    /// The hash of a secret that is one of them.
    #[must_use]
    pub fn find(&self, secret: &[u8]) -> Option<SecretHash> {
        let hash = access::hash(secret);
        self.good.lock().contains_key(&hash).then_some(hash)
    }

    /// Whether it still is, and of a process of this model.
    #[must_use]
    pub fn is_good(&self, hash: &SecretHash, model: &ModelId) -> bool {
        self.good.lock().get(hash) == Some(model)
    }
}

/// The key of one process; no good any more when this is dropped.
pub(super) struct ChildKey {
    keys: ChildKeys,
    hash: SecretHash,
    pub(super) secret: String,
}

impl Drop for ChildKey {
    fn drop(&mut self) {
        self.keys.good.lock().remove(&self.hash);
    }
}

/// As hexadecimal text.
fn hexadecimal(bytes: [u8; 32]) -> String {
    let (halves, _) = bytes.as_chunks::<16>();
    let texts: Vec<String> =
        halves.iter().map(|half| format!("{:032x}", u128::from_be_bytes(*half))).collect();
    texts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_domain::{ModelName, ModelVersion};

    fn model(name: &str) -> ModelId {
        ModelId::new(ModelName::parse(name).unwrap(), ModelVersion::parse("1").unwrap())
    }

    #[test]
    fn a_key_is_for_one_model_and_dies_with_its_process() {
        assert!(ChildKeys::default().issue(&model("a")).is_none());
        assert!(ChildKeys::new(|| false).issue(&model("a")).is_none());
        let keys = ChildKeys::new(|| true);
        let one = keys.issue(&model("a")).unwrap();
        let hash = keys.find(one.secret.as_bytes()).unwrap();
        assert!(keys.is_good(&hash, &model("a")) && !keys.is_good(&hash, &model("b")));
        assert!(keys.find(b"another").is_none());
        let secret = one.secret.clone();
        drop(one);
        assert!(!keys.is_good(&hash, &model("a")) && keys.find(secret.as_bytes()).is_none());
    }
}
