//! Addresses that come back slowly: one of their connections was cut for flooding. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use clipper_clock::Instant;

/// What such an address may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloodLimits {
    /// Connections within the window.
    pub(super) connections_max: u32,
    /// Without a further cut the address is forgotten after this.
    pub(super) window: Duration,
    /// Addresses that are remembered; for one more the oldest is forgotten.
    pub(super) addresses_max: usize,
}

/// See the module's text. This machine's own addresses are never among them: the server's replicas
/// come from there, and somebody else's flood must not keep them out.
#[derive(Debug)]
pub(super) struct Flooders {
    limits: FloodLimits,
    /// When the window began, and the connections since then.
    known: HashMap<IpAddr, (Instant, u32)>,
}

impl Flooders {
    pub(super) fn new(limits: FloodLimits) -> Self {
        Self { limits, known: HashMap::new() }
    }

    /// A connection from there was cut for flooding.
    pub(super) fn cut(&mut self, from: IpAddr, now: Instant) {
        let from = from.to_canonical();
        if is_own(from) {
            return;
        }
        let limits = self.limits;
        self.known.retain(|_, (began, _)| now < *began + limits.window);
        if !self.known.contains_key(&from)
            && self.known.len() >= limits.addresses_max
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (began, _))| *began)
        {
            let oldest = *oldest.0;
            self.known.remove(&oldest);
        }
        self.known.entry(from).or_insert((now, 0));
    }

    /// Whether one more connection from there is taken.
    pub(super) fn admits(&mut self, from: IpAddr, now: Instant) -> bool {
        let from = from.to_canonical();
        let Some((began, connections)) = self.known.get_mut(&from) else { return true };
        if now >= *began + self.limits.window {
            self.known.remove(&from);
            return true;
        }
        *connections = connections.saturating_add(1);
        *connections <= self.limits.connections_max
    }
}

/// 127.0.0.1 and `::1`: where the server's own replicas connect from.
fn is_own(from: IpAddr) -> bool {
    from == IpAddr::from([127, 0, 0, 1]) || from == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flooders() -> Flooders {
        let window = Duration::from_secs(10);
        Flooders::new(FloodLimits { connections_max: 3, window, addresses_max: 2 })
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn only_who_was_cut_comes_back_slowly_and_only_for_a_while() {
        let (mut flooders, now) = (flooders(), clipper_clock::now());
        assert!((0..100).all(|_| flooders.admits(address(1), now)));
        flooders.cut(address(1), now);
        flooders.cut(address(1), now);
        assert!((0..3).all(|_| flooders.admits(address(1), now)));
        assert!(!flooders.admits(address(1), now));
        assert!(flooders.admits(address(2), now), "a neighbour");
        let later = now + Duration::from_secs(10);
        assert!((0..100).all(|_| flooders.admits(address(1), later)));
    }

    #[test]
    fn the_same_address_in_the_other_family_is_the_same_and_this_machine_is_spared() {
        let (mut flooders, now) = (flooders(), clipper_clock::now());
        flooders.cut("::ffff:10.0.0.1".parse().unwrap(), now);
        assert!((0..3).all(|_| flooders.admits(address(1), now)));
        assert!(!flooders.admits(address(1), now));
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let own = own.parse().unwrap();
            flooders.cut(own, now);
            assert!((0..100).all(|_| flooders.admits(own, now)), "{own}");
        }
    }

    #[test]
    fn so_many_addresses_are_remembered() {
        let (mut flooders, now) = (flooders(), clipper_clock::now());
        for n in 1..=3 {
            flooders.cut(address(n), now + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(flooders.known.len(), 2);
        assert!(!flooders.known.contains_key(&address(1)), "the oldest");
    }
}
