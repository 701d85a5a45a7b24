//! Accepts container connections on the RPC port and brings each to the point where it has said
//! what it serves; then hands it over.
//!
//! Nothing here is trusted (invariant C2): connections, unfinished handshakes and containers of
//! unknown models are counted and limited, a handshake has a deadline and small message limits,
//! accept errors back off instead of spinning, log lines are limited by cause and address.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::access::{Gate, Security};
use super::connection::ContainerConnection;
use super::flooders::FloodLimits;
use super::places::{Place, Places, WaitingLine};
use super::registration::{KnownModels, NotTaken, Refused, Registration, WhyNot};
use super::waiting::WaitingRoom;
use crate::logging::outsiders;
use crate::metrics::{Metrics, RpcEnd};
use clipper_clock::Backoff;
use clipper_config::RpcConfig;
use clipper_domain::printable::printable;
use clipper_rpc::codec::{Extensions, NoticeLevel};
use clipper_rpc::unasked::UnaskedBudget;

/// First and longest pause after a failed accept.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What the listener works with.
pub struct Parts<K> {
    pub config: RpcConfig,
    /// Where ends are counted.
    pub metrics: Arc<Metrics>,
    /// What may be sent unasked.
    pub unasked: UnaskedBudget,
    /// Which models there are.
    pub known: K,
    /// Said to those who speak HTTP.
    pub help: String,
    /// What is asked of containers.
    pub gate: Gate,
}

/// Accepts until dropped. `register` takes over a connection or says why not; it runs on this
/// thread.
pub async fn serve<K, R, F>(listener: TcpListener, parts: Parts<K>, register: R)
where
    K: KnownModels,
    R: Fn(Registration) -> F + Clone + 'static,
    F: Future<Output = Result<(), NotTaken>> + 'static,
{
    let Parts { config, metrics, unasked, known, help, gate } = parts;
    let flood = FloodLimits {
        connections_max: config.flood_reconnects_max,
        window: Duration::from_millis(config.flood_window_ms),
        addresses_max: config.flood_addresses_max,
    };
    let places = Arc::new(Places::new(flood));
    let waiting = WaitingRoom { line: WaitingLine::default(), known, config, unasked };
    let (handshakes, help) = (WaitingLine::default(), help.into());
    let reception = Reception { waiting, handshakes, help, gate, register };
    let mut backoff = Backoff::new(ACCEPT_BACKOFF.0, ACCEPT_BACKOFF.1);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The cause is ours and no address is to blame.
                if let Some(left_out) = outsiders::line("rpc_accept", [0, 0, 0, 0].into()) {
                    warn!(left_out, "cannot accept container connections for now: {error}");
                }
                tokio::time::sleep(backoff.next_pause()).await;
                continue;
            }
        };
        backoff.reset();
        if !places.admits(peer.ip()) {
            let max = flood.connections_max;
            let text = format!(
                "connections from there were cut for flooding, and it comes back more than {max} \
                 times in {:?} (rpc.flood_reconnects_max)",
                flood.window
            );
            ended(&metrics, peer, &Refused::new(RpcEnd::Flood, text));
            continue;
        }
        let (open, max) = (places.open(), reception.waiting.config.connections_max);
        // Those who serve nothing give way; those who serve do not.
        let is_full = open >= max;
        if is_full && !reception.waiting.line.end_oldest() && !reception.handshakes.end_oldest() {
            let text = format!("{open} are open (rpc.connections_max = {max})");
            ended(&metrics, peer, &Refused::new(RpcEnd::Limit, text));
            continue;
        }
        let place = Place::take(&places, &metrics, peer.ip());
        let (reception, metrics) = (reception.clone(), Arc::clone(&metrics));
        let places = Arc::clone(&places);
        actix::spawn(async move {
            if let Err(refused) = reception.receive(stream, peer, place).await {
                if refused.why == RpcEnd::Flood {
                    places.cut(peer.ip());
                }
                ended(&metrics, peer, &refused);
            }
        });
    }
}

