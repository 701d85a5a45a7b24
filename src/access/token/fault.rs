//! Why a token is not taken.

use clipper_domain::Role;
use clipper_domain::access::InvalidPattern;

/// Why not. For the log: its sender is told less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("it is no JWT")]
    Form,
    #[error("it has extensions that have to be understood (crit)")]
    Critical,
    #[error("it is signed by an algorithm that is not taken: RS256, ES256 or EdDSA are")]
    Algorithm,
    #[error("it is signed by none of the issuer's keys (kid, alg)")]
    Signer,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is of another issuer (iss)")]
    Issuer,
    #[error("it is not for this server (aud)")]
    Audience,
    #[error("it never expires (exp)")]
    Endless,
    #[error("it has expired (exp)")]
    Expired,
    #[error("it is not good yet (nbf)")]
    Early,
    #[error("its claim {0} is no time")]
    Time(&'static str),
    #[error("its claim sub is no name of up to 250 bytes")]
    Subject,
    #[error("its claim {0} does not name one of the roles predict, observe, operate, admin")]
    Role(String),
    #[error("its claim {0}: {1}")]
    Names(String, InvalidPattern),
    #[error("its role {0} is for all applications and models, and it names some")]
    NotLimitable(Role),
}
