//! Queries that wait for a replica, earliest deadline first. Pure: generic over what waits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use clipper_clock::Instant;

#[derive(Debug)]
struct Entry<T> {
    deadline: Instant,
    order: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the heap's greatest is the earliest deadline, then the first to arrive.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.order).cmp(&(self.deadline, self.order))
    }
}

/// A deadline-ordered queue; equal deadlines leave in the order they came.
#[derive(Debug)]
pub struct DeadlineQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    next_order: u64,
}

impl<T> Default for DeadlineQueue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next_order: 0 }
    }
}

impl<T> DeadlineQueue<T> {
    /// Adds an item that is due at `deadline`.
    pub fn push(&mut self, deadline: Instant, item: T) {
        let order = self.next_order;
        self.next_order += 1;
        self.heap.push(Entry { deadline, order, item });
    }

    /// Takes the item that is due first.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        self.heap.pop().map(|e| (e.deadline, e.item))
    }

    /// Takes the item that is due first if it is overdue at `now`.
    pub fn pop_overdue(&mut self, now: Instant) -> Option<T> {
        if self.heap.peek()?.deadline > now {
            return None;
        }
        self.heap.pop().map(|e| e.item)
    }

    /// When the first item is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|e| e.deadline)
    }

    /// Items waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use clipper_clock as clock;

    #[test]
    fn leaves_by_deadline_then_by_arrival() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut queue = DeadlineQueue::default();
        for (ms, name) in [(20, "c"), (10, "a"), (20, "d"), (10, "b"), (5, "first")] {
            queue.push(at(ms), name);
        }
        assert_eq!(queue.next_deadline(), Some(at(5)));
        assert_eq!(queue.pop_overdue(at(4)), None);
        assert_eq!(queue.pop_overdue(at(5)), Some("first"));
        let names: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert!(queue.is_empty());
    }
}
