//! `[access]`: who may do what.

use std::path::PathBuf;

use super::rule::Rule;
use super::section::section;

section! {
    /// `[access]`: who may do what. Keys are made by `clipper key add`; as long as there is none,
    /// everybody who reaches the server may do everything.
    pub struct AccessConfig {
        /// Whether the server may listen on addresses that other machines reach without keys and
        /// TLS: where a private network or a proxy protects it. Keys are asked for nevertheless
        /// once there are any.
        #[flag("insecure", "BOOL")]
        insecure: bool = false, Rule::Bool;

        /// A file of further keys, for orchestrators that hold secrets: a line NAME ROLE SECRET
        /// [PATTERN] for each; relative to the working directory. Read again when it changes.
        /// Empty (the default): none. The variable CLIPPER_KEYS may list keys as well, with ;
        /// between them.
        #[flag("keys-file", "FILE")]
        keys_file: PathBuf = PathBuf::new(), Rule::AnyText;

        /// A file with the public keys of an issuer (JWKS), whose tokens (JWT) then stand for keys,
        /// signed by RS256, ES256 or EdDSA; relative to the working directory. Read again when it
        /// changes. Empty (the default): none are taken.
        jwt_keys: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Who the issuer is: the claim iss of his tokens.
        jwt_issuer: String = String::new(), Rule::AnyText;

        /// Who this server is to him: one of the claim aud.
        jwt_audience: String = String::new(), Rule::AnyText;

        /// The claim that names the role: predict, observe, operate or admin, alone or among other
        /// words or texts.
        jwt_role_claim: String = "role".to_owned(), Rule::Text;

        /// The claim with the pattern of applications and models; a token without it is for all.
        jwt_names_claim: String = "app".to_owned(), Rule::Text;

        /// Tokens that are remembered, so that they are not checked again at each request; a few
        /// hundred bytes each.
        jwt_cache_max: usize = 10_000, Rule::count("tokens");

        /// Whether /livez, /readyz and /healthz, and the same over /v2 and gRPC, are answered
        /// without a key: load balancers and orchestrators have none.
        open_health: bool = true, Rule::Bool;

        /// Whether metrics are read without a key. They tell the names of all applications and
        /// models. Without keys those of the query port are for this machine alone, unless this is
        /// true.
        open_metrics: bool = false, Rule::Bool;

        /// Wrong keys in a minute from one address, or as many at once; those after get 429. Good
        /// keys from there are good meanwhile.
        failures_per_minute: u32 = 60, Rule::int(1, 60_000, "wrong keys");
    }
}
