//! Whether the server may listen where it is told to. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// A port, and what protects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The setting that says where it is.
    pub setting: &'static str,
    pub addr: SocketAddr,
    /// Nobody on the way can read or change what is said.
    pub is_encrypted: bool,
    /// Nobody is answered without a key, or what stands for one.
    pub asks_for_keys: bool,
}

impl Port {
    fn is_reachable(&self) -> bool {
        !self.addr.ip().to_canonical().is_loopback()
    }

    fn lacks(&self) -> Option<&'static str> {
        match (self.is_encrypted, self.asks_for_keys) {
            (true, true) => None,
            (true, false) => Some("keys"),
            (false, true) => Some("TLS"),
            (false, false) => Some("keys and TLS"),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "other machines could reach this server unprotected:{ports}\n\
     Make a key while it listens on 127.0.0.1 (clipper key add NAME --role admin), or give keys by \
     access.keys_file; set up TLS; or listen on 127.0.0.1. Where something else protects these \
     ports, a private network or a proxy, start with --insecure (CLIPPER_INSECURE=true): keys are \
     asked for nevertheless once there are any. docs/security.md has more"
)]
pub struct Exposed {
    ports: String,
}

/// Whether everybody may be answered without a key as long as there is none.
#[must_use]
pub fn is_all_loopback(ports: &[Port]) -> bool {
    !ports.iter().any(Port::is_reachable)
}

/// Whether the server may listen on these ports.
///
/// # Errors
/// Ports that other machines reach, and what they lack.
pub fn check(ports: &[Port]) -> Result<(), Exposed> {
    let mut lacking = String::new();
    for port in ports.iter().filter(|port| port.is_reachable()) {
        if let Some(lacks) = port.lacks() {
            // A text takes everything.
            let _ = write!(lacking, "\n  {} = {} without {lacks}", port.setting, port.addr);
        }
    }
    if lacking.is_empty() { Ok(()) } else { Err(Exposed { ports: lacking }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_needs_keys_and_tls() {
        let port = |addr: &str, is_encrypted, asks_for_keys| Port {
            setting: "http.query_addr",
            addr: addr.parse().unwrap(),
            is_encrypted,
            asks_for_keys,
        };
        for addr in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check(&[port(addr, false, false)]), Ok(()), "{addr}");
        }
        assert_eq!(check(&[port("10.0.0.1:1", true, true)]), Ok(()));
        for (encrypted, keys, lacks) in
            [(false, false, "keys and TLS"), (true, false, "keys"), (false, true, "TLS")]
        {
            for addr in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
                let told = check(&[port(addr, encrypted, keys)]).unwrap_err().to_string();
                let line = format!("http.query_addr = {addr} without {lacks}\n");
                assert!(told.contains(&line), "{told}");
            }
        }
    }
}
