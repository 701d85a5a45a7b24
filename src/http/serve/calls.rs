//! The calls of one connection over HTTP/2, what it is told because of them, and when it ends.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_grpc::{Connection, Next, Violation};
use tokio::sync::Notify;

use super::io::Io;
use super::seats::{Order, Taken};
use crate::metrics::http::ConnectionEnd;

/// A client that has given up so many calls, and more than it let be answered, is sent away: it
/// has the server begin what it does not want ("rapid reset").
const GIVEN_UP_MAX: u64 = 256;

/// Why a client is sent away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SentAway {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("it does not begin as HTTP/2")]
    Other,
    #[error("it gives up more calls than it lets be answered")]
    GivesUp,
}

/// What is spoken over a connection.
pub(crate) trait Spoken {
    type Call;

    /// What happens next; may be dropped and called again.
    async fn next(&self, connection: &mut Connection<Io>) -> Next<Self::Call>;

    /// A call has come; `under_way` is dropped when it has ended.
    fn begin(&self, call: Self::Call, under_way: UnderWay);

    /// What came was no call, which has been said.
    fn refused(&self) {}

    /// Whether the client is to make no further calls.
    fn is_draining(&self) -> bool {
        false
    }
}

/// The calls of one connection.
#[derive(Debug)]
pub(crate) struct Calls {
    seat: Taken,
    open: Cell<usize>,
    idle_since: Cell<Option<Instant>>,
    idle: Notify,
    is_closing: Cell<bool>,
    closes: Notify,
    answered: Cell<u64>,
    given_up: Cell<u64>,
}

impl Calls {
    pub(crate) fn new(seat: Taken) -> Rc<Self> {
        Rc::new(Self {
            seat,
            open: Cell::new(0),
            idle_since: Cell::new(Some(clock::now())),
            idle: Notify::new(),
            is_closing: Cell::new(false),
            closes: Notify::new(),
            answered: Cell::new(0),
            given_up: Cell::new(0),
        })
    }

    /// Ends when calls that wait for their client have to end.
    pub(crate) async fn closing(&self) {
        let closes = self.closes.notified();
        if !self.is_closing.get() {
            closes.await;
        }
    }

    fn close(&self) {
        self.is_closing.set(true);
        self.closes.notify_waiters();
    }

    fn begin(self: &Rc<Self>) -> UnderWay {
        if self.open.replace(self.open.get() + 1) == 0 {
            self.seat.set_waiting(None);
            self.idle_since.set(None);
        }
        UnderWay { calls: Rc::clone(self), is_given_up: false }
    }

    /// Ends when there was no call for so long.
    async fn unused(&self, allowance: Duration) {
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
    async fn ordered(&self, than: Order) -> Order {
        poll_fn(|cx| {
            self.seat.listen(cx.waker());
            let order = self.seat.order();
            if order as u8 > than as u8 { Poll::Ready(order) } else { Poll::Pending }
        })
        .await
    }

    /// Serves them until the client goes or has to; a connection without calls ends after `idle`.
    ///
    /// # Errors
    /// The rule of HTTP/2 that the client has broken.
    pub(crate) async fn serve(
        self: &Rc<Self>,
        connection: &mut Connection<Io>,
        idle: Duration,
        spoken: &impl Spoken,
    ) -> Result<ConnectionEnd, SentAway> {
        let mut obeyed = Order::Stay;
        let mut why = ConnectionEnd::Closed;
        let mut unused = pin!(self.unused(idle));
        loop {
            let event = tokio::select! {
                biased;
                order = self.ordered(obeyed) => CallEvent::Ordered(order),
                next = spoken.next(connection) => CallEvent::Next(next),
                () = &mut unused, if why == ConnectionEnd::Closed => CallEvent::Unused,
            };
            match event {
                CallEvent::Next(Next::Call(call)) => {
                    if asks_too_much(self.given_up.get(), self.answered.get()) {
                        connection.calm().await;
                        return Err(SentAway::GivesUp);
                    }
                    spoken.begin(call, self.begin());
                    if why == ConnectionEnd::Closed && spoken.is_draining() {
                        why = ConnectionEnd::Shutdown;
                        connection.drain();
                    }
                }
                CallEvent::Next(Next::Refused) => spoken.refused(),
                CallEvent::Next(Next::Closed) => return Ok(why),
                CallEvent::Next(Next::Silent) => return Ok(ConnectionEnd::WriteTimeout),
                CallEvent::Next(Next::Broken(error)) => return Err(error.into()),
                CallEvent::Unused => {
                    why = ConnectionEnd::Idle;
                    connection.drain();
                }
                CallEvent::Ordered(order) => {
                    obeyed = order;
                    why = match order {
                        Order::Stay | Order::EndIfIdle | Order::End => ConnectionEnd::Shutdown,
                        Order::GiveWay => ConnectionEnd::GaveWayIdle,
                    };
                    if order == Order::End || order == Order::GiveWay && self.open.get() == 0 {
                        connection.end().await;
                        return Ok(why);
                    }
                    connection.drain();
                    self.close();
                }
            }
        }
    }
}

/// What happens to a connection.
enum CallEvent<C> {
    Ordered(Order),
    Next(Next<C>),
    Unused,
}

fn asks_too_much(given_up: u64, answered: u64) -> bool {
    given_up > GIVEN_UP_MAX && given_up > answered
}

/// A call that has not ended.
pub(crate) struct UnderWay {
    calls: Rc<Calls>,
    is_given_up: bool,
}

impl UnderWay {
    /// By its client.
    pub(crate) fn given_up(mut self) {
        self.is_given_up = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let calls = &self.calls;
        let count = if self.is_given_up { &calls.given_up } else { &calls.answered };
        count.set(count.get().saturating_add(1));
        calls.open.set(calls.open.get().saturating_sub(1));
        if calls.open.get() == 0 {
            let now = clock::now();
            calls.seat.set_waiting(Some(now));
            calls.idle_since.set(Some(now));
            calls.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_a_few_calls_or_fewer_than_are_answered_may_stay() {
        assert!(!asks_too_much(GIVEN_UP_MAX, 0));
        assert!(asks_too_much(GIVEN_UP_MAX + 1, 0));
        assert!(!asks_too_much(GIVEN_UP_MAX * 10, GIVEN_UP_MAX * 10));
        assert!(asks_too_much(GIVEN_UP_MAX * 10 + 1, GIVEN_UP_MAX * 10));
    }
}
