//! Why somebody may not do what was asked.

use clipper_domain::KeyName;
use clipper_domain::access::Denied;

use super::token::fault::TokenFault;

/// Why not, for whoever asked. Shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "This server asks for a key, and none came: send the header Authorization: Bearer KEY \
         (commands of clipper: --key KEY or CLIPPER_KEY)"
    )]
    Missing,
    #[error("The header Authorization is neither Bearer KEY nor Basic with a key as the password")]
    Malformed,
    #[error("The key that came is none of this server")]
    Unknown,
    /// Its sender need not know more; the log says it.
    #[error("The token that came is not taken: the log of the server says why")]
    Token(TokenFault),
    #[error("No key of this server is for the certificate that came, and no other key came")]
    Certificate,
    #[error("Key '{0}' has expired, or has another secret by now: ask whoever manages keys")]
    Expired(KeyName),
    #[error("Key '{0}' is no good any more: it was revoked or replaced, or has expired")]
    NoMore(KeyName),
    #[error(
        "Too many wrong keys came from this address (access.failures_per_minute): try again in \
         {retry_after_s} s"
    )]
    TooOften { retry_after_s: u32 },
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Refused {
    /// For the log.
    #[must_use]
    pub fn in_full(&self) -> String {
        match self {
            Self::Token(fault) => format!("A token is not taken: {fault}"),
            other => other.to_string(),
        }
    }
}
