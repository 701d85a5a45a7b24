//! How often each address may come with a wrong key. In a table of a fixed size: strangers cannot
//! make it grow. Addresses that share a place share its allowance.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PLACES: usize = 4_096;

const MINUTE_MS: u64 = 60_000;

/// Each place holds when its allowance would be whole again, Unix milliseconds (the generic cell
/// rate algorithm).
#[derive(Debug)]
pub(super) struct Failures {
    places: Box<[AtomicU64]>,
    /// One more is allowed after so long.
    interval_ms: u64,
    hasher: RandomState,
}

impl Failures {
    /// So many at once, and as many in each minute after.
    pub(super) fn new(per_minute: u32) -> Self {
        let places = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        let interval_ms = (MINUTE_MS / u64::from(per_minute.max(1))).max(1);
        Self { places, interval_ms, hasher: RandomState::new() }
    }

    /// Counts one.
    ///
    /// # Errors
    /// There were too many; one more is allowed after so many milliseconds.
    pub(super) fn count(&self, from: IpAddr, now_ms: u64) -> Result<(), u64> {
        let Some(place) = self.place(from) else { return Ok(()) };
        let mut wait_ms = 0;
        let counted = place.fetch_update(Relaxed, Relaxed, |whole_at| {
            let next = whole_at.max(now_ms) + self.interval_ms;
            wait_ms = next.saturating_sub(now_ms + MINUTE_MS);
            (wait_ms == 0).then_some(next)
        });
        counted.map(drop).map_err(|_| wait_ms)
    }

    /// Whether one more would be too many.
    pub(super) fn are_too_many(&self, from: IpAddr, now_ms: u64) -> bool {
        self.place(from).is_some_and(|place| {
            place.load(Relaxed).max(now_ms) + self.interval_ms > now_ms + MINUTE_MS
        })
    }

    fn place(&self, from: IpAddr) -> Option<&AtomicU64> {
        let at = usize::try_from(self.hasher.hash_one(network(from))).unwrap_or(0) % PLACES;
        self.places.get(at)
    }
}

/// Whoever has one address of IPv6 has all that begin with the same 64 bits.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_allowance_and_gets_it_back() {
        let failures = Failures::new(60);
        let (one, now) = (IpAddr::from([10, 0, 0, 1]), 1_000_000);
        for _ in 0..60 {
            assert_eq!(failures.count(one, now), Ok(()));
        }
        assert_eq!(failures.count(one, now), Err(1_000));
        assert!(failures.are_too_many(one, now) && !failures.are_too_many(one, now + 1_000));
        assert_eq!(failures.count(one, now + 999), Err(1));
        assert_eq!(failures.count(one, now + 1_000), Ok(()));
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::2"));
        assert_ne!(v6("2001:db8:0:1::1"), v6("2001:db8::1"));
        assert_eq!(v6("::ffff:10.0.0.1"), network(one));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_one() {
        let failures = Failures::new(60);
        let bytes = std::mem::size_of_val(&*failures.places);
        assert_eq!(bytes, 32 << 10);
        let now = 1_000_000;
        let refused = (0..1_000_000_u32)
            .filter(|address| {
                failures.count(std::net::Ipv4Addr::from_bits(*address).into(), now).is_err()
            })
            .count();
        // Each place has an allowance of its own, and no more.
        assert_eq!(refused, 1_000_000 - 60 * PLACES);
        assert_eq!(std::mem::size_of_val(&*failures.places), bytes);
        // A minute later everybody has it again.
        for address in 0..1_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(address).into();
            assert_eq!(failures.count(address, now + 2 * MINUTE_MS), Ok(()));
        }
    }
}
