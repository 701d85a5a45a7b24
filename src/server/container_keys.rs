//! Which of the keys of [`crate::access`] are good on the port for containers, beside those of the
//! server's own replicas.

use std::sync::Arc;

use crate::access;
use crate::children::keys::{self, ChildKeys};
use crate::config::RpcConfig;
use crate::rpc::access::{Access, Credentials, Pass};
use clipper_domain::access::{KnownBy, PublicIdentity};
use clipper_domain::{Action, ModelId};

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

    fn identify(&self, credentials: &Credentials) -> Result<Pass, String> {
        let (known_by, holder) = match credentials {
            Credentials::Secret { name, secret } => {
                if name == keys::NAME.as_bytes() {
                    let found = self.children.find(secret);
                    let hash = found.ok_or("its key is of no replica that this server runs")?;
                    return Ok(Pass { key: keys::NAME.into(), known_by: None, hash });
                }
                if PublicIdentity::is_meant(secret) {
                    return Err("its secret is public".to_owned());
                }
                let holder = self.keys.identify(KnownBy::Secret, secret);
                let holder = holder.map_err(|refused| refused.to_string())?;
                if holder.key.name.as_str().as_bytes() != name {
                    return Err("its secret is that of a key of another name".to_owned());
                }
                (KnownBy::Secret, holder)
            }
            Credentials::Curve(key) => {
                let public = PublicIdentity::curve(&key.to_string());
                let public = public.map_err(|invalid| invalid.to_string())?;
                let holder = self.keys.identify(KnownBy::Curve, public.as_bytes());
                (KnownBy::Curve, holder.map_err(|refused| format!("{refused} ({key})"))?)
            }
        };
        holder.key.check(Action::Serve, None).map_err(|denied| denied.to_string())?;
        let key = holder.key.name.as_str().into();
        Ok(Pass { key, known_by: Some(known_by), hash: holder.hash() })
    }

    fn check(&self, pass: &Pass, model: &ModelId) -> Result<(), String> {
        let Pass { key: name, known_by, hash } = pass;
        let Some(known_by) = known_by else {
            let is_good = self.children.is_good(hash, model);
            return is_good.then_some(()).ok_or_else(|| "the key of a replica of ours".to_owned());
        };
        let found = self.keys.find(*known_by, hash);
        let key = found.map_err(|_| format!("key '{name}' is no good any more"))?;
        key.check(Action::Serve, Some(model.name.as_str()))
            .map_err(|denied| format!("{denied}, not for {model}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hash;
    use crate::config::AccessConfig;
    use clipper_domain::access::listed::parse;
    use clipper_domain::{ModelName, ModelVersion};
    use clipper_rpc::curve::Key;

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
            containers.identify(&Credentials::Secret { name, secret })
        };
        let pass = plain("vision", &secret).unwrap();
        assert_eq!(containers.check(&pass, &model("v-1")), Ok(()));
        let told = containers.check(&pass, &model("enc")).unwrap_err();
        assert_eq!(told, "key 'vision' is for 'v-*' only, not for enc:1");
        let curve = Credentials::Curve(Key::parse(public).unwrap());
        let encoder = containers.identify(&curve).unwrap();
        assert_eq!(containers.check(&encoder, &model("enc")), Ok(()));
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
        let told = containers.check(&pass, &model("v-1")).unwrap_err();
        assert_eq!(told, "key 'vision' is no good any more");
        let own = containers.children();
        assert!(own.find(b"x").is_none() && !containers.needs_keys());
    }
}
