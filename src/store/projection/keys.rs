//! Keys: what may become of them.
//!
//! Once there is a key, somebody can manage keys for ever: there is one of the role admin that does
//! not expire, unless one comes from a file or the environment.

use super::{Catalog, Effect};
use crate::store::event::Event;
use clipper_domain::access::refusal::KeyRefusal;
use clipper_domain::access::{KEYS_MAX, KnownBy, PreviousSecret};
use clipper_domain::{AccessKey, Action, CommandError, KeyName, Limits, Role, SecretHash};

impl Catalog {
    /// All keys, by name.
    pub fn keys(&self) -> impl Iterator<Item = &AccessKey> {
        self.keys.values()
    }

    #[must_use]
    pub fn key(&self, name: &str) -> Option<&AccessKey> {
        self.keys.get(name)
    }

    pub(super) fn decide_key_add(
        &self,
        key: &AccessKey,
        admin_elsewhere: bool,
    ) -> Result<Vec<Event>, CommandError> {
        if self.keys.contains_key(&key.name) {
            return Err(KeyRefusal::Exists(key.name.clone()).into());
        }
        if !key.role.is_limitable() && !key.only.is_everything() {
            return Err(KeyRefusal::NotLimitable(key.role).into());
        }
        if self.keys.is_empty() && !admin_elsewhere && !key.is_lasting_admin() {
            return Err(KeyRefusal::FirstIsNotAdmin.into());
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(KeyRefusal::TooMany.into());
        }
        check_limits(key.role, &key.limits)?;
        if !key.role.may_be(key.known_by) {
            return Err(KeyRefusal::NotForRole(key.role, key.known_by).into());
        }
        self.check_secret(&key.hash)?;
        Ok(vec![Event::KeyAdded { key: Box::new(key.clone()) }])
    }

    pub(super) fn decide_key_rotate(
        &self,
        name: &KeyName,
        (known_by, hash): (KnownBy, SecretHash),
        previous_until_ms: Option<u64>,
    ) -> Result<Vec<Event>, CommandError> {
        let key = self.keys.get(name).ok_or_else(|| KeyRefusal::Unknown(name.clone()))?;
        if key.known_by != known_by {
            return Err(KeyRefusal::OtherKind(name.clone(), key.known_by).into());
        }
        self.check_secret(&hash)?;
        let previous =
            previous_until_ms.map(|until_ms| PreviousSecret { hash: key.hash, until_ms });
        let key = AccessKey { hash, previous, ..key.clone() };
        Ok(vec![Event::KeyRotated { key: Box::new(key) }])
    }

    pub(super) fn decide_key_limit(
        &self,
        name: &KeyName,
        limits: Limits,
    ) -> Result<Vec<Event>, CommandError> {
        let key = self.keys.get(name).ok_or_else(|| KeyRefusal::Unknown(name.clone()))?;
        check_limits(key.role, &limits)?;
        if key.limits == limits {
            return Ok(Vec::new());
        }
        Ok(vec![Event::KeyLimited { key: Box::new(AccessKey { limits, ..key.clone() }) }])
    }

    pub(super) fn decide_key_revoke(
        &self,
        name: &KeyName,
        admin_elsewhere: bool,
    ) -> Result<Vec<Event>, CommandError> {
        if !self.keys.contains_key(name) {
            return Err(KeyRefusal::Unknown(name.clone()).into());
        }
        let mut others = self.keys.values().filter(|key| key.name != *name).peekable();
        let is_alone = others.peek().is_none();
        if !is_alone && !admin_elsewhere && !others.any(AccessKey::is_lasting_admin) {
            return Err(KeyRefusal::LastAdmin(name.clone()).into());
        }
        Ok(vec![Event::KeyRevoked { name: name.clone() }])
    }

    /// A secret says who its holder is.
    fn check_secret(&self, hash: &SecretHash) -> Result<(), KeyRefusal> {
        let has_it = |key: &AccessKey| {
            key.hash == *hash || key.previous.is_some_and(|previous| previous.hash == *hash)
        };
        if self.keys.values().any(has_it) { Err(KeyRefusal::SameSecret) } else { Ok(()) }
    }

    pub(super) fn apply_key(&mut self, key: &AccessKey) -> Vec<Effect> {
        self.keys.insert(key.name.clone(), key.clone());
        vec![Effect::KeysChanged]
    }

    pub(super) fn apply_key_revoked(&mut self, name: &KeyName) -> Vec<Effect> {
        self.keys.remove(name);
        vec![Effect::KeysChanged]
    }
}

