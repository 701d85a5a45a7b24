//! The frontends' own way from a listening socket to actix-http, which speaks HTTP/1.1 from there;
//! where TLS is on, HTTP/2 is spoken as well ([`http2`]).
//!
//! actix-server has limits for each thread and none for a whole request, an unread answer or a
//! client that has gone. Here one acceptor counts the connections of a frontend ([`seats`]), and
//! every connection ([`connection`]) has deadlines ([`progress`]) and sees its client go.

pub(crate) mod acceptor;
pub(crate) mod calls;
pub(crate) mod canned;
pub mod connection;
mod exchange;
mod guarded;
pub mod handshake;
mod http2;
pub(crate) mod io;
pub mod progress;
pub(crate) mod receive_time;
pub mod seats;
pub mod shown;
mod watched;

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_rt::{Arbiter, ArbiterHandle};
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactory as _, fn_factory, map_config,
};
use actix_web::dev::AppConfig;
use actix_web::{App as HttpApp, web};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use self::acceptor::{Accepted, Acceptor, Worker};
use self::canned::HTTP_LIMIT;
use self::connection::{Connection, Stream};
use self::guarded::Guarded;
use self::handshake::Handshakes;
use self::http2::Http2;
use self::io::Io;
use self::progress::Allowances;
use self::seats::{Order, Seats};
use self::watched::Watched;
use super::edge::Edge;
use super::gate::Gate;
use crate::metrics::http::FrontendMetrics;
use crate::priority::give_way;
use clipper_config::HttpConfig;
use clipper_grpc::Limits;

/// Connections that have given way and not yet ended, for each worker; above it newcomers are
/// refused.
const GIVING_WAY_MAX: usize = 1_024;
/// From the end of an answer whose request was not read to its end to that of its connection.
const LINGER: Duration = Duration::from_secs(1);
/// A client of HTTP/2 is asked so often whether it is there.
const PING_AFTER: Duration = Duration::from_secs(60);
/// After every connection has been told to end at once.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What one frontend is made of.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: usize,
    /// Of its threads, as of `nice`.
    pub niceness: i32,
    pub connections_max: usize,
    /// The setting that says so.
    pub limit: &'static str,
    /// Deadlines of every connection.
    pub allowances: Allowances,
    /// Whether connections are kept for further requests.
    pub keeps_alive: bool,
    /// Whether a client that closes its side, wholly or half, abandons the request under way.
    pub abandons: bool,
    /// Where TLS is spoken.
    pub tls: Option<Handshakes>,
    /// Of clients that speak HTTP/2 inside it.
    pub http2: Limits,
    pub metrics: Arc<FrontendMetrics>,
}

impl Options {
    /// A frontend with the limits of the configuration.
    #[must_use]
    pub fn new(config: &HttpConfig, metrics: Arc<FrontendMetrics>) -> Self {
        let head = Duration::from_millis(config.client_request_timeout_ms);
        let keeps_alive = config.keep_alive_ms > 0;
        Self {
            workers: 1,
            niceness: 0,
            connections_max: config.connections_max,
            limit: HTTP_LIMIT,
            allowances: Allowances {
                idle: if keeps_alive { Duration::from_millis(config.keep_alive_ms) } else { head },
                head,
                request: Duration::from_millis(config.request_timeout_ms),
                write: Duration::from_millis(config.write_timeout_ms),
            },
            keeps_alive,
            abandons: false,
            tls: None,
            http2: Limits {
                streams: config.http2_streams_max,
                headers_max_bytes: config.http2_headers_max_bytes,
                // Bodies have limits of their own.
                message_max_bytes: 0,
                message_max_setting: "",
                stream_window_bytes: config.http2_stream_window_bytes,
                connection_window_bytes: config.http2_connection_window_bytes,
                handshake: head,
                keep_alive: PING_AFTER,
                keep_alive_timeout: Duration::from_millis(config.write_timeout_ms),
                write: Duration::from_millis(config.write_timeout_ms),
            },
            metrics,
        }
    }
}

/// A frontend that serves.
pub struct Frontend {
    seats: Arc<Seats>,
    draining: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    accepting: oneshot::Receiver<()>,
    workers: Vec<Arbiter>,
}

