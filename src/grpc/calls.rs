//! The calls of one connection, and what it is told because of them.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use tokio::sync::Notify;

use crate::http::serve::seats::{Order, Taken};

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    seat: Taken,
    pub(super) open: Cell<usize>,
    idle_since: Cell<Option<Instant>>,
    idle: Notify,
    is_closing: Cell<bool>,
    closes: Notify,
}

impl Calls {
    pub(super) fn new(seat: Taken) -> Rc<Self> {
        Rc::new(Self {
            seat,
            open: Cell::new(0),
            idle_since: Cell::new(Some(clock::now())),
            idle: Notify::new(),
            is_closing: Cell::new(false),
            closes: Notify::new(),
        })
    }

    /// Ends when calls that wait for their client have to end.
    pub(super) async fn closing(&self) {
        let closes = self.closes.notified();
        if !self.is_closing.get() {
            closes.await;
        }
    }

    pub(super) fn close(&self) {
        self.is_closing.set(true);
        self.closes.notify_waiters();
    }

    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        if self.open.replace(self.open.get() + 1) == 0 {
            self.seat.set_waiting(None);
            self.idle_since.set(None);
        }
        UnderWay(Rc::clone(self))
    }

    /// Ends when there was no call for so long.
    pub(super) async fn unused(&self, allowance: Duration) {
        loop {
            let idle = self.idle.notified();
            let Some(since) = self.idle_since.get() else {
                idle.await;
                continue;
            };
            tokio::time::sleep_until(since + allowance).await;
            if self.idle_since.get() == Some(since) {
                return;
            }
        }
    }

    /// The next order that is more than `than`.
    pub(super) async fn ordered(&self, than: Order) -> Order {
        poll_fn(|cx| {
            self.seat.listen(cx.waker());
            let order = self.seat.order();
            if order as u8 > than as u8 { Poll::Ready(order) } else { Poll::Pending }
        })
        .await
    }
}

/// A call that has not ended.
pub(super) struct UnderWay(Rc<Calls>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let calls = &self.0;
        calls.open.set(calls.open.get().saturating_sub(1));
        if calls.open.get() == 0 {
            let now = clock::now();
            calls.seat.set_waiting(Some(now));
            calls.idle_since.set(Some(now));
            calls.idle.notify_waiters();
        }
    }
}
