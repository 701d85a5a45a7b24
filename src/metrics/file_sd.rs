//! Where containers have metrics of their own, and the file that tells Prometheus: pure.
//!
//! A container of the Python package announces its metrics in the routing identity of its
//! connection, `clipper-metrics=ADDRESS:PORT;` or `clipper-metrics=off;` and something unique
//! behind it. To servers that do not read it, an identity is an opaque text.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use clipper_domain::{ModelId, ReplicaId};

const PREFIX: &[u8] = b"clipper-metrics=";

/// What a container's connection tells about its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsAt {
    /// There.
    Known(SocketAddr),
    /// It has none, or none that can be reached from here.
    Nowhere,
    /// It says nothing. If it has metrics, then on the usual port of this machine.
    Perhaps(IpAddr),
}

impl MetricsAt {
    /// Reads the `identity` of a connection from `peer`.
    ///
    /// Prometheus is never sent to another machine than the one that the connection comes from.
    #[must_use]
    pub fn of(peer: IpAddr, identity: &[u8]) -> Self {
        let peer = peer.to_canonical();
        let Some(rest) = identity.strip_prefix(PREFIX) else { return Self::Perhaps(peer) };
        let announced = rest.split(|byte| *byte == b';').next().unwrap_or_default();
        let Some(address) = std::str::from_utf8(announced).ok().and_then(|a| a.parse().ok()) else {
            return Self::Nowhere;
        };
        let address: SocketAddr = address;
        let ip = address.ip().to_canonical();
        match (ip.is_loopback(), peer.is_loopback()) {
            _ if address.port() == 0 => Self::Nowhere,
            // Its own machine only, which is not this one.
            (true, false) => Self::Nowhere,
            (_, true) if !ip.is_unspecified() => Self::Known(SocketAddr::new(ip, address.port())),
            _ => Self::Known(SocketAddr::new(peer, address.port())),
        }
    }
}

#[derive(Serialize)]
struct TargetGroup<'a> {
    targets: [SocketAddr; 1],
    labels: Labels<'a>,
}

#[derive(Serialize)]
struct Labels<'a> {
    model: &'a str,
    version: &'a str,
    replica: String,
}

/// The text of the file. Of two replicas at one address the newer has it: the other one's
/// connection has not been noticed to be dead yet.
#[must_use]
pub fn file_text<'a>(
    targets: impl IntoIterator<Item = (&'a ModelId, ReplicaId, SocketAddr)>,
) -> String {
    let mut by_address: BTreeMap<SocketAddr, (ReplicaId, &ModelId)> = BTreeMap::new();
    for (model, replica, address) in targets {
        let entry = by_address.entry(address).or_insert((replica, model));
        *entry = (*entry).max((replica, model));
    }
    let groups = by_address.iter().map(|(address, (replica, model))| TargetGroup {
        targets: [*address],
        labels: Labels {
            model: model.name.as_str(),
            version: model.version.as_str(),
            replica: replica.to_string(),
        },
    });
    let lines: Vec<String> =
        groups.filter_map(|group| serde_json::to_string(&group).ok()).collect();
    if lines.is_empty() { "[]\n".to_owned() } else { format!("[{}]\n", lines.join(",\n")) }
}

/// Whether the answer to `GET /metrics` is that of a model container: the server's own metrics may
/// be on the same port of the same machine.
#[must_use]
pub fn is_containers_page(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1);
    status == Some("200") && text.lines().any(|line| line.starts_with("clipper_mc_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_domain::{ModelName, ModelVersion};

    fn at(peer: &str, identity: &str) -> Option<String> {
        match MetricsAt::of(peer.parse().unwrap(), identity.as_bytes()) {
            MetricsAt::Known(address) => Some(address.to_string()),
            MetricsAt::Nowhere => None,
            MetricsAt::Perhaps(peer) => Some(format!("{peer}?")),
        }
    }

    #[test]
    fn an_announcement_names_a_port_of_the_containers_own_machine() {
        for (peer, identity, expected) in [
            ("127.0.0.1", "clipper-metrics=127.0.0.1:1391;b2c3", Some("127.0.0.1:1391")),
            ("127.0.0.1", "clipper-metrics=0.0.0.0:1391;", Some("127.0.0.1:1391")),
            ("127.0.0.1", "clipper-metrics=10.0.0.5:1391;", Some("10.0.0.5:1391")),
            ("::1", "clipper-metrics=[::]:1391;", Some("[::1]:1391")),
            ("10.0.0.5", "clipper-metrics=0.0.0.0:1390;", Some("10.0.0.5:1390")),
            ("::ffff:10.0.0.5", "clipper-metrics=[::]:1390;", Some("10.0.0.5:1390")),
            ("10.0.0.5", "clipper-metrics=10.0.0.9:1390;", Some("10.0.0.5:1390")),
            ("10.0.0.5", "clipper-metrics=127.0.0.1:1390;", None),
            ("127.0.0.1", "clipper-metrics=off;b2c3", None),
            ("127.0.0.1", "clipper-metrics=127.0.0.1:0;", None),
            ("127.0.0.1", "clipper-metrics=\u{fffd}", None),
            ("127.0.0.1", "", Some("127.0.0.1?")),
            ("10.0.0.5", "somebody", Some("10.0.0.5?")),
        ] {
            assert_eq!(at(peer, identity).as_deref(), expected, "{peer} {identity}");
        }
    }

    #[test]
    fn the_file_has_each_address_once() {
        let sum =
            ModelId::new(ModelName::parse("s\"um").unwrap(), ModelVersion::parse("1").unwrap());
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = file_text([
            (&sum, ReplicaId(3), address(1390)),
            (&sum, ReplicaId(1), address(1390)),
            (&sum, ReplicaId(2), address(1391)),
        ]);
        let labels = r#""model":"s\"um","version":"1""#;
        let expected = format!(
            "[{{\"targets\":[\"127.0.0.1:1390\"],\"labels\":{{{labels},\"replica\":\"3\"}}}},\n\
              {{\"targets\":[\"127.0.0.1:1391\"],\"labels\":{{{labels},\"replica\":\"2\"}}}}]\n"
        );
        assert_eq!(text, expected);
        assert_eq!(file_text([]), "[]\n");
    }

    #[test]
    fn only_a_containers_page_counts() {
        let page = "HTTP/1.0 200 OK\r\n\r\n# HELP clipper_mc_pred_total x\n";
        assert!(!is_containers_page(page.as_bytes()));
        assert!(is_containers_page(format!("{page}clipper_mc_pred_total 1\n").as_bytes()));
        assert!(!is_containers_page(b"HTTP/1.1 404 Not Found\r\n\r\nclipper_mc_pred_total 1\n"));
        assert!(!is_containers_page(b"\xff\x00"));
    }
}
