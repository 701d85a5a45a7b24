//! A bound on a sum of bytes that many requests hold at the same time (invariant L2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound and what is held of it.
#[derive(Debug)]
pub struct Budget {
    max_bytes: usize,
    used: AtomicUsize,
}

impl Budget {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, used: AtomicUsize::new(0) })
    }

    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many more would fit now.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.max_bytes
    }

    /// A part of the budget, nothing at first.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Holds so many more bytes; `false` = there is no room, and nothing has changed.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.budget.max_bytes {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Holds so many bytes from now on; `false` = there is no room for more, and nothing has
    /// changed.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            return self.grow(more);
        }
        self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        self.bytes = bytes;
        true
    }

    /// Holds what another part of the same budget has held, too.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_exceeds_the_bound_and_is_given_back() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.hold(), budget.hold());
        assert!(a.grow(4) && a.grow(2) && b.grow(4));
        assert!(!b.grow(1) && budget.used() == 10);
        drop(a);
        assert!(budget.used() == 4 && budget.has_room(6) && !budget.has_room(7));
        assert!(b.grow(6));
        assert!(b.resize(3) && budget.used() == 3 && b.bytes() == 3);
        assert!(!b.resize(11) && budget.used() == 3 && b.resize(10));
        drop(b);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn two_parts_become_one_that_holds_both() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.hold(), budget.hold());
        assert!(a.grow(4) && b.grow(3));
        a.absorb(b);
        assert_eq!((a.bytes(), budget.used()), (7, 7));
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
