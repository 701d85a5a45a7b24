//! A container's connection: by the `zeromq` crate without a key, by our own codec with one.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeromq::prelude::*;
use zeromq::{DealerSocket, SocketEvent, SocketOptions, ZmqMessage};

use super::address::ServerAddress;
use super::session_error::SessionError;
use clipper_rpc::client::{Handshake, Identity, Secret, Step};
use clipper_rpc::curve::{ClientHandshake, Key, SecretKey};
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{Decoder, Incoming, Limits, LimitsOf, ZmtpError};

/// What a server may send in one message: it is trusted, and a batch may be large.
const LIMITS: Limits = Limits {
    frames_max: 1 << 24,
    frame_max_bytes: 1 << 31,
    message_max_bytes: 1 << 32,
    of: LimitsOf::Answers,
};

/// By what a container is known to its server.
#[derive(Debug, Clone)]
pub enum ContainerKey {
    /// The name of a key and its secret; not encrypted.
    Secret(Secret),
    /// The server's public key, and the container's own secret one; encrypted.
    Curve { server: Key, own: SecretKey },
}

impl ContainerKey {
    fn identity(&self) -> Identity {
        match self {
            Self::Secret(secret) => Identity::Secret(secret.clone()),
            Self::Curve { server, own } => {
                let transient = SecretKey::from_random(rand::random());
                let own = own.clone();
                let handshake = ClientHandshake::new(*server, own, transient, rand::random());
                Identity::Curve(Box::new(handshake))
            }
        }
    }
}

/// What happens to a socket of the `zeromq` crate.
type Events = Pin<Box<dyn Stream<Item = SocketEvent> + Send>>;

/// An open connection.
pub(super) enum Link {
    Null { socket: Box<DealerSocket>, events: Events },
    Keyed(Box<Keyed>),
}

pub(super) struct Keyed {
    stream: TcpStream,
    buffer: BytesMut,
    decoder: Decoder,
    out: WireChunks,
}

impl Link {
    pub(super) async fn open(
        address: &ServerAddress,
        timeout: Duration,
        key: Option<&ContainerKey>,
    ) -> Result<Self, SessionError> {
        let Some(key) = key else {
            let mut options = SocketOptions::default();
            options.connect_timeout(timeout);
            let mut socket = DealerSocket::with_options(options);
            let events = Box::pin(socket.monitor());
            socket.connect(&address.to_string()).await.map_err(SessionError::Connect)?;
            return Ok(Self::Null { socket: Box::new(socket), events });
        };
        let opened = tokio::time::timeout(timeout, Keyed::open(address, key)).await;
        let opened = opened.map_err(|_| SessionError::NoAnswer(timeout))?;
        Ok(Self::Keyed(Box::new(opened?)))
    }

    /// The next message. May be dropped and called again.
    pub(super) async fn receive(&mut self) -> Result<Vec<Bytes>, SessionError> {
        match self {
            Self::Keyed(keyed) => keyed.receive().await,
            Self::Null { socket, events } => loop {
                tokio::select! {
                    message = socket.recv() => return Ok(message?.into_vec()),
                    // The crate's `recv` waits for ever on a closed connection; only the monitor
                    // tells.
                    Some(event) = events.next() => {
                        if matches!(event, SocketEvent::Disconnected(_)) {
                            return Err(SessionError::Disconnected);
                        }
                    }
                }
            },
        }
    }

    pub(super) async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), SessionError> {
        match self {
            Self::Keyed(keyed) => {
                keyed.out.push_message(&frames);
                keyed.flush().await
            }
            Self::Null { socket, .. } => {
                // No message of ours is empty, which is the only thing that this conversion
                // refuses.
                if let Ok(message) = ZmqMessage::try_from(frames) {
                    socket.send(message).await?;
                }
                Ok(())
            }
        }
    }
}

impl Keyed {
    async fn open(address: &ServerAddress, key: &ContainerKey) -> Result<Self, SessionError> {
        let stream = TcpStream::connect(address.host_and_port()).await?;
        stream.set_nodelay(true)?;
        let (buffer, decoder) = (BytesMut::with_capacity(8 << 10), Decoder::new(LIMITS));
        let mut keyed = Self { stream, buffer, decoder, out: WireChunks::new() };
        let mut handshake = Handshake::new(key.identity());
        keyed.stream.write_all(&handshake.greeting()).await?;
        loop {
            match handshake.advance(&mut keyed.buffer).map_err(refused)? {
                Step::More => keyed.read().await?,
                Step::Send(bytes) => keyed.stream.write_all(&bytes).await?,
                Step::Done(session) => {
                    keyed.decoder = keyed.decoder.with_session(session.as_ref());
                    keyed.out = WireChunks::of(session.as_ref());
                    return Ok(keyed);
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), SessionError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(SessionError::Disconnected),
            _ => Ok(()),
        }
    }

    async fn receive(&mut self) -> Result<Vec<Bytes>, SessionError> {
        loop {
            match self.decoder.next(&mut self.buffer).map_err(SessionError::Zmtp)? {
                Some(Incoming::Message(frames)) => return Ok(frames),
                Some(Incoming::Ping { context }) => self.out.push_pong(&context),
                Some(Incoming::Ignored) => {}
                None => {
                    self.flush().await?;
                    self.read().await?;
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        while !self.out.is_empty() {
            self.stream.write_buf(&mut self.out).await?;
        }
        Ok(())
    }
}

/// What an error in the handshake means to whoever has the key.
fn refused(error: ZmtpError) -> SessionError {
    match error {
        ZmtpError::Peer(_) => SessionError::Refused,
        other => SessionError::Zmtp(other),
    }
}
