//! Keys from a file or the environment, for orchestrators that hold the secrets.
//!
//! ```text
//! # NAME ROLE SECRET [PATTERN]
//! ci       predict    clk_Jq3...            team-a-*
//! ops      admin      sha256:9f86d081884c...
//! encoder  container  curve:Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID  encoder
//! eye      observe    certificate:dns:prometheus.example
//! ```
//!
//! One key a line; in a variable `;` ends a line as well. What may stand in the place of a secret:
//! [`PublicIdentity`].

use super::identity::{InvalidIdentity, KnownBy, PublicIdentity};
use super::key::{AccessKey, SecretHash};
use super::pattern::{InvalidPattern, Pattern};
use super::role::Role;
use crate::ids::{InvalidName, KeyName};
use crate::limits::Limits;

/// A shorter secret could be found by trying.
pub const SECRET_MIN_BYTES: usize = 32;

/// What starts the hash of a secret in place of the secret.
pub const HASHED: &str = "sha256:";

/// What is wrong with a list. Never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ListFault {
    /// From 1.
    pub line: usize,
    pub problem: ListProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    #[error("expected NAME ROLE SECRET [PATTERN]")]
    Form,
    #[error("the name: {0}")]
    Name(InvalidName),
    #[error("the role has to be one of predict, observe, operate, admin, container")]
    Role,
    #[error(
        "the secret has to have at least {SECRET_MIN_BYTES} bytes, as from `openssl rand -hex 32`, \
         or be sha256: and 64 hexadecimal digits"
    )]
    Secret,
    #[error("{0}")]
    Identity(#[from] InvalidIdentity),
    #[error("a container is known by a secret or a key of CURVE (curve:), and nobody else by that")]
    NotForRole,
    #[error("{0}")]
    Pattern(#[from] InvalidPattern),
    #[error("a key of the role {0} is for all applications and models: leave the pattern out")]
    NotLimitable(Role),
    #[error("an earlier line has the same name or secret")]
    Again,
}

/// Reads a list; `hash` is SHA-256.
///
/// # Errors
/// The first line that is none.
pub fn parse(text: &str, hash: impl Fn(&[u8]) -> SecretHash) -> Result<Vec<AccessKey>, ListFault> {
    let mut keys: Vec<AccessKey> = Vec::new();
    for (n, line) in text.split(['\n', ';']).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |problem| ListFault { line: n + 1, problem };
        let key = key(line, &hash).map_err(fault)?;
        if keys.iter().any(|other| other.name == key.name || other.hash == key.hash) {
            return Err(fault(ListProblem::Again));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(line: &str, hash: impl Fn(&[u8]) -> SecretHash) -> Result<AccessKey, ListProblem> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(role), Some(secret)) = (words.next(), words.next(), words.next()) else {
        return Err(ListProblem::Form);
    };
    let only = words.next().map(Pattern::parse).transpose()?.unwrap_or_default();
    if words.next().is_some() {
        return Err(ListProblem::Form);
    }
    let role = Role::parse(role).ok_or(ListProblem::Role)?;
    if !role.is_limitable() && !only.is_everything() {
        return Err(ListProblem::NotLimitable(role));
    }
    let (known_by, hash) = known_by(secret, hash)?;
    if !role.may_be(known_by) {
        return Err(ListProblem::NotForRole);
    }
    let name = KeyName::parse(name).map_err(ListProblem::Name)?;
    let limits = Limits::default();
    Ok(AccessKey { name, role, only, expires_at_ms: None, known_by, hash, previous: None, limits })
}

fn known_by(
    secret: &str,
    hash: impl Fn(&[u8]) -> SecretHash,
) -> Result<(KnownBy, SecretHash), ListProblem> {
    if let Some(identity) = PublicIdentity::parse(secret)? {
        return Ok((identity.known_by(), hash(identity.as_bytes())));
    }
    let hash = match secret.strip_prefix(HASHED) {
        Some(digits) => SecretHash::parse(digits).ok_or(ListProblem::Secret)?,
        None if secret.len() >= SECRET_MIN_BYTES => hash(secret.as_bytes()),
        None => return Err(ListProblem::Secret),
    };
    Ok((KnownBy::Secret, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<AccessKey>, ListFault> {
        parse(text, |secret| SecretHash([secret[0]; 32]))
    }

    #[test]
    fn keys_are_one_a_line_and_faults_show_no_secret() {
        let secret = "s".repeat(SECRET_MIN_BYTES);
        let hashed = format!("sha256:{}", "0a".repeat(32));
        let keys =
            read(&format!("# ours\nci predict {secret} a-*\n\nops admin {hashed}; ")).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!((keys[0].role, keys[0].only.as_str()), (Role::Predict, "a-*"));
        assert_eq!(keys[1].hash, SecretHash([10; 32]));
        let curve = format!("c container curve:{} v-*", "a".repeat(40));
        let keys = read(&curve).unwrap();
        assert_eq!((keys[0].known_by, keys[0].only.as_str()), (KnownBy::Curve, "v-*"));
        for (line, problem) in [
            (format!("ci {secret}"), ListProblem::Form),
            (format!("ci root {secret}"), ListProblem::Role),
            ("ci predict hunter2".to_owned(), ListProblem::Secret),
            ("ci predict sha256:12".to_owned(), ListProblem::Secret),
            (format!("ci admin {secret} a-*"), ListProblem::NotLimitable(Role::Admin)),
            ("c container curve:12".to_owned(), InvalidIdentity::Curve.into()),
            (format!("c admin curve:{}", "a".repeat(40)), ListProblem::NotForRole),
            ("c container certificate:dns:a".to_owned(), ListProblem::NotForRole),
            (format!("a predict {secret};a predict {secret}x"), ListProblem::Again),
        ] {
            let fault = read(&line).unwrap_err();
            assert_eq!(fault.problem, problem, "{line}");
            assert!(!fault.to_string().contains("hunter2") && !fault.to_string().contains(&secret));
        }
    }
}
