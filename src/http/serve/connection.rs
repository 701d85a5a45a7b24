//! One connection: a stream that knows what its client owes it.
//!
//! actix-http reads whatever is sent, keeps what a client does not take, and looks at no clock but
//! that of the first request's head. The stream gives it nothing to read while a request is being
//! answered or an answer is not taken: there it only looks whether the client has gone. The task
//! around its dispatcher (`guarded.rs`) ends the connection when its time is up.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::canned::{self, Replaced};
use super::io::Io;
use super::progress::{Allowances, Phase, Progress};
use super::receive_time::ReceiveTime;
use super::seats::Taken;
use crate::access::certificate::identities;
use crate::http::holding::Memory;
use crate::metrics::http::{ConnectionEnd, FrontendMetrics};
use clipper_clock::{self as clock, Instant};
use clipper_domain::SecretHash;

/// Bytes read at a time until a request's head is complete.
const HEAD_READ: usize = 8 << 10;
/// The same of a client that sends requests without waiting for answers: each of them takes a
/// hundred times its bytes until it is answered.
const PIPELINED_READ: usize = 1 << 10;

/// What stream, task and handlers of one connection share, all on one thread.
#[derive(Debug)]
pub struct Connection {
    pub(super) progress: Cell<Progress>,
    receive_time: ReceiveTime,
    pub(super) allowances: Allowances,
    pub(super) seat: Taken,
    pub(super) metrics: Arc<FrontendMetrics>,
    /// Waits for what was not read because a request was being answered.
    withheld: RefCell<Option<Waker>>,
    /// Whether this turn of the dispatcher may still read a piece of a head: one a turn, so that a
    /// client which sends many requests at once has a few of them looked at, not all.
    may_read_head: Cell<bool>,
    /// Whether the last read filled its buffer, so that more may be there.
    has_more: Cell<bool>,
    /// The answer under way comes in pieces: it ends when its client has gone, whatever of it is
    /// written.
    is_streaming: Cell<bool>,
    /// Requests that began in this turn.
    begun: Cell<u32>,
    /// Whether the client sends requests without waiting for the answers to those before.
    pipelines: Cell<bool>,
    /// The first bytes that ever came.
    opening: Cell<[u8; 2]>,
    pub(super) ending: Cell<Option<ConnectionEnd>>,
    /// The id of the request under way, if it is one that was made.
    request_number: Cell<Option<u64>>,
    /// By what the client is known that has shown a certificate.
    certificates: Option<Rc<[SecretHash]>>,
    memory: Memory,
}

