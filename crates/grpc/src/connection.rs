//! The server's side of one connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::call::Call;
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::patient::Patient;

/// Streams that the client has reset and the server not yet looked at; more end the connection.
const RESETS_MAX: usize = 64;
/// Streams ended by an error of the client, over the connection's life.
const ERRORS_MAX: usize = 1_024;
/// Bytes of one DATA frame.
const FRAME_BYTES: u32 = 64 << 10;
/// Bytes of answers that wait to be written, of one connection.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// For the client to hear that its connection ends.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What a connection has come to; a `C` is a call of gRPC or a request of plain HTTP.
#[derive(Debug)]
pub enum Next<C = Box<Call>> {
    Call(C),
    /// A request that is no call of gRPC; it has been answered.
    Refused,
    /// By the client, or because all has been said after [`Connection::drain`].
    Closed,
    /// The client does not answer, or takes nothing of what is sent.
    Silent,
    /// What came breaks the rules of HTTP/2.
    Broken(Violation),
}

/// A client does not keep to HTTP/2.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error("the preface of HTTP/2 did not come in time")]
    Late,
    #[error(transparent)]
    Rules(#[from] h2::Error),
}

/// Serves one client. Its calls make no progress unless [`Self::next`] is polled.
pub struct Connection<I> {
    h2: h2::server::Connection<Patient<I>, Bytes>,
    silence: Pin<Box<dyn Future<Output = ()>>>,
    limits: Limits,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    /// Waits for the client's preface, not longer than it may take.
    ///
    /// # Errors
    /// It did not come, or is not that of HTTP/2.
    pub async fn open(io: I, limits: Limits) -> Result<Self, Violation> {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.headers_max_bytes)
            .initial_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_frame_size(FRAME_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(Some(ERRORS_MAX));
        let handshake = builder.handshake(Patient::new(io, limits.write));
        let opened = tokio::time::timeout(limits.handshake, handshake).await;
        let mut h2 = opened.map_err(|_| Violation::Late)??;
        let silence: Pin<Box<dyn Future<Output = ()>>> = match h2.ping_pong() {
            Some(pings) => Box::pin(watch(pings, limits)),
            None => Box::pin(std::future::pending()),
        };
        Ok(Self { h2, silence, limits })
    }

    /// What happens next. May be dropped and called again.
    pub async fn next(&mut self) -> Next {
        match self.accept().await {
            Next::Call((request, respond)) => match Call::new(request, respond, &self.limits) {
                Some(call) => Next::Call(Box::new(call)),
                None => Next::Refused,
            },
            Next::Refused => Next::Refused,
            Next::Closed => Next::Closed,
            Next::Silent => Next::Silent,
            Next::Broken(error) => Next::Broken(error),
        }
    }

    /// The same where plain HTTP is spoken.
    pub async fn next_exchange(&mut self) -> Next<Box<Exchange>> {
        match self.accept().await {
            Next::Call((request, respond)) => {
                Next::Call(Box::new(Exchange::new(request, respond, self.limits.write)))
            }
            Next::Refused => Next::Refused,
            Next::Closed => Next::Closed,
            Next::Silent => Next::Silent,
            Next::Broken(error) => Next::Broken(error),
        }
    }

    async fn accept(&mut self) -> Next<(Request<RecvStream>, SendResponse<Bytes>)> {
        let accepted = tokio::select! {
            biased;
            accepted = self.h2.accept() => accepted,
            () = &mut self.silence => return Next::Silent,
        };
        match accepted {
            None => Next::Closed,
            Some(Err(error)) => match error.get_io().map(io::Error::kind) {
                Some(io::ErrorKind::TimedOut) => Next::Silent,
                Some(_) => Next::Closed,
                None => Next::Broken(error.into()),
            },
            Some(Ok(came)) => Next::Call(came),
        }
    }

    /// Tells the client to make no more calls; those under way go on.
    pub fn drain(&mut self) {
        self.h2.graceful_shutdown();
    }

    /// Ends the connection, whatever is under way.
    pub async fn end(&mut self) {
        self.shut(h2::Reason::NO_ERROR).await;
    }

    /// The same of a client that asks for too much.
    pub async fn calm(&mut self) {
        self.shut(h2::Reason::ENHANCE_YOUR_CALM).await;
    }

    async fn shut(&mut self, reason: h2::Reason) {
        self.h2.abrupt_shutdown(reason);
        let _ = tokio::time::timeout(LAST_MOMENT, async {
            while let Some(Ok(_)) = self.h2.accept().await {}
        })
        .await;
    }
}

/// Ends when the client does not answer.
async fn watch(mut pings: PingPong, limits: Limits) {
    loop {
        tokio::time::sleep(limits.keep_alive).await;
        let answer = tokio::time::timeout(limits.keep_alive_timeout, pings.ping(Ping::opaque()));
        // A connection that fails says so itself.
        if answer.await.is_err() {
            return;
        }
    }
}
