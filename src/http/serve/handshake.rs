//! The TLS handshake of a connection: how long it may take, and how many at once.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::super::errors::{self, ApiError};
use super::acceptor::tell_and_close;
use super::canned;
use super::io::Io;
use super::seats::{ConnectionSeat, Order, Seats};
use crate::logging::outsiders;
use crate::metrics::http::{ConnectionEnd, FrontendMetrics};
use crate::tls::Port;
use clipper_config::TlsConfig;

/// For a client to read why its handshake failed.
const LINGER: Duration = Duration::from_secs(1);

/// The first byte of every connection over TLS: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// The handshakes of one port.
#[derive(Debug, Clone)]
pub struct Handshakes {
    port: Port,
    patience: Duration,
    /// One for each handshake under way.
    places: Arc<Seats>,
    metrics: Arc<FrontendMetrics>,
}

/// A connection without a handshake.
struct FailedHandshake(ConnectionEnd, String);

impl Handshakes {
    #[must_use]
    pub fn new(port: Port, config: &TlsConfig, metrics: Arc<FrontendMetrics>) -> Self {
        let patience = Duration::from_millis(config.handshake_timeout_ms);
        Self { port, patience, places: Seats::new(config.handshakes_max), metrics }
    }

    /// The encrypted connection; `None` if there is none, which has been counted and told.
    pub(crate) async fn shake(&self, io: TcpStream, seat: &ConnectionSeat) -> Option<Io> {
        // All of them wait for their clients, so that one always gives way.
        let (place, _) = self.places.take(seat.peer())?;
        let shaken = tokio::select! {
            biased;
            why = ordered(seat) => Err(FailedHandshake(why, "it had to end".to_owned())),
            _ = ordered(&place) => {
                let why = "it gave way to others (tls.handshakes_max)".to_owned();
                Err(FailedHandshake(ConnectionEnd::HandshakeTimeout, why))
            }
            shaken = tokio::time::timeout(self.patience, self.accept(io)) => {
                shaken.unwrap_or_else(|_| {
                    let why = "it did not come to its end in time (tls.handshake_timeout_ms)";
                    Err(FailedHandshake(ConnectionEnd::HandshakeTimeout, why.to_owned()))
                })
            }
        };
        match shaken {
            Ok(io) => {
                self.metrics.handshake();
                Some(io)
            }
            Err(FailedHandshake(ended, why)) => {
                self.metrics.ended(ended);
                let peer = seat.peer();
                let is_ours = matches!(
                    ended,
                    ConnectionEnd::Closed | ConnectionEnd::Shutdown | ConnectionEnd::GaveWayIdle
                );
                if !is_ours && let Some(left_out) = outsiders::line("TLS", peer) {
                    warn!(%peer, left_out, "a TLS handshake failed: {why}");
                }
                None
            }
        }
    }

    async fn accept(&self, io: TcpStream) -> Result<Io, FailedHandshake> {
        let closed = |error: io::Error| FailedHandshake(ConnectionEnd::Closed, error.to_string());
        io.set_nodelay(true).map_err(closed)?;
        let mut first = [0];
        if io.peek(&mut first).await.map_err(closed)? == 0 {
            return Err(FailedHandshake(ConnectionEnd::Closed, "it said nothing".to_owned()));
        }
        if first != [HANDSHAKE_RECORD] {
            let told = ApiError::new(
                errors::NOT_HTTP,
                "This port speaks TLS, and these bytes are not TLS: use https://",
            );
            self.metrics.error(errors::NOT_HTTP.label);
            // Who cannot read that has lost nothing.
            let _ = tell_and_close(io, &canned::whole(&told)).await;
            return Err(FailedHandshake(
                ConnectionEnd::NotHttp,
                "it speaks without TLS".to_owned(),
            ));
        }
        let accepted = TlsAcceptor::from(self.port.current()).accept(io).into_fallible().await;
        let (error, io) = match accepted {
            Ok(stream) => return Ok(Io::encrypted(stream)),
            Err(failed) => failed,
        };
        if [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind()) {
            return Err(FailedHandshake(
                ConnectionEnd::HandshakeFailed,
                "its client went away".to_owned(),
            ));
        }
        // A client of TLS 1.3 sends on before it has heard; closed with that unread the connection
        // would be reset, and the alert that says why lost with it.
        let _ = tokio::time::timeout(LINGER, tell_and_close(io, &[])).await;
        Err(FailedHandshake(ConnectionEnd::HandshakeFailed, error.to_string()))
    }
}

/// Ends with the order to end.
async fn ordered(seat: &ConnectionSeat) -> ConnectionEnd {
    poll_fn(|cx| {
        seat.listen(cx.waker());
        match seat.order() {
            Order::Stay => Poll::Pending,
            Order::GiveWay => Poll::Ready(ConnectionEnd::GaveWayIdle),
            Order::EndIfIdle | Order::End => Poll::Ready(ConnectionEnd::Shutdown),
        }
    })
    .await
}
