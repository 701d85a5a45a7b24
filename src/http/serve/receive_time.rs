//! When what a connection has read had come: the kernel's time, and not that of a thread which was
//! kept from its core and reads it late. Objectives count from there.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use nix::sys::socket::getsockopt;
use nix::time::{ClockId, clock_getres};
use nix::{getsockopt_impl, libc, sockopt_impl};
use tokio::net::TcpStream;

/// So often a thread that reads in time asks the kernel whether it still does, which takes a tenth
/// of what a cached answer takes.
const ASK_EVERY: Duration = Duration::from_millis(1);

sockopt_impl!(
    /// `tcp(7)`
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// The step of the clock by which the kernel notes when bytes came, 1 to 10 ms.
static TICK: LazyLock<Duration> = LazyLock::new(|| {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    tick.unwrap_or(Duration::from_millis(10))
});

thread_local! {
    static THIS_THREAD: Cell<NextQuestion> = const { Cell::new(NextQuestion { next: None }) };
}

/// When a thread asks the kernel next.
#[derive(Debug, Clone, Copy)]
struct NextQuestion {
    /// At once while it reads late.
    next: Option<Instant>,
}

impl NextQuestion {
    fn is_due(self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    fn after(waited: Duration, now: Instant) -> Self {
        Self { next: waited.is_zero().then(|| now + ASK_EVERY) }
    }
}

/// How long bytes have waited at least of which the kernel tells this: it counts the ticks since
/// they came, and the first of them may have come just after they did.
fn waited(told: Duration, tick: Duration) -> Duration {
    told.saturating_sub(tick)
}

/// When the last bytes of a stream came, that were read just now.
fn last_of(stream: &TcpStream) -> Instant {
    let now = clock::now();
    if !THIS_THREAD.get().is_due(now) {
        return now;
    }
    // Not known of what is no connection any more.
    let told = getsockopt(stream, TcpInfo).map_or(0, |info| info.tcpi_last_data_recv);
    let waited = waited(Duration::from_millis(told.into()), *TICK);
    THIS_THREAD.set(NextQuestion::after(waited, now));
    now.checked_sub(waited).unwrap_or(now)
}

/// When the last bytes of one connection came. Shared by all who serve it, on one thread.
#[derive(Debug, Clone)]
pub(crate) struct ReceiveTime(Rc<Cell<Option<Instant>>>);

impl ReceiveTime {
    pub(super) fn new() -> Self {
        Self(Rc::default())
    }

    /// When what has been read last had come, at the latest; never earlier than before.
    #[must_use]
    pub(crate) fn last(&self) -> Instant {
        self.0.get().unwrap_or_else(clock::now)
    }

    /// Bytes of `stream` have been read.
    pub(super) fn read(&self, stream: &TcpStream) {
        self.0.set(self.0.get().max(Some(last_of(stream))));
    }

    /// The client has its answer: what it sent meanwhile counts as sent now.
    pub(super) fn answered(&self, now: Instant) {
        self.0.set(self.0.get().max(Some(now)));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A client's end, and the server's.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn the_kernel_is_asked_now_and_then_and_each_time_while_a_thread_is_late() {
        let (start, late) = (clock::now(), Duration::from_millis(20));
        let asking = NextQuestion { next: None };
        assert!(asking.is_due(start));
        let asking = NextQuestion::after(Duration::ZERO, start);
        assert!(!asking.is_due(start) && !asking.is_due(start + ASK_EVERY / 2));
        assert!(asking.is_due(start + ASK_EVERY));
        assert!(NextQuestion::after(late, start).is_due(start));
    }

    #[tokio::test]
    async fn bytes_that_wait_unread_came_when_they_were_sent_and_after_the_last_answer() {
        let (mut client, mut stream) = connected().await;
        let received = ReceiveTime::new();
        let mut late_read = async || {
            client.write_all(b"request").await.unwrap();
            let sent = clock::now();
            let wait = *TICK * 20;
            tokio::time::sleep(wait).await;
            stream.read_exact(&mut [0; 7]).await.unwrap();
            received.read(&stream);
            (sent, wait)
        };
        let (sent, wait) = late_read().await;
        let noted = received.last() - sent;
        assert!(noted < wait / 2, "{noted:?} after it was sent, and read after {wait:?}");
        let (_, wait) = late_read().await;
        assert!(clock::now() - received.last() >= wait / 2);
        let answered = clock::now();
        received.answered(answered);
        received.read(&stream);
        assert!(received.last() >= answered, "it waited for its client's last answer");
    }

    #[test]
    fn what_a_tick_may_have_added_does_not_count() {
        let tick = Duration::from_millis(4);
        assert_eq!(waited(Duration::ZERO, tick), Duration::ZERO);
        assert_eq!(waited(tick, tick), Duration::ZERO);
        assert_eq!(waited(tick * 2, tick), tick);
    }

    #[tokio::test]
    async fn nothing_came_before_it_was_sent() {
        let (mut client, mut stream) = connected().await;
        // Each at another moment of a tick.
        for n in 0..20 {
            tokio::time::sleep(*TICK * 2 + *TICK * n / 20).await;
            let sent = clock::now();
            client.write_all(b"request").await.unwrap();
            tokio::time::sleep(*TICK * 2).await;
            stream.read_exact(&mut [0; 7]).await.unwrap();
            let received = ReceiveTime::new();
            received.read(&stream);
            assert!(received.last() >= sent, "{:?} before", sent - received.last());
        }
    }
}