/// Counts the end of a connection that was not handed over, and tells of it.
fn ended(metrics: &Metrics, peer: SocketAddr, refused: &Refused) {
    let Refused { why, text, cause } = refused;
    metrics.rpc_ended(*why);
    if *why == RpcEnd::Closed {
        debug!(%peer, "connection closed before it served a model: {text}");
    } else if let Some(left_out) = outsiders::line(cause, peer.ip()) {
        let text = printable(text);
        warn!(%peer, reason = ?why, left_out, "container refused: {text}");
    }
}

/// Receives the connections that were accepted.
#[derive(Clone)]
struct Reception<K, R> {
    waiting: WaitingRoom<K>,
    handshakes: WaitingLine,
    help: Arc<str>,
    gate: Gate,
    register: R,
}

impl<K, R, F> Reception<K, R>
where
    K: KnownModels,
    R: Fn(Registration) -> F,
    F: Future<Output = Result<(), NotTaken>>,
{
    /// From the first byte to a replica.
    async fn receive(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
    ) -> Result<(), Refused> {
        let max = self.waiting.config.pending_handshakes_max;
        let (turn, evicted) = self.handshakes.join(max);
        let mut registration = tokio::select! {
            introduced = self.introduce(stream, peer, place) => introduced?,
            _ = evicted => return Err(evicted_by_newer(max)),
        };
        drop(turn);
        loop {
            let Err(NotTaken { registration: back, why }) = (self.register)(registration).await
            else {
                return Ok(());
            };
            match (why, back) {
                (WhyNot::UnknownModel, Some(back)) => {
                    tell_waiting(&back);
                    registration = self.waiting.wait(*back).await?;
                }
                (WhyNot::UnknownModel, None) => {
                    return Err(Refused::new(RpcEnd::Shutdown, "its registration was lost"));
                }
                (WhyNot::Refused(refused), back) => {
                    if let Some(back) = back {
                        self.last_word(*back, &refused).await;
                    }
                    return Err(refused);
                }
            }
        }
    }

    async fn introduce(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
    ) -> Result<Registration, Refused> {
        let closed = |error: io::Error| Refused::new(RpcEnd::Closed, error);
        tune(&stream).map_err(closed)?;
        let unasked = self.waiting.unasked.meter();
        let (unread, security) = (BytesMut::with_capacity(1 << 10), Security::default());
        let mut connection = ContainerConnection::new(stream, unread, unasked, security);
        let deadline = Duration::from_millis(self.waiting.config.handshake_timeout_ms);
        let introduced = connection.introduction(&self.help, (&self.gate, peer.ip()));
        let introduction = tokio::time::timeout(deadline, introduced).await.map_err(|_| {
            let text = format!("it did not say what it serves within {deadline:?}");
            Refused::new(RpcEnd::HandshakeTimeout, text)
        })??;
        let (stream, unread, security) = connection.into_parts().map_err(closed)?;
        Ok(Registration { stream, unread, introduction, peer, security, place })
    }

    /// Tells a container that understands it why it is refused.
    async fn last_word(&self, registration: Registration, refused: &Refused) {
        let Registration { stream, unread, introduction, security, .. } = registration;
        if introduction.extensions.has(Extensions::NOTICES)
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            let unasked = self.waiting.unasked.meter();
            let mut connection = ContainerConnection::new(stream, unread, unasked, security);
            connection.notice(NoticeLevel::Error, &refused.text).await;
        }
    }
}

fn tell_waiting(registration: &Registration) {
    let (model, peer) = (&registration.introduction.model, registration.peer);
    if let Some(left_out) = outsiders::line("unknown_model", peer.ip()) {
        let model = model.to_string();
        let model = printable(&model);
        warn!(
            %peer, left_out,
            "a container of {model} waits: no such model version is registered; \
             it serves as soon as there is one"
        );
    }
}

fn evicted_by_newer(max: usize) -> Refused {
    let text = format!(
        "it had not said what it serves and gave way to a newer connection: \
         {max} are in handshake (rpc.pending_handshakes_max)"
    );
    Refused::new(RpcEnd::Limit, text)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
