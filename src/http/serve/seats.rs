//! The open connections of one frontend: one limit for all its threads, and who gives way at it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

use clipper_clock::{self as clock, Instant};

/// Of the seats, this share is chosen to give way at once when the limit is reached, so that a
/// flood of new connections does not look through all of them each time.
const GIVE_WAY_SHARE: usize = 100;

/// Value of [`ConnectionSeat::waits_since_us`] while the connection does not wait for its client.
const NOT_WAITING: u64 = u64::MAX;

/// What a connection is told by the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    Stay = 0,
    /// End now if no request is under way.
    EndIfIdle = 1,
    /// End now unless a complete request is being answered: somebody else needs the seat.
    GiveWay = 2,
    End = 3,
}

/// The place of one open connection. Its connection touches it without a lock.
#[derive(Debug)]
pub struct ConnectionSeat {
    id: u64,
    peer: IpAddr,
    waits_since_us: AtomicU64,
    order: AtomicU8,
    waker: AtomicWaker,
    seats: Arc<Seats>,
}

impl ConnectionSeat {
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// What the connection has been told.
    #[must_use]
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Stay,
            1 => Order::EndIfIdle,
            2 => Order::GiveWay,
            _ => Order::End,
        }
    }

    /// Wakes this task at the next order.
    pub fn listen(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Since when the connection waits for its client, if it does.
    pub fn set_waiting(&self, since: Option<Instant>) {
        let since = since.map_or(NOT_WAITING, |since| self.seats.micros(since));
        self.waits_since_us.store(since, Ordering::Relaxed);
    }

    fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// A seat taken; dropping it frees the seat.
#[derive(Debug)]
pub struct Taken(Arc<ConnectionSeat>);

impl std::ops::Deref for Taken {
    type Target = ConnectionSeat;

    fn deref(&self) -> &ConnectionSeat {
        &self.0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut table = self.0.seats.table.lock();
        table.seats.remove(&self.0.id);
        if table.seats.is_empty() {
            self.0.seats.emptied.notify_waiters();
        }
    }
}

#[derive(Debug)]
pub struct Seats {
    max: usize,
    start: Instant,
    table: Mutex<SeatTable>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct SeatTable {
    next: u64,
    seats: HashMap<u64, Arc<ConnectionSeat>>,
    /// Who is to give way next, the first one last.
    candidates: Vec<u64>,
}

impl Seats {
    /// No connection yet, and at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        let (table, emptied) = (Mutex::default(), Notify::new());
        Arc::new(Self { max, start: clock::now(), table, emptied })
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_micros()).unwrap_or(NOT_WAITING - 1)
    }

    /// A seat for a new connection, and whether another one gives way for it. `None`: every other
    /// connection is being answered.
    #[must_use]
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<(Taken, bool)> {
        let mut table = self.table.lock();
        let is_full = table.seats.len() >= self.max;
        if is_full && !self.make_room(&mut table) {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let seat = Arc::new(ConnectionSeat {
            id,
            peer,
            waits_since_us: AtomicU64::new(self.micros(clock::now())),
            order: AtomicU8::new(Order::Stay as u8),
            waker: AtomicWaker::new(),
            seats: Arc::clone(self),
        });
        table.seats.insert(id, Arc::clone(&seat));
        Some((Taken(seat), is_full))
    }

    /// Tells one connection to give way. Its seat is free at once; it ends within a moment.
    fn make_room(&self, table: &mut SeatTable) -> bool {
        for _ in 0..2 {
            while let Some(id) = table.candidates.pop() {
                let waits = |seat: &Arc<ConnectionSeat>| {
                    seat.waits_since_us.load(Ordering::Relaxed) != NOT_WAITING
                };
                if table.seats.get(&id).is_some_and(waits)
                    && let Some(seat) = table.seats.remove(&id)
                {
                    seat.tell(Order::GiveWay);
                    return true;
                }
            }
            let waiting = table.seats.values().filter_map(|seat| {
                let since = seat.waits_since_us.load(Ordering::Relaxed);
                (since != NOT_WAITING).then_some((seat.id, seat.peer, since))
            });
            table.candidates = longest_waiting(waiting, (self.max / GIVE_WAY_SHARE).max(1));
        }
        false
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.lock().seats.len()
    }

    pub fn tell_all(&self, order: Order) {
        let seats: Vec<Arc<ConnectionSeat>> = self.table.lock().seats.values().cloned().collect();
        for seat in seats {
            seat.tell(order);
        }
    }

    /// Waits until no connection is open.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// At most `n` of those who wait, the longest waiting last: those of the address that has most of
/// them, so that a stranger with many connections gives way before anybody else.
fn longest_waiting(waiting: impl Iterator<Item = (u64, IpAddr, u64)>, n: usize) -> Vec<u64> {
    let waiting: Vec<_> = waiting.collect();
    let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
    for (_, peer, _) in &waiting {
        *by_address.entry(*peer).or_default() += 1;
    }
    let Some(most) = by_address.into_iter().max_by_key(|(peer, count)| (*count, *peer)) else {
        return Vec::new();
    };
    let mut chosen: Vec<_> = waiting.into_iter().filter(|(_, peer, _)| *peer == most.0).collect();
    // Not all of one address at once: by the time the last is needed another may have more.
    let n = n.min((chosen.len() / 2).max(1));
    chosen.sort_unstable_by_key(|(id, _, since)| (*since, *id));
    chosen.truncate(n);
    chosen.into_iter().rev().map(|(id, ..)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_longest_waiting_of_the_address_with_most_connections_gives_way() {
        let waiting = [
            (0, address(1), 5),
            (1, address(2), 40),
            (2, address(2), 30),
            (3, address(2), 20),
            (4, address(2), 60),
            (5, address(3), 1),
        ];
        assert_eq!(longest_waiting(waiting.into_iter(), 1), [3]);
        assert_eq!(longest_waiting(waiting.into_iter(), 100), [2, 3], "half of them");
        assert!(longest_waiting(std::iter::empty(), 1).is_empty());
    }

    #[tokio::test]
    async fn at_the_limit_one_that_waits_gives_way_and_one_that_is_answered_does_not() {
        let seats = Seats::new(2);
        let (old, _) = seats.take(address(1)).unwrap();
        let (busy, _) = seats.take(address(1)).unwrap();
        busy.set_waiting(None);
        let (newcomer, made_room) = seats.take(address(2)).unwrap();
        assert!(made_room);
        let orders = [old.order(), busy.order(), newcomer.order()];
        assert_eq!(orders, [Order::GiveWay, Order::Stay, Order::Stay]);
        assert_eq!(seats.open(), 2);
        newcomer.set_waiting(None);
        assert!(seats.take(address(3)).is_none(), "all are being answered");
        busy.set_waiting(Some(clock::now()));
        assert!(seats.take(address(3)).is_some_and(|(_, made_room)| made_room));
        assert_eq!(busy.order(), Order::GiveWay);
        drop((old, busy, newcomer));
        seats.empty().await;
    }
}
