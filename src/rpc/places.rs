//! Places for connections: how many there are, and who gives way for a new one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::flooders::{FloodLimits, Flooders};
use crate::metrics::Metrics;
use clipper_clock as clock;

/// The count of open connections, and who comes back slowly.
#[derive(Debug)]
pub(super) struct Places {
    open: AtomicUsize,
    flooders: Mutex<Flooders>,
}

impl Places {
    pub(super) fn new(limits: FloodLimits) -> Self {
        Self { open: AtomicUsize::new(0), flooders: Mutex::new(Flooders::new(limits)) }
    }

    /// Whether one more connection from there is taken.
    pub(super) fn admits(&self, from: IpAddr) -> bool {
        self.flooders.lock().admits(from, clock::now())
    }

    /// A connection from there was cut for flooding.
    pub(super) fn cut(&self, from: IpAddr) {
        self.flooders.lock().cut(from, clock::now());
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// One open connection's share of `rpc.connections_max`, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    from: IpAddr,
}

impl Place {
    /// One of places of its own.
    #[cfg(test)]
    pub(crate) fn for_test(metrics: &Arc<Metrics>, from: IpAddr) -> Self {
        let limits =
            FloodLimits { connections_max: 1, window: std::time::Duration::MAX, addresses_max: 1 };
        Self::take(&Arc::new(Places::new(limits)), metrics, from)
    }

    pub(super) fn take(places: &Arc<Places>, metrics: &Arc<Metrics>, from: IpAddr) -> Self {
        let open = places.open.fetch_add(1, Ordering::Relaxed) + 1;
        metrics.set_rpc_connections(open);
        Self { places: Arc::clone(places), metrics: Arc::clone(metrics), from }
    }

    /// The connection is cut for flooding: its address comes back slowly.
    pub fn cut(&self) {
        self.places.cut(self.from);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.places.open.fetch_sub(1, Ordering::Relaxed) - 1;
        self.metrics.set_rpc_connections(open);
    }
}

/// Connections of one kind, oldest first: where there are too many, the oldest gives way. Those who
/// only hold places go first that way, and nobody can keep newcomers out by holding them.
#[derive(Clone, Default)]
pub(super) struct WaitingLine(Arc<Mutex<LineTable>>);

#[derive(Default)]
struct LineTable {
    next: u64,
    /// Dropping the sender ends the connection.
    oldest_first: BTreeMap<u64, oneshot::Sender<()>>,
}

impl WaitingLine {
    /// A place for one more of at most `max`, and what ends when it is taken away.
    pub(super) fn join(&self, max: usize) -> (LinePlace, oneshot::Receiver<()>) {
        let mut table = self.0.lock();
        while table.oldest_first.len() >= max.max(1) {
            table.oldest_first.pop_first();
        }
        let (evict, evicted) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.oldest_first.insert(number, evict);
        (LinePlace { line: self.clone(), number }, evicted)
    }

    /// Ends the oldest. False if there is none.
    pub(super) fn end_oldest(&self) -> bool {
        self.0.lock().oldest_first.pop_first().is_some()
    }
}

/// A place in a [`WaitingLine`], given back when dropped.
pub(super) struct LinePlace {
    line: WaitingLine,
    number: u64,
}

impl Drop for LinePlace {
    fn drop(&mut self) {
        self.line.0.lock().oldest_first.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_who_leaves_frees_its_place() {
        let line = WaitingLine::default();
        let (first, mut first_ends) = line.join(2);
        let (_second, mut second_ends) = line.join(2);
        drop(first);
        let (_third, mut third_ends) = line.join(2);
        assert!(first_ends.try_recv().is_err(), "its sender went with it");
        assert_eq!(second_ends.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let (_fourth, _fourth_ends) = line.join(2);
        assert_eq!(second_ends.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(third_ends.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert!(line.end_oldest() && line.end_oldest() && !line.end_oldest());
    }
}
