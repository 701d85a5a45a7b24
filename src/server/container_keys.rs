//! Which of the keys of [`crate::access`] are good on the port for containers, beside those of the
//! server's own replicas.

use std::sync::Arc;

use crate::access::{self, Refused};
use crate::children::keys::{self, ChildKeys};
use crate::rpc::access::{Access, Credentials, Pass, Rejected};
use clipper_config::RpcConfig;
use clipper_domain::access::{Denied, InvalidIdentity, KnownBy, PublicIdentity};
use clipper_domain::{Action, ModelId};
use clipper_rpc::curve::Key;

/// All keys of containers.
#[derive(Clone)]
pub(super) struct ContainerKeys {
    keys: Arc<access::Access>,
    /// A list of them was asked for, whatever it has.
    has_list: bool,
    children: ChildKeys,
}

impl ContainerKeys {
    pub(super) fn new(keys: &Arc<access::Access>, config: &RpcConfig) -> Self {
        let has_list = !config.keys.as_os_str().is_empty();
        let asked = Arc::clone(keys);
        let children = ChildKeys::new(move || has_list || asked.asks_containers());
        Self { keys: Arc::clone(keys), has_list, children }
    }

    pub(super) fn children(&self) -> ChildKeys {
        self.children.clone()
    }
}

impl Access for ContainerKeys {
    fn needs_keys(&self) -> bool {
        self.has_list || self.keys.asks_containers()
    }

    fn identify(&self, credentials: &Credentials) -> Result<Pass, Rejected> {
        Ok(self.find(credentials)?)
    }

    fn check(&self, pass: &Pass, model: &ModelId) -> Result<(), Rejected> {
        Ok(self.admit(pass, model)?)
    }
}

/// Why a container's key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum KeyFault {
    #[error("its key is of no replica that this server runs")]
    NoReplica,
    #[error("its secret is public")]
    Public,
    #[error("its secret is that of a key of another name")]
    OtherName,
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0} ({1})")]
    Curve(Refused, Key),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("the key of a replica of ours")]
    OtherReplica,
    #[error("key '{0}' is no good any more")]
    NoMore(Arc<str>),
    #[error("{0}, not for {1}")]
    Model(Denied, ModelId),
}

impl From<KeyFault> for Rejected {
    fn from(fault: KeyFault) -> Self {
        Self::Key(fault.into())
    }
}

impl ContainerKeys {
    fn find(&self, credentials: &Credentials) -> Result<Pass, KeyFault> {
        let (known_by, holder) = match credentials {
            Credentials::Secret { name, secret } => {
                if name == keys::NAME.as_bytes() {
                    let hash = self.children.find(secret).ok_or(KeyFault::NoReplica)?;
                    return Ok(Pass { key: keys::NAME.into(), known_by: None, hash });
                }
                if PublicIdentity::is_meant(secret) {
                    return Err(KeyFault::Public);
                }
                let holder = self.keys.identify(KnownBy::Secret, secret)?;
                if holder.key.name.as_str().as_bytes() != name {
                    return Err(KeyFault::OtherName);
                }
                (KnownBy::Secret, holder)
            }
            Credentials::Curve(key) => {
                let public = PublicIdentity::curve(&key.to_string())?;
                let holder = self.keys.identify(KnownBy::Curve, public.as_bytes());
                (KnownBy::Curve, holder.map_err(|refused| KeyFault::Curve(refused, *key))?)
            }
        };
        holder.key.check(Action::Serve, None)?;
        let key = holder.key.name.as_str().into();
        Ok(Pass { key, known_by: Some(known_by), hash: holder.hash() })
    }

    fn admit(&self, pass: &Pass, model: &ModelId) -> Result<(), KeyFault> {
        let Pass { key: name, known_by, hash } = pass;
        let Some(known_by) = known_by else {
            let is_good = self.children.is_good(hash, model);
            return is_good.then_some(()).ok_or(KeyFault::OtherReplica);
        };
        let found = self.keys.find(*known_by, hash);
        let key = found.map_err(|_| KeyFault::NoMore(Arc::clone(name)))?;
        key.check(Action::Serve, Some(model.name.as_str()))
            .map_err(|denied| KeyFault::Model(denied, model.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hash;
    use clipper_config::AccessConfig;
    use clipper_domain::access::listed::parse;
    use clipper_domain::{ModelName, ModelVersion};

    fn model(name: &str) -> ModelId {
        ModelId::new(ModelName::parse(name).unwrap(), ModelVersion::parse("1").unwrap())
    }

    #[test]
    fn a_container_is_known_by_its_own_key_and_serves_its_own_models() {
        let (secret, public) = ("s".repeat(32), "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID");
        let list = format!(
            "vision container {secret} v-*\nencoder container curve:{public} enc\n\
             ops admin {secret}1"
        );
        let keys = access::Access::new(&AccessConfig::default(), parse(&list, hash).unwrap(), true);
        let containers = ContainerKeys::new(&keys, &RpcConfig::default());
        assert!(containers.needs_keys());
        let plain = |name: &str, secret: &str| {
            let (name, secret) = (name.to_owned().into(), secret.to_owned().into());
            containers.find(&Credentials::Secret { name, secret }).map_err(|why| why.to_string())
        };
        let pass = plain("vision", &secret).unwrap();
        assert_eq!(containers.admit(&pass, &model("v-1")), Ok(()));
        let told = containers.admit(&pass, &model("enc")).unwrap_err();
        assert_eq!(told.to_string(), "key 'vision' is for 'v-*' only, not for enc:1");
        let curve = Credentials::Curve(Key::parse(public).unwrap());
        let encoder = containers.find(&curve).unwrap();
        assert_eq!(containers.admit(&encoder, &model("enc")), Ok(()));
        for (name, secret, why) in [
            ("vision", "wrong".to_owned(), "none of this server"),
            ("other", secret.clone(), "of another name"),
            ("encoder", format!("curve:{public}"), "public"),
            ("ops", format!("{secret}1"), "may not serve a model"),
            (keys::NAME, secret.clone(), "no replica"),
        ] {
            let told = plain(name, &secret).unwrap_err();
            assert!(told.contains(why), "{name}: {told}");
            assert!(!told.contains(&secret) || secret == "wrong", "{told}");
        }
        keys.take_listed(Vec::new());
        let told = Access::check(&containers, &pass, &model("v-1")).unwrap_err();
        assert_eq!(told.to_string(), "key 'vision' is no good any more");
        let own = containers.children();
        assert!(own.find(b"x").is_none() && !containers.needs_keys());
    }
}
