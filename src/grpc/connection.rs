//! One connection: how it begins, its calls, and when it ends.

use std::net::SocketAddr;
use std::rc::Rc;

use clipper_grpc::{Call, Connection, Next, PREFACE};
use tokio::net::TcpStream;
use tracing::{error, warn};

use super::service::{Caller, Service};
use crate::access::certificate::identities;
use crate::http::errors::{self, ApiError};
use crate::http::gate::Memory;
use crate::http::serve::acceptor::tell_and_close;
use crate::http::serve::calls::{Calls, SentAway, Spoken, UnderWay};
use crate::http::serve::canned;
use crate::http::serve::io::Io;
use crate::http::serve::seats::Taken;
use crate::logging::outsiders;
use crate::metrics::http::ConnectionEnd;

/// Serves one client until it goes, or has to.
pub(super) async fn serve(io: TcpStream, peer: SocketAddr, seat: Taken, service: Rc<Service>) {
    if let Err(error) = io.set_nodelay(true) {
        return error!(%error, "an accepted connection cannot be served");
    }
    let limits = service.settings.connection;
    let ended = if let Some(tls) = &service.tls {
        let Some(io) = tls.shake(io, &seat).await else { return };
        speak(io, Calls::new(seat), (&service, peer)).await
    } else {
        let calls = Calls::new(seat);
        match tokio::time::timeout(limits.handshake, greet(io)).await {
            Err(_late) => Ok(ConnectionEnd::HeadTimeout),
            Ok(None) => Ok(ConnectionEnd::Closed),
            Ok(Some(Greeting::Other)) => Err(SentAway::Other),
            Ok(Some(Greeting::Http2(io))) => speak(Io::plain(io), calls, (&service, peer)).await,
        }
    };
    let ended = ended.unwrap_or_else(|error| {
        if let Some(left_out) = outsiders::line("not gRPC", peer.ip()) {
            warn!(%peer, %error, left_out, "a client does not speak gRPC");
        }
        service.metrics.error(errors::NOT_HTTP.label);
        ConnectionEnd::NotHttp
    });
    service.metrics.ended(ended);
}

async fn speak(
    io: Io,
    calls: Rc<Calls>,
    (service, peer): (&Rc<Service>, SocketAddr),
) -> Result<ConnectionEnd, SentAway> {
    let certificates = io.client_certificate().map(identities).unwrap_or_default();
    let (memory, receive_time) = (Memory::default(), io.receive_time().clone());
    let caller = Rc::new(Caller { from: peer.ip(), certificates, memory, receive_time });
    let mut connection = Connection::open(io, service.settings.connection).await?;
    let spoken = Grpc { service: Rc::clone(service), caller, calls: Rc::clone(&calls) };
    calls.serve(&mut connection, service.settings.idle, &spoken).await
}

/// The calls of one client.
struct Grpc {
    service: Rc<Service>,
    caller: Rc<Caller>,
    calls: Rc<Calls>,
}

impl Spoken for Grpc {
    type Call = Box<Call>;

    async fn next(&self, connection: &mut Connection<Io>) -> Next {
        connection.next().await
    }

    fn begin(&self, call: Box<Call>, under_way: UnderWay) {
        let (service, calls) = (Rc::clone(&self.service), Rc::clone(&self.calls));
        let caller = Rc::clone(&self.caller);
        actix_rt::spawn(async move {
            if service.answer(*call, &caller, &calls).await.is_err() {
                under_way.given_up();
            }
        });
    }

    fn refused(&self) {
        self.service.metrics.error(errors::NOT_HTTP.label);
    }
}

/// How a connection begins.
enum Greeting {
    Http2(TcpStream),
    /// Its client has been told what is spoken here.
    Other,
}

/// Looks at the first bytes; `None`: the client has gone.
async fn greet(io: TcpStream) -> Option<Greeting> {
    let mut first = [0; 3];
    let seen = io.peek(&mut first).await.ok()?;
    let seen = first.get(..seen).filter(|seen| !seen.is_empty())?;
    if PREFACE.starts_with(seen) {
        return Some(Greeting::Http2(io));
    }
    let cause = "This is the gRPC port of clipper (grpc.addr), which speaks HTTP/2 without TLS; \
                 the same protocol over HTTP/1.1 is at /v2 of the query port (http.query_addr)";
    let told = canned::whole(&ApiError::new(errors::NOT_HTTP, cause));
    // Who cannot read that has lost nothing.
    let _ = tell_and_close(io, &told).await;
    Some(Greeting::Other)
}