impl Frontend {
    /// Serves `socket`; `acceptor` is the thread that accepts. `configure` runs once on each
    /// worker's thread.
    pub fn start(
        options: &Options,
        socket: TcpListener,
        acceptor: &ArbiterHandle,
        gate: &Gate,
        configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> Self {
        let (mut frontend, accepted) = Self::accept(options, socket, acceptor);
        for accepted in accepted {
            let (options, draining) = (options.clone(), Arc::clone(&frontend.draining));
            let (gate, configure) = (gate.clone(), configure.clone());
            let arbiter = Arbiter::new();
            arbiter.spawn_fn(move || {
                if options.niceness > 0 {
                    give_way(options.niceness);
                }
                actix_rt::spawn(work(options, draining, (gate, configure), accepted));
            });
            frontend.workers.push(arbiter);
        }
        frontend
    }

    /// Accepts connections of `socket` for threads that are not its own, each of which takes one of
    /// the receivers.
    #[must_use]
    pub fn accept(
        options: &Options,
        socket: TcpListener,
        acceptor: &ArbiterHandle,
    ) -> (Self, Vec<mpsc::Receiver<Accepted>>) {
        let seats = Seats::new(options.connections_max);
        let watched = Arc::downgrade(&seats);
        options.metrics.watch_open(move || watched.upgrade().map_or(0, |seats| seats.open()));
        let draining = Arc::new(AtomicBool::new(false));
        let waiting_max = options.connections_max.saturating_add(GIVING_WAY_MAX);
        let (ends, receivers): (Vec<_>, Vec<_>) = (0..options.workers)
            .map(|_| {
                let (connections, accepted) = mpsc::channel(waiting_max);
                (Worker { connections, open: Arc::new(AtomicUsize::new(0)) }, accepted)
            })
            .unzip();
        let (stop, stopped) = oneshot::channel();
        let (accepted, accepting) = oneshot::channel();
        let (metrics, of_acceptor) = (Arc::clone(&options.metrics), Arc::clone(&seats));
        let limit = options.limit;
        acceptor.spawn_fn(move || {
            let acceptor = Acceptor::new(ends, of_acceptor, metrics, limit);
            actix_rt::spawn(async move {
                if let Err(error) = acceptor.run(socket, stopped).await {
                    error!(%error, "a port cannot be served");
                }
                // Nobody waits for it any more when the process is on its way out.
                let _ = accepted.send(());
            });
        });
        (Self { seats, draining, stop, accepting, workers: Vec::new() }, receivers)
    }

    /// From now on every answer is the last of its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Accepts nobody any more, gives requests under way `patience`, and ends.
    pub async fn stop(self, patience: Duration) {
        self.finish(patience).await.stop();
    }

    /// Likewise; its threads live on until the value is stopped.
    pub async fn finish(self, patience: Duration) -> Workers {
        self.drain();
        // Gone only if it could not serve.
        let _ = self.stop.send(());
        let _ = self.accepting.await;
        self.seats.tell_all(Order::EndIfIdle);
        if tokio::time::timeout(patience, self.seats.empty()).await.is_err() {
            self.seats.tell_all(Order::End);
            let _ = tokio::time::timeout(LAST_MOMENT, self.seats.empty()).await;
        }
        Workers(self.workers)
    }
}

/// The threads of a frontend that has finished.
#[must_use]
pub struct Workers(Vec<Arbiter>);

impl Workers {
    pub fn stop(&self) {
        for worker in &self.0 {
            worker.stop();
        }
    }
}

/// The life of one worker's thread.
async fn work(
    options: Options,
    draining: Arc<AtomicBool>,
    (gate, configure): (Gate, impl Fn(&mut web::ServiceConfig) + Clone + 'static),
    accepted: mpsc::Receiver<Accepted>,
) {
    let edge = Edge::new(gate.port(), gate.cors());
    let app = HttpApp::new().wrap(gate).wrap(edge).configure(configure);
    let app = map_config(app, |()| AppConfig::default());
    // Once: an actix-web application gives its endpoints away to the first that it makes.
    let Ok(endpoints) = app.into_factory().new_service(()).await else {
        return error!("an HTTP worker cannot start");
    };
    let endpoints = Rc::new(endpoints);
    let (of_http1, is_draining) = (Rc::clone(&endpoints), Arc::clone(&draining));
    let handlers = fn_factory(move || {
        let watched = Watched::new(Rc::clone(&of_http1), Arc::clone(&is_draining));
        async move { Ok::<_, ()>(watched) }
    });
    let keep_alive = if options.keeps_alive { KeepAlive::Os } else { KeepAlive::Disabled };
    let http = HttpService::build()
        .keep_alive(keep_alive)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .h1_allow_half_closed(!options.abandons)
        .on_connect_ext(|stream: &Stream, data: &mut actix_http::Extensions| {
            data.insert(Rc::clone(stream.connection()));
        })
        .h1(handlers);
    let Ok(http) = http.new_service(()).await else {
        return error!("an HTTP worker cannot start");
    };
    let (allowances, metrics) = (options.allowances, Arc::clone(&options.metrics));
    let serve = move |io: Io, peer, seat| {
        let connection = Connection::new(&io, seat, allowances, Arc::clone(&metrics));
        let dispatcher = http.call((Stream::new(io, Rc::clone(&connection)), Some(peer)));
        Guarded::new(dispatcher, connection)
    };
    match options.tls {
        None => {
            acceptor::serve_each(accepted, |io, peer, seat| serve(Io::plain(io), peer, seat)).await;
        }
        Some(tls) => {
            let handlers = endpoints;
            let (idle, limits) = (options.allowances.idle, options.http2);
            let metrics = options.metrics;
            let http2 = Rc::new(Http2 { handlers, limits, idle, draining, metrics });
            let (tls, serve) = (Rc::new(tls), Rc::new(serve));
            acceptor::serve_each(accepted, |io, peer, seat| {
                let (tls, serve, http2) = (Rc::clone(&tls), Rc::clone(&serve), Rc::clone(&http2));
                async move {
                    match tls.shake(io, &seat).await {
                        Some(io) if io.is_http2() => http2.serve(io, peer, seat).await,
                        Some(io) => serve(io, peer, seat).await,
                        None => {}
                    }
                }
            })
            .await;
        }
    }
}