impl Connection {
    /// A connection that has just been accepted.
    #[must_use]
    pub(crate) fn new(
        io: &Io,
        seat: Taken,
        allowances: Allowances,
        metrics: Arc<FrontendMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            progress: Cell::new(Progress::new(clock::now())),
            receive_time: io.receive_time().clone(),
            allowances,
            seat,
            metrics,
            withheld: RefCell::default(),
            may_read_head: Cell::new(true),
            has_more: Cell::new(false),
            is_streaming: Cell::new(false),
            begun: Cell::new(0),
            pipelines: Cell::new(false),
            opening: Cell::default(),
            ending: Cell::new(None),
            request_number: Cell::new(None),
            certificates: io.client_certificate().map(|der| identities(der).into()),
            memory: Memory::default(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.get();
        change(&mut progress);
        self.progress.set(progress);
    }

    /// Counters of its frontend.
    #[must_use]
    pub fn metrics(&self) -> &Arc<FrontendMetrics> {
        &self.metrics
    }

    /// By what the client is known, where it has shown a certificate: one of `tls.client_ca`.
    #[must_use]
    pub fn certificates(&self) -> Option<Rc<[SecretHash]>> {
        self.certificates.clone()
    }

    /// Whose key came last.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The id of the request under way; none if its client has named it.
    #[must_use]
    pub fn request_number(&self) -> Option<u64> {
        self.request_number.get()
    }

    /// The handler of a request starts; `number` is the id that was made for it.
    pub fn started(&self, has_body: bool, number: Option<u64>) {
        self.request_number.set(number);
        self.change(|progress| progress.start(has_body));
        self.begun.set(self.begun.get() + 1);
        if self.begun.get() > 1 {
            self.pipelines.set(true);
        }
        if !has_body {
            self.seat.set_waiting(None);
        }
    }

    /// The request's body has been read to its end.
    pub fn body_read(&self) {
        self.change(Progress::complete);
        self.seat.set_waiting(None);
    }

    /// Waits for a piece of the body under way, until `due`, which is asked if it is not there yet;
    /// `None` = it did not come. The connection's own alarm wakes it: a timer would be made for
    /// each request.
    pub async fn piece<T>(
        &self,
        mut piece: impl Future<Output = T> + Unpin,
        mut due: impl FnMut() -> Instant,
    ) -> Option<T> {
        let mut waits_until = None;
        poll_fn(|cx| {
            if let Poll::Ready(piece) = Pin::new(&mut piece).poll(cx) {
                return Poll::Ready(Some(piece));
            }
            let until = *waits_until.get_or_insert_with(|| {
                let until = due();
                self.change(|progress| progress.wake_reader_at(until));
                until
            });
            if clock::now() < until { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }

    /// The time of who waits for a piece is up.
    pub(super) fn wake_reader(&self, task: &Waker) {
        self.change(Progress::reader_woken);
        task.wake_by_ref();
    }

    /// The answer to the request under way is held back: meanwhile the seat is for whoever has use
    /// for it.
    pub fn is_held_back(&self) {
        self.seat.set_waiting(Some(clock::now()));
    }

    /// The request is answered in pieces.
    pub fn streams(&self) {
        self.is_streaming.set(true);
    }

    /// The request's handler has ended.
    pub fn answered(&self) {
        self.is_streaming.set(false);
        let now = clock::now();
        self.change(|progress| progress.answer(now));
        self.seat.set_waiting(Some(now));
        self.read_on(now);
    }

    /// By when the request under way has to be complete.
    #[must_use]
    pub fn request_deadline(&self) -> Instant {
        self.progress.get().request_deadline(&self.allowances)
    }

    /// When what has been read last had come.
    #[must_use]
    pub(crate) fn receive_time(&self) -> &ReceiveTime {
        &self.receive_time
    }

    /// The client does not take its answer.
    fn block(&self) {
        let now = clock::now();
        self.change(|progress| progress.block(now));
    }

    /// The client has taken what there was of its answer.
    fn unblock(&self) {
        let now = clock::now();
        self.change(|progress| progress.unblock(now));
        self.read_on(now);
    }

    fn read_on(&self, now: Instant) {
        self.receive_time.answered(now);
        if let Some(waker) = self.withheld.borrow_mut().take() {
            waker.wake();
        }
    }

    /// A turn of the dispatcher begins.
    pub(super) fn turn(&self) {
        self.may_read_head.set(true);
        self.begun.set(0);
    }

    fn received(&self, bytes: &[u8]) {
        let progress = self.progress.get();
        if progress.is_idle() && !bytes.is_empty() {
            let now = clock::now();
            self.change(|progress| progress.begin(now));
            if let ([0, 0], [first, second, ..]) = (self.opening.get(), bytes) {
                self.opening.set([*first, *second]);
            }
        }
    }
}

/// The stream that actix-http reads and writes.
pub struct Stream {
    io: Io,
    connection: Rc<Connection>,
    /// Written in place of what actix-http wrote.
    own: Vec<u8>,
}

impl Stream {
    /// The connection over `io`.
    #[must_use]
    pub(crate) fn new(io: Io, connection: Rc<Connection>) -> Self {
        Self { io, connection, own: Vec::new() }
    }

    /// What it shares with the handlers.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Takes nothing from the socket, but notices that the client has gone.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if ready!(self.io.poll_look(cx))?.has_gone() {
            // actix-http would finish an answer that it has begun.
            let streaming = self.connection.is_streaming.get();
            let ended =
                if streaming { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) };
            return Poll::Ready(ended);
        }
        *self.connection.withheld.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads at most `most` bytes: actix-http makes a request of everything that it is given.
    fn read_a_little(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); HEAD_READ];
        let mut piece = ReadBuf::uninit(space.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        self.connection.has_more.set(piece.remaining() == 0);
        self.connection.received(piece.filled());
        buffer.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }

    /// Says why the connection ends, if the client is to know; what cannot be sent at once is not.
    fn say_why(&mut self, cx: &mut Context<'_>, why: ConnectionEnd) {
        if let Some(last_words) = canned::last_words(why) {
            let _ = Pin::new(&mut self.io).poll_write(cx, &last_words);
        }
    }

    fn flush_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.own) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(self.own.drain(..written)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.connection.block();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What TLS has taken of an answer and the client not: without TLS nothing.
    fn flush_encrypted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.io.is_encrypted() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let connection = &self.connection;
        let is_blocked = connection.progress.get().is_blocked();
        if flushed.is_pending() {
            connection.block();
        } else if is_blocked {
            connection.unblock();
        }
        flushed
    }

    /// What actix-http could not read has an error as every other.
    fn replace(&mut self, data: &[u8]) -> bool {
        let opening = self.connection.opening.get();
        let Some(Replaced { text, label }) = canned::in_place_of(data, opening) else {
            return false;
        };
        self.own = text;
        self.connection.metrics.error(label);
        true
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let connection = &this.connection;
        if let Some(why) = connection.ending.get() {
            this.say_why(cx, why);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let progress = connection.progress.get();
        if progress.is_blocked() || progress.phase() == Phase::Answering {
            return this.look(cx);
        }
        let is_head = progress.phase() != Phase::Body;
        if is_head && !connection.may_read_head.replace(false) && connection.has_more.get() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = if connection.pipelines.get() { PIPELINED_READ } else { HEAD_READ };
        if is_head && buffer.remaining() > most {
            return this.read_a_little(cx, buffer, most);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        connection.has_more.set(buffer.remaining() == 0);
        connection.received(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.flush_own(cx))?;
        if this.replace(data) {
            if let Poll::Ready(Err(error)) = this.flush_own(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        let connection = &this.connection;
        match &written {
            Poll::Pending => connection.block(),
            Poll::Ready(Ok(n)) if *n == data.len() && connection.progress.get().is_blocked() => {
                connection.unblock();
            }
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.flush_own(cx))?;
        this.flush_encrypted(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.flush_own(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.connection.ending.get() == Some(ConnectionEnd::WriteTimeout) {
            // The kernel need not keep for minutes what nobody takes.
            let _ = self.io.set_zero_linger();
        }
    }
}
