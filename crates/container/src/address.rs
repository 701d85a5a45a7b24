//! Where a container's server is.

use std::fmt;
use std::str::FromStr;

use zeromq::{Endpoint, Host};

/// `tcp://HOST:PORT`, read by the `zeromq` crate, which takes 300 KB for a while to do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    host: Host,
    port: u16,
}

/// A server's address is written in another way.
#[derive(Debug, thiserror::Error)]
#[error("expected tcp://HOST:PORT")]
pub struct AddressError;

impl ServerAddress {
    pub(super) fn host_and_port(&self) -> (String, u16) {
        (self.host.to_string(), self.port)
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match Endpoint::from_str(text) {
            Ok(Endpoint::Tcp(host, port)) => Ok(Self { host, port }),
            _ => Err(AddressError),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Endpoint::Tcp(self.host.clone(), self.port).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for text in ["tcp://127.0.0.1:7000", "tcp://[::1]:7000", "tcp://clipper.example:1"] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_of_tcp_is_refused() {
        for text in ["", "127.0.0.1:7000", "tcp://127.0.0.1", "tcp://a:70000", "ipc:///tmp/a"] {
            let refused = text.parse::<ServerAddress>().unwrap_err();
            assert_eq!(refused.to_string(), "expected tcp://HOST:PORT", "{text}");
        }
    }
}
