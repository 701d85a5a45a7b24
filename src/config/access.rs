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
        /// [PATTERN] for each; relative to the working directory. Empty (the default): none. The
        /// variable CLIPPER_KEYS may list keys as well, with ; between them.
        #[flag("keys-file", "FILE")]
        keys_file: PathBuf = PathBuf::new(), Rule::AnyText;

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
