//! Keys of containers from a file, read again when it changes.
//!
//! ```text
//! # NAME container SECRET [MODEL]
//! vision  container  5d0c...                             vision-*
//! sums    container  sha256:9f86d081884c...
//! encoder container  curve:Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID  encoder
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{info, warn};

use crate::access::hash;
use crate::children::keys::{self, ChildKeys};
use crate::rpc::access::{Access, Credentials, Pass};
use clipper_domain::ModelId;
use clipper_domain::access::listed::{HASHED, SECRET_MIN_BYTES};
use clipper_domain::access::{Pattern, SecretHash};
use clipper_rpc::curve::Key;

/// How often the file is looked at: a key that is taken out is no good within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 4 << 20;
const CURVE: &str = "curve:";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ContainerKey {
    name: Arc<str>,
    known_by: KnownBy,
    /// The models that it is for.
    models: Pattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KnownBy {
    Secret(SecretHash),
    Curve(Key),
}

impl KnownBy {
    /// What a pass of it has.
    fn hash(&self) -> SecretHash {
        match self {
            Self::Secret(hash) => *hash,
            Self::Curve(key) => SecretHash(key.0),
        }
    }
}

/// What is wrong with a file. Shows no secret.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct KeyFault {
    line: usize,
    problem: &'static str,
}

fn parse(text: &str) -> Result<Vec<ContainerKey>, KeyFault> {
    let mut keys: Vec<ContainerKey> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |problem| KeyFault { line: n + 1, problem };
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, secret, models) = match words[..] {
            [name, "container", secret] => (name, secret, Pattern::default()),
            [name, "container", secret, models] => {
                let models = Pattern::parse(models);
                (name, secret, models.map_err(|_| fault("[MODEL] is the name of no model"))?)
            }
            _ => return Err(fault("expected NAME container SECRET [MODEL]")),
        };
        let known_by = known_by(secret).map_err(fault)?;
        let is_there = |key: &ContainerKey| *key.name == *name || key.known_by == known_by;
        if name == keys::NAME || keys.iter().any(is_there) {
            return Err(fault("another key has the same name or secret"));
        }
        keys.push(ContainerKey { name: name.into(), known_by, models });
    }
    Ok(keys)
}

fn known_by(secret: &str) -> Result<KnownBy, &'static str> {
    if let Some(key) = secret.strip_prefix(CURVE) {
        let key = Key::parse(key).map_err(|_| "curve: is followed by a public key of CURVE")?;
        return Ok(KnownBy::Curve(key));
    }
    if let Some(digits) = secret.strip_prefix(HASHED) {
        let hash =
            SecretHash::parse(digits).ok_or("sha256: is followed by 64 hexadecimal digits")?;
        return Ok(KnownBy::Secret(hash));
    }
    if secret.len() < SECRET_MIN_BYTES {
        return Err("the secret has to have at least 32 bytes, as from `openssl rand -hex 32`");
    }
    Ok(KnownBy::Secret(hash(secret.as_bytes())))
}

/// The keys of the file, and those of the server's own replicas.
#[derive(Clone)]
pub(super) struct ContainerKeys {
    file: Option<PathBuf>,
    listed: Arc<ArcSwap<Vec<ContainerKey>>>,
    children: ChildKeys,
}

impl ContainerKeys {
    /// Reads the file, if there is to be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn load(file: &Path) -> Result<Self, String> {
        let file = (!file.as_os_str().is_empty()).then(|| file.to_owned());
        let keys = file.as_deref().map(read).transpose()?.unwrap_or_default();
        let needs_keys = file.is_some();
        let children = ChildKeys::new(move || needs_keys);
        Ok(Self { file, listed: Arc::new(ArcSwap::from_pointee(keys)), children })
    }

    pub(super) fn children(&self) -> ChildKeys {
        self.children.clone()
    }

    /// Reads the file again whenever it changes.
    pub(super) async fn keep_fresh(self) {
        let Some(file) = self.file else { return };
        let mut failing = String::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let from = file.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || read(&from)).await else { return };
            match read {
                Ok(keys) => {
                    failing.clear();
                    if keys != **self.listed.load() {
                        info!(keys = keys.len(), "the keys of containers were read again");
                        self.listed.store(Arc::new(keys));
                    }
                }
                Err(why) if why != failing => {
                    warn!("rpc.keys: {}: {why}; those before it stay", file.display());
                    failing = why;
                }
                Err(_) => {}
            }
        }
    }

    fn of_file(&self, is: impl Fn(&ContainerKey) -> bool) -> Option<ContainerKey> {
        self.listed.load().iter().find(|key| is(key)).cloned()
    }
}

fn read(file: &Path) -> Result<Vec<ContainerKey>, String> {
    use std::io::Read as _;
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = opened.take(FILE_MAX_BYTES).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    parse(&text).map_err(|fault| fault.to_string())
}

impl Access for ContainerKeys {
    fn needs_keys(&self) -> bool {
        self.file.is_some()
    }

    fn identify(&self, credentials: &Credentials) -> Result<Pass, String> {
        let known_by = match credentials {
            Credentials::Secret { name, secret } => {
                if name == keys::NAME.as_bytes() {
                    let found = self.children.find(secret);
                    let hash = found.ok_or("its key is of no replica that this server runs")?;
                    return Ok(Pass { key: keys::NAME.into(), hash });
                }
                let known_by = KnownBy::Secret(hash(secret));
                let key = self.of_file(|key| key.known_by == known_by);
                if key.is_some_and(|key| key.name.as_bytes() != name) {
                    return Err("its secret is that of a key of another name".to_owned());
                }
                known_by
            }
            Credentials::Curve(key) => KnownBy::Curve(*key),
        };
        let key = self.of_file(|key| key.known_by == known_by);
        let key = key.ok_or("its key is none of this server (rpc.keys)")?;
        Ok(Pass { key: key.name, hash: known_by.hash() })
    }

    fn check(&self, pass: &Pass, model: &ModelId) -> Result<(), String> {
        let Pass { key: name, hash } = pass;
        if **name == *keys::NAME {
            let is_good = self.children.is_good(hash, model);
            return is_good.then_some(()).ok_or_else(|| "the key of a replica of ours".to_owned());
        }
        let found = self.of_file(|key| key.name == *name && key.known_by.hash() == *hash);
        let key = found.ok_or_else(|| format!("key '{name}' is no good any more"))?;
        if key.models.fits(model.name.as_str()) {
            return Ok(());
        }
        Err(format!("key '{name}' is for the models '{}' only, not for {model}", key.models))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_faults_show_no_secret() {
        let secret = "s".repeat(32);
        let hashed = format!("sha256:{}", "0a".repeat(32));
        let curve = "curve:Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
        let text =
            format!("# x\na container {secret} v-*\n\nb container {hashed}\nc container {curve}");
        let keys = parse(&text).unwrap();
        assert_eq!(keys.len(), 3);
        assert_eq!((&*keys[0].name, keys[0].models.as_str()), ("a", "v-*"));
        assert_eq!(keys[1].known_by, KnownBy::Secret(SecretHash([10; 32])));
        for line in [
            "a container hunter2".to_owned(),
            format!("a predict {secret}"),
            format!("a container {secret} b c"),
            "a container sha256:12".to_owned(),
            "a container curve:12".to_owned(),
            format!("a container {secret}\na container {secret}1"),
            format!("{} container {secret}", keys::NAME),
        ] {
            let told = parse(&line).unwrap_err().to_string();
            assert!(!told.contains("hunter2") && !told.contains(&secret), "{told}");
        }
    }
}