/// Limits are of predictions.
fn check_limits(role: Role, limits: &Limits) -> Result<(), KeyRefusal> {
    if limits.is_none() || role.may(Action::Predict) {
        return Ok(());
    }
    Err(KeyRefusal::NothingToLimit(role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::access_key;
    use clipper_domain::{Command, Role};

    fn add(name: &str, role: Role, hash: u8) -> Command {
        let key = Box::new(access_key(name, role, hash));
        Command::AddKey { key, admin_elsewhere: false }
    }

    fn done(catalog: &mut Catalog, command: &Command) {
        for event in catalog.decide(command).unwrap() {
            assert_eq!(catalog.apply(&event), [Effect::KeysChanged]);
        }
    }

    #[test]
    fn there_is_always_somebody_who_can_manage_keys() {
        let mut catalog = Catalog::default();
        let refused =
            |catalog: &Catalog, command: &Command| catalog.decide(command).unwrap_err().to_string();
        let told = refused(&catalog, &add("ci", Role::Predict, 1));
        assert!(told.contains("first key has to be one of the role admin"), "{told}");
        let mut expiring = access_key("root", Role::Admin, 1);
        expiring.expires_at_ms = Some(9);
        let key = Box::new(expiring);
        refused(&catalog, &Command::AddKey { key, admin_elsewhere: false });
        done(&mut catalog, &add("root", Role::Admin, 1));
        done(&mut catalog, &add("ci", Role::Predict, 2));
        assert_eq!(refused(&catalog, &add("ci", Role::Observe, 3)).split(' ').count(), 7);
        refused(&catalog, &add("other", Role::Observe, 2));
        let revoke = |name, admin_elsewhere| Command::RevokeKey {
            name: KeyName::parse(name).unwrap(),
            admin_elsewhere,
        };
        let told = refused(&catalog, &revoke("root", false));
        assert!(told.contains("last one of the role admin"), "{told}");
        assert!(catalog.decide(&revoke("root", true)).is_ok());
        done(&mut catalog, &revoke("ci", false));
        done(&mut catalog, &revoke("root", false));
        assert_eq!(catalog, Catalog::default());
        refused(&catalog, &revoke("root", false));
    }

    #[test]
    fn the_secret_before_is_good_for_as_long_as_was_said() {
        let mut catalog = Catalog::default();
        done(&mut catalog, &add("root", Role::Admin, 1));
        let name = KeyName::parse("root").unwrap();
        let rotate = |hash, previous_until_ms| Command::RotateKey {
            name: name.clone(),
            known_by: KnownBy::Secret,
            hash: SecretHash([hash; 32]),
            previous_until_ms,
        };
        done(&mut catalog, &rotate(2, Some(50)));
        let key = catalog.key("root").unwrap().clone();
        let previous = PreviousSecret { hash: SecretHash([1; 32]), until_ms: 50 };
        assert_eq!((key.hash, key.previous), (SecretHash([2; 32]), Some(previous)));
        assert!(catalog.decide(&rotate(1, None)).is_err(), "it has been used");
        done(&mut catalog, &rotate(3, None));
        assert_eq!(catalog.key("root").unwrap().previous, None);
    }

    #[test]
    fn a_key_is_limited_anew_and_keeps_its_secret() {
        let mut catalog = Catalog::default();
        done(&mut catalog, &add("root", Role::Admin, 1));
        done(&mut catalog, &add("ci", Role::Predict, 2));
        done(&mut catalog, &add("graphs", Role::Observe, 3));
        let limits = Limits::of([Some(10), None, Some(2), None], None).unwrap();
        let limit =
            |name, limits| Command::LimitKey { name: KeyName::parse(name).unwrap(), limits };
        done(&mut catalog, &limit("ci", limits));
        let key = catalog.key("ci").unwrap();
        assert_eq!((key.limits, key.hash), (limits, SecretHash([2; 32])));
        assert_eq!(catalog.decide(&limit("ci", limits)), Ok(Vec::new()), "nothing changes");
        done(&mut catalog, &limit("root", limits));
        let told = catalog.decide(&limit("graphs", limits)).unwrap_err().to_string();
        assert!(told.contains("role observe asks for no predictions"), "{told}");
        assert!(catalog.decide(&limit("nobody", limits)).is_err());
        done(&mut catalog, &limit("ci", Limits::default()));
        assert!(catalog.key("ci").unwrap().limits.is_none());
    }

    #[test]
    fn a_key_is_known_by_what_its_role_may_be_and_stays_so() {
        let mut catalog = Catalog::default();
        done(&mut catalog, &add("root", Role::Admin, 1));
        let known = |role, known_by| {
            let key = AccessKey { known_by, ..access_key("c", role, 2) };
            Command::AddKey { key: Box::new(key), admin_elsewhere: false }
        };
        for (role, known_by) in
            [(Role::Container, KnownBy::Certificate), (Role::Admin, KnownBy::Curve)]
        {
            let told = catalog.decide(&known(role, known_by)).unwrap_err().to_string();
            assert!(told.contains("cannot be known by"), "{told}");
        }
        done(&mut catalog, &known(Role::Container, KnownBy::Curve));
        let name = KeyName::parse("c").unwrap();
        let rotate = |known_by, hash| {
            let (name, hash) = (name.clone(), SecretHash([hash; 32]));
            Command::RotateKey { name, known_by, hash, previous_until_ms: None }
        };
        let told = catalog.decide(&rotate(KnownBy::Secret, 3)).unwrap_err().to_string();
        assert!(told.contains("is known by a CURVE key"), "{told}");
        done(&mut catalog, &rotate(KnownBy::Curve, 3));
        assert_eq!(catalog.key("c").unwrap().known_by, KnownBy::Curve);
    }
}
