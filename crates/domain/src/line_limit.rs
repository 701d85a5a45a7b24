//! How many log lines strangers can cause.
//!
//! Whoever can connect can make a server write lines. Here each cause has an allowance for each
//! address and one for all addresses together, in every window of time; what goes beyond is
//! counted, and the count is told. Pure: no clock, no log.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The limits of [`LineLimiter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// Lines of one cause from one address in one window.
    pub lines_max: u32,
    /// Length of a window, milliseconds.
    pub window_ms: u64,
    /// Pairs of cause and address that are told apart in one window; all further ones share one
    /// allowance for each cause.
    pub sources_max: usize,
}

/// All addresses together have this many times the allowance of one.
const ALL_TIMES: u32 = 10;

/// Stands for the addresses beyond [`LineLimits::sources_max`].
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Lines of one cause that were left out and that no later line has told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Why the lines would have been written.
    pub cause: &'static str,
    pub lines: u64,
    /// From how many addresses, at least.
    pub addresses: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct LinesOf {
    window: u64,
    written: u32,
    left_out: u64,
}

impl LinesOf {
    fn enter(&mut self, window: u64) {
        if self.window != window {
            self.window = window;
            self.written = 0;
        }
    }
}

/// Says of each line whether it is written.
#[derive(Debug)]
pub struct LineLimiter {
    limits: LineLimits,
    sources: HashMap<(&'static str, IpAddr), LinesOf>,
    causes: HashMap<&'static str, LinesOf>,
}

impl LineLimiter {
    /// Nothing has been written yet.
    #[must_use]
    pub fn new(limits: LineLimits) -> Self {
        Self { limits, sources: HashMap::new(), causes: HashMap::new() }
    }

    /// A line of this cause from this address: `Some` if it is written, with the number of lines
    /// like it that have been left out before it.
    pub fn admit(&mut self, cause: &'static str, from: IpAddr, now_ms: u64) -> Option<u64> {
        let window = now_ms / self.limits.window_ms.max(1);
        let known = self.sources.contains_key(&(cause, from));
        let from =
            if known || self.sources.len() < self.limits.sources_max { from } else { OTHERS };
        let all = self.causes.entry(cause).or_default();
        let source = self.sources.entry((cause, from)).or_default();
        all.enter(window);
        source.enter(window);
        let lines_max = self.limits.lines_max;
        if source.written >= lines_max || all.written >= lines_max.saturating_mul(ALL_TIMES) {
            source.left_out += 1;
            return None;
        }
        source.written += 1;
        all.written += 1;
        Some(std::mem::take(&mut source.left_out))
    }

    /// Forgets the sources that have been quiet since the window before `now_ms`, and tells what
    /// was left out of theirs. To be called once a window.
    pub fn sweep(&mut self, now_ms: u64) -> Vec<LeftOut> {
        let window = now_ms / self.limits.window_ms.max(1);
        let mut told: Vec<LeftOut> = Vec::new();
        self.sources.retain(|(cause, _), count| {
            if count.window >= window {
                return true;
            }
            if count.left_out > 0 {
                match told.iter_mut().find(|left_out| left_out.cause == *cause) {
                    Some(left_out) => {
                        left_out.lines += count.left_out;
                        left_out.addresses += 1;
                    }
                    None => {
                        told.push(LeftOut { cause, lines: count.left_out, addresses: 1 });
                    }
                }
            }
            false
        });
        self.causes.retain(|_, count| count.window >= window);
        told.sort_by_key(|left_out| left_out.cause);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LineLimits = LineLimits { lines_max: 3, window_ms: 1_000, sources_max: 50 };

    fn address(n: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n))
    }

    #[test]
    fn what_goes_beyond_the_allowance_is_counted_and_told_by_the_next_line() {
        let mut limiter = LineLimiter::new(LIMITS);
        let written = (0..1_000).filter_map(|_| limiter.admit("garbage", address(1), 0)).count();
        assert_eq!(written, 3);
        assert_eq!(limiter.admit("garbage", address(2), 999), Some(0), "another address");
        assert_eq!(limiter.admit("timeout", address(1), 999), Some(0), "another cause");
        assert_eq!(limiter.admit("garbage", address(1), 1_000), Some(997), "the next window");
        assert_eq!(limiter.admit("garbage", address(1), 1_001), Some(0));
    }

    #[test]
    fn many_addresses_have_a_bound_together_in_lines_and_memory() {
        let mut limiter = LineLimiter::new(LIMITS);
        let lines = (0..10_000).filter_map(|n| limiter.admit("garbage", address(n), 0)).count();
        assert_eq!(lines, 30);
        assert_eq!(limiter.sources.len(), 51);
        assert!(limiter.sweep(999).is_empty(), "the window is not over");
        let told = limiter.sweep(1_000);
        assert_eq!(told, [LeftOut { cause: "garbage", lines: 9_970, addresses: 21 }]);
        assert!(limiter.sources.is_empty() && limiter.causes.is_empty());
    }

    #[test]
    fn what_was_left_out_is_told_once_when_it_has_become_quiet() {
        let mut limiter = LineLimiter::new(LIMITS);
        for _ in 0..5 {
            limiter.admit("a", address(1), 0);
            limiter.admit("b", address(1), 0);
        }
        let told = limiter.sweep(1_500);
        let causes: Vec<_> = told.iter().map(|t| (t.cause, t.lines)).collect();
        assert_eq!(causes, [("a", 2), ("b", 2)]);
        assert!(limiter.sweep(2_500).is_empty());
    }
}
