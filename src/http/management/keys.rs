//! Keys: made, listed, replaced and ended. A secret is in one answer and nowhere else.

use super::operation::{Act, Failure, ManagementState, Reply, optional};
use super::{limits, names};
use crate::access::{hash, new_secret};
use crate::http::errors::shown;
use crate::http::schema::Object;
use clipper_clock as clock;
use clipper_domain::access::{KnownBy, PublicIdentity};
use clipper_domain::admin::{KeyDescription, NewSecret};
use clipper_domain::{AccessKey, Command, Pattern, Role, SecretHash};

pub(super) const ADD_SCHEMA: &str = r#"
  {
   "name" := string,
   "role" := "predict" | "observe" | "operate" | "admin" | "container",
   "app" := string (optional, * stands for any part),
   "expires_s" := int (optional),
   "limits" := object of rate, burst, concurrent, body_bytes (int) and priority (optional),
   "curve" := string (optional, a container's public key in place of a secret),
   "certificate" := string (optional, a client's in place of a secret: SHA-256, dns:NAME, uri:NAME,
                   cn:NAME)
  }
"#;
pub(super) const LIMIT_SCHEMA: &str = r#"
  {
   "name" := string,
   "limits" := object of rate, burst, concurrent, body_bytes (int) and priority
  }
"#;
pub(super) const ROTATE_SCHEMA: &str = r#"
  {
   "name" := string,
   "keep_old_s" := int (optional),
   "curve" := string (optional, for a key that is known by one),
   "certificate" := string (optional, for a key that is known by one)
  }
"#;

/// By what a key is to be known.
struct NewKey {
    known_by: KnownBy,
    hash: SecretHash,
    /// Shown this once, if there is one.
    secret: Option<String>,
}

/// What stands in the place of a secret, or a new one.
fn made(body: &Object<'_>) -> Result<NewKey, Failure> {
    let curve = optional(body, "curve", Object::string)?;
    let certificate = optional(body, "certificate", Object::string)?;
    let public = match (&curve, &certificate) {
        (Some(_), Some(_)) => {
            return Err(Failure::Refused("either curve or certificate".to_owned()));
        }
        (Some(key), None) => Some(PublicIdentity::curve(key)),
        (None, Some(text)) => Some(PublicIdentity::certificate(text)),
        (None, None) => None,
    };
    if let Some(public) = public {
        let public = public.map_err(Failure::of)?;
        let hash = hash(public.as_bytes());
        return Ok(NewKey { known_by: public.known_by(), hash, secret: None });
    }
    let none = || Failure::Unavailable("The system gives no random numbers".to_owned());
    let secret = new_secret().ok_or_else(none)?;
    Ok(NewKey { known_by: KnownBy::Secret, hash: hash(secret.as_bytes()), secret: Some(secret) })
}

/// So many seconds from now, Unix milliseconds.
fn in_seconds(body: &Object<'_>, key: &'static str) -> Result<Option<u64>, Failure> {
    let Some(seconds) = optional(body, key, Object::integer)? else { return Ok(None) };
    let wrong = || Failure::Refused(format!("{key} must be a number of seconds from 1"));
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(wrong)?;
    Ok(Some(clock::unix_millis().saturating_add(seconds.saturating_mul(1_000))))
}

/// The change, and the answer that shows the secret.
fn told(state: &ManagementState, command: Command, key: &AccessKey, secret: Option<String>) -> Act {
    let answer = Reply::json(&NewSecret {
        key: KeyDescription::of(key, clock::unix_millis(), false),
        secret,
    });
    let done = state.execute(command);
    Box::pin(async move {
        done.await?;
        answer
    })
}

pub(super) fn add(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = names::key(&body.string("name")?)?;
    let role = body.string("role")?;
    let known = || Role::ALL.map(Role::name).join(", ");
    let role = Role::parse(&role).ok_or_else(|| {
        Failure::Refused(format!("role must be one of {}, not '{}'", known(), shown(&role)))
    })?;
    let only = optional(body, "app", Object::string)?;
    let only = only
        .map(|text| Pattern::parse(&text).map_err(|why| Failure::Refused(format!("app: {why}"))));
    let NewKey { known_by, hash, secret } = made(body)?;
    let key = AccessKey {
        name,
        role,
        only: only.transpose()?.unwrap_or_default(),
        expires_at_ms: in_seconds(body, "expires_s")?,
        known_by,
        hash,
        previous: None,
        limits: limits::optional(body)?.unwrap_or_default(),
    };
    let admin_elsewhere = state.access.has_admin_elsewhere();
    let command = Command::AddKey { key: Box::new(key.clone()), admin_elsewhere };
    Ok(told(state, command, &key, secret))
}

pub(super) fn rotate(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = names::key(&body.string("name")?)?;
    let previous_until_ms = in_seconds(body, "keep_old_s")?;
    let NewKey { known_by, hash, secret } = made(body)?;
    let Some(known) = state.metadata.catalog().key(name.as_str()).cloned() else {
        return Err(Failure::Refused(unknown(name.as_str(), state)));
    };
    let command = Command::RotateKey { name, known_by, hash, previous_until_ms };
    Ok(told(state, command, &AccessKey { hash, ..known }, secret))
}

/// Without any limit in it, what is there is taken away.
pub(super) fn limit(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = names::key(&body.string("name")?)?;
    let limits = limits::required(body)?;
    if state.metadata.catalog().key(name.as_str()).is_none() {
        return Err(Failure::Refused(unknown(name.as_str(), state)));
    }
    let done = if limits.is_none() {
        format!("Key '{name}' has no limits now")
    } else {
        format!("Key '{name}' has these limits now: {limits}")
    };
    let limited = state.execute(Command::LimitKey { name, limits });
    Ok(Box::pin(async move {
        limited.await?;
        Ok(Reply::Text(done))
    }))
}

pub(super) fn revoke(body: &Object<'_>, state: &ManagementState) -> Result<Act, Failure> {
    let name = names::key(&body.string("name")?)?;
    {
        let catalog = state.metadata.catalog();
        if catalog.key(name.as_str()).is_none() {
            return Err(Failure::Refused(unknown(name.as_str(), state)));
        }
        let others = state.access.listed();
        let is_last = catalog.keys().count() == 1 && !others.iter().any(AccessKey::is_of_people);
        if is_last && state.access.is_closed_without_keys() {
            let text = format!(
                "Key '{name}' is the last one, and without any nobody may do anything here, as \
                 other machines can reach this server"
            );
            return Err(Failure::Refused(text));
        }
    }
    let done = format!("Successfully revoked key with name '{name}'");
    let admin_elsewhere = state.access.has_admin_elsewhere();
    let revoked = state.execute(Command::RevokeKey { name, admin_elsewhere });
    Ok(Box::pin(async move {
        revoked.await?;
        Ok(Reply::Text(done))
    }))
}

fn unknown(name: &str, state: &ManagementState) -> String {
    if state.access.listed().iter().any(|key| key.name.as_str() == name) {
        return format!(
            "Key '{name}' comes from a file or the environment (access.keys_file, CLIPPER_KEYS): \
             change it there"
        );
    }
    format!("no key with name '{name}' exists")
}

pub(super) fn list(body: &Object<'_>, state: &ManagementState) -> Result<Reply, Failure> {
    let verbose = body.bool("verbose")?;
    let catalog = state.metadata.catalog();
    let now_ms = clock::unix_millis();
    let described = |is_listed| move |key| KeyDescription::of(key, now_ms, is_listed);
    let listed = state.access.listed();
    let own = catalog.keys().map(described(false));
    let keys: Vec<KeyDescription> = own.chain(listed.iter().map(described(true))).collect();
    if verbose {
        return Reply::json(&keys);
    }
    Reply::json(&keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())
}
