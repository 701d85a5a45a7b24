//! Accepts connections and shares them among the workers.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{error, warn};

use super::canned;
use super::seats::{Seats, Taken};
use crate::logging::outsiders;
use crate::metrics::http::{ConnectionEnd, FrontendMetrics};

/// First and longest pause after a failed accept.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Connections accepted before others on the thread have their turn.
const IN_A_ROW: usize = 128;
/// Refused connections that are told so at the same time; further ones are just closed.
const REFUSALS_MAX: usize = 256;
/// How long a refused client may take to read that.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// A connection for a worker.
pub struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    seat: Taken,
    load: WorkerLoad,
}

/// How many connections a worker has; one more while this lives.
struct WorkerLoad(Arc<AtomicUsize>);

impl WorkerLoad {
    fn more(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(of))
    }
}

impl Drop for WorkerLoad {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The acceptor's end of a worker.
pub struct Worker {
    pub(super) connections: mpsc::Sender<Accepted>,
    pub(super) open: Arc<AtomicUsize>,
}

pub struct Acceptor {
    pub(super) workers: Vec<Worker>,
    pub(super) seats: Arc<Seats>,
    pub(super) metrics: Arc<FrontendMetrics>,
    pub(super) refusals: Arc<Semaphore>,
    pub(super) next: usize,
    /// The setting that limits its connections.
    pub(super) limit: &'static str,
}

impl Acceptor {
    pub(super) fn new(
        workers: Vec<Worker>,
        seats: Arc<Seats>,
        metrics: Arc<FrontendMetrics>,
        limit: &'static str,
    ) -> Self {
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { workers, seats, metrics, refusals, next: 0, limit }
    }

    /// Accepts until told to stop, and then whoever has come by then: a client that the kernel has
    /// already let in is answered.
    pub(super) async fn run(
        mut self,
        listener: TcpListener,
        mut stop: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (mut backoff, mut in_a_row) = (BACKOFF.0, 0);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => {
                    backoff = BACKOFF.0;
                    self.welcome(stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Such as too many open files: those who wait stay in the backlog.
                    warn!(%error, "an HTTP connection cannot be accepted");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
            in_a_row += 1;
            if in_a_row == IN_A_ROW {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
        // From here on the kernel lets almost nobody in any more.
        let listener = listener.into_std()?;
        SockRef::from(&listener).listen(0)?;
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.welcome(stream, peer);
            }
        }
        Ok(())
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Some((seat, made_room)) = self.seats.take(peer.ip()) else {
            return self.refuse(stream, peer);
        };
        if made_room && let Some(left_out) = outsiders::line("HTTP connections", peer.ip()) {
            let limit = self.limit;
            warn!(
                %peer, left_out,
                "{limit} is reached: the longest waiting connection gives way"
            );
        }
        // The one with fewest connections, in turn where several have.
        let workers = self.workers.len().max(1);
        self.next = (self.next + 1) % workers;
        let turn = (0..workers).map(|n| (self.next + n) % workers);
        let load = |at: &usize| {
            self.workers.get(*at).map_or(usize::MAX, |worker| worker.open.load(Ordering::Relaxed))
        };
        let Some(worker) = turn.min_by_key(load).and_then(|at| self.workers.get(at)) else {
            return;
        };
        let load = WorkerLoad::more(&worker.open);
        let accepted = Accepted { stream, peer, seat, load };
        if let Err(full) = worker.connections.try_send(accepted) {
            // It has so much to do that even those who give way have not ended.
            let Accepted { stream, seat, .. } = full.into_inner();
            drop(seat);
            self.refuse(stream, peer);
        }
    }

    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        self.metrics.ended(ConnectionEnd::Refused);
        if let Some(left_out) = outsiders::line("HTTP connections", peer.ip()) {
            let limit = self.limit;
            warn!(%peer, left_out, "refused: {limit}, and all are being answered");
        }
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let told = canned::whole(&canned::too_many_connections(self.limit));
        actix::spawn(async move {
            let _permit = permit;
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
            let _ = tokio::time::timeout(REFUSAL_TIME, tell_and_close(stream, &told)).await;
        });
    }
}

/// Serves the connections that one thread gets, until there are no more.
pub(crate) async fn serve_each<F: Future<Output = ()> + 'static>(
    mut accepted: mpsc::Receiver<Accepted>,
    mut serve: impl FnMut(tokio::net::TcpStream, SocketAddr, Taken) -> F,
) {
    while let Some(Accepted { stream, peer, seat, load }) = accepted.recv().await {
        let io = match tokio::net::TcpStream::from_std(stream) {
            Ok(io) => io,
            Err(error) => {
                error!(%error, "an accepted connection cannot be served");
                continue;
            }
        };
        let served = serve(io, peer, seat);
        actix::spawn(async move {
            let _load = load;
            served.await;
        });
    }
}

/// Whether the error concerns only the connection that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

/// Says why, and reads what the client sends until it has read that: a connection that is closed
/// with unread bytes is reset, and the answer with it.
pub(crate) async fn tell_and_close(
    mut stream: tokio::net::TcpStream,
    told: &[u8],
) -> io::Result<()> {
    stream.write_all(told).await?;
    stream.shutdown().await?;
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}
