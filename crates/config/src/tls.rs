//! `[tls]`: encryption of the ports that speak HTTP and gRPC.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;

section! {
    /// `[tls]`: encryption of the ports that speak HTTP and gRPC.
    pub struct TlsConfig {
        /// The server's certificate, and behind it those between it and its authority, as PEM;
        /// relative to the working directory. Empty (the default): no port speaks TLS. The files
        /// are read again when they change. `clipper cert self-signed DIR` makes one for trials.
        cert: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Its key, as PEM without a password.
        key: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Authorities, as PEM: clients show a certificate of one of them. Empty: clients show
        /// none.
        client_ca: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Whether a client without such a certificate is refused; false: only one with a wrong
        /// certificate is.
        client_required: bool = true, Rule::Bool;

        /// Oldest version that is spoken. 1.2 for clients of before 2018, with none but its
        /// ciphers that are still good.
        min_version: TlsVersion = TlsVersion::V1_2, Rule::Choice(&["1.2", "1.3"]);

        /// Whether the query port speaks TLS, once there is a certificate.
        query: bool = true, Rule::Bool;

        /// The same of the management port.
        management: bool = true, Rule::Bool;

        /// The same of the metrics port.
        metrics: bool = true, Rule::Bool;

        /// The same of the gRPC port.
        grpc: bool = true, Rule::Bool;

        /// Whether the ports of HTTP speak HTTP/2 as well where they speak TLS; the client chooses.
        /// Its limits are those of [http].
        http2: bool = true, Rule::Bool;

        /// From the connection to the end of its handshake, milliseconds; then it is closed.
        handshake_timeout_ms: u64 = 5_000, Rule::millis();

        /// Handshakes of one port at the same time. For a further one that gives way which takes
        /// longest, of the address that has most of them. Each takes some 20 KB.
        handshakes_max: usize = 1_024, Rule::count("handshakes");

        /// How often the files are looked at, milliseconds. A change that cannot be used is logged,
        /// and the certificate before it stays.
        reload_ms: u64 = 1_000, Rule::millis();
    }
}

impl TlsConfig {
    /// Whether there is a certificate at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}
