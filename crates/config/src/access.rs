//! `[access]`: who may do what.

use std::path::PathBuf;

use super::rule::Rule;
use super::section::section;
use clipper_domain::Limits;
use clipper_domain::limits::InvalidLimits;

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
        /// changes. Or the https:// URL where he has them; http:// only of this machine. Empty (the
        /// default): none are taken.
        jwt_keys: PathBuf = PathBuf::new(), Rule::AnyText;

        /// How often such a URL is asked; when a token is by a key that is not known, and when it
        /// was away, again after 10 s. While it is away the keys stay that it had.
        jwt_keys_refresh_ms: u64 = 300_000, Rule::millis();

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

        /// Queries a second that each holder of a token may ask for, counted by his sub; 0 (the
        /// default): as many as he likes, as with the next three. Beyond it 429.
        jwt_rate: u32 = 0, Rule::int(0, 1_000_000, "queries a second");

        /// Queries at once after a pause; 0: as many as in a second.
        jwt_burst: u32 = 0, Rule::int(0, 1_000_000, "queries");

        /// Queries of each holder that are being answered.
        jwt_concurrent: u32 = 0, Rule::int(0, 1_000_000, "queries");

        /// Bytes of the bodies of his requests that are being answered.
        jwt_body_bytes: u64 = 0, Rule::int(0, 1_099_511_627_776, "bytes");

        /// Whether /livez, /readyz and /healthz, and the same over /v2 and gRPC, are answered
        /// without a key: load balancers and orchestrators have none.
        open_health: bool = true, Rule::Bool;

        /// Whether metrics are read without a key. They tell the names of all applications and
        /// models. Without keys those of the query port are for this machine alone, unless this is
        /// true.
        open_metrics: bool = false, Rule::Bool;

        /// Wrong keys in a minute from one address, or as many at once; those after get 429.
        /// Whoever goes on, or comes ten times as often without any key, waits a second for each
        /// refusal. Good keys from there are good meanwhile.
        failures_per_minute: u32 = 60, Rule::int(1, 60_000, "wrong keys");
    }
}

impl AccessConfig {
    /// How much each holder of a token may ask for.
    ///
    /// # Errors
    /// A burst without a rate.
    pub fn jwt_limits(&self) -> Result<Limits, InvalidLimits> {
        let queries = |number: u32| (number > 0).then_some(i64::from(number));
        let bytes = i64::try_from(self.jwt_body_bytes).ok().filter(|bytes| *bytes > 0);
        let [rate, burst, concurrent] =
            [self.jwt_rate, self.jwt_burst, self.jwt_concurrent].map(queries);
        Limits::of([rate, burst, concurrent, bytes], None)
    }
}
