//! A connection over HTTP/2, where TLS is on: its requests go to the handlers that those over
//! HTTP/1.1 go to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_http::Request;
use actix_service::Service;
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use clipper_grpc::{Connection, Exchange, Limits, Next};
use tracing::warn;

use super::calls::{Calls, SentAway, Spoken, UnderWay};
use super::exchange::{self, Client};
use super::io::Io;
use super::seats::Taken;
use super::shown::Certificates;
use crate::access::certificate::identities;
use crate::http::errors;
use crate::logging::outsiders;
use crate::metrics::http::{ConnectionEnd, FrontendMetrics};

/// What all connections of a worker share.
pub(super) struct Http2<S> {
    pub(super) handlers: S,
    pub(super) limits: Limits,
    pub(super) idle: Duration,
    /// Once it is set, clients are to make no further requests.
    pub(super) draining: Arc<AtomicBool>,
    pub(super) metrics: Arc<FrontendMetrics>,
}

/// The requests of one client.
struct ClientRequests<S> {
    shared: Rc<Http2<S>>,
    client: Client,
}

impl<S, B> Http2<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    /// Serves one client until it goes, or has to.
    pub(super) async fn serve(self: Rc<Self>, io: Io, peer: SocketAddr, seat: Taken) {
        let metrics = Arc::clone(&self.metrics);
        let ended = self.speak(io, peer, seat).await.unwrap_or_else(|error| {
            if let Some(left_out) = outsiders::line("not HTTP/2", peer.ip()) {
                warn!(%peer, %error, left_out, "a client breaks the rules of HTTP/2");
            }
            metrics.error(errors::NOT_HTTP.label);
            ConnectionEnd::NotHttp
        });
        metrics.ended(ended);
    }

    async fn speak(
        self: Rc<Self>,
        io: Io,
        peer: SocketAddr,
        seat: Taken,
    ) -> Result<ConnectionEnd, SentAway> {
        let certificates = io.client_certificate().map(|der| Certificates(identities(der).into()));
        let (idle, receive_time) = (self.idle, io.receive_time().clone());
        let mut connection = Connection::open(io, self.limits).await?;
        let requests =
            ClientRequests { shared: self, client: Client { peer, certificates, receive_time } };
        Calls::new(seat).serve(&mut connection, idle, &requests).await
    }
}

impl<S, B> Spoken for ClientRequests<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Call = Box<Exchange>;

    async fn next(&self, connection: &mut Connection<Io>) -> Next<Box<Exchange>> {
        connection.next_exchange().await
    }

    fn begin(&self, exchange: Box<Exchange>, under_way: UnderWay) {
        let (shared, client) = (Rc::clone(&self.shared), self.client.clone());
        actix_rt::spawn(async move {
            let Http2 { handlers, metrics, .. } = &*shared;
            if exchange::answer(*exchange, client, handlers, metrics).await.is_err() {
                under_way.given_up();
            }
        });
    }

    fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }
}
