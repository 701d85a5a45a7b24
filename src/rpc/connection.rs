//! A connection that serves nothing yet: greeting, metadata, heartbeats; on the listener's thread.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::access::{Gate, Origin, Security};
use super::registration::{Introduction, Refused, end_of};
use crate::metrics::RpcEnd;
use clipper_clock as clock;
use clipper_domain::ModelId;
use clipper_domain::signature::SIGNATURE_MAX_BYTES;
use clipper_rpc::codec::{self, AnswerLimits, DecodeError, Extensions, FromContainer, NoticeLevel};
use clipper_rpc::unasked::UnaskedMeter;
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{
    COMMAND_MAX_BYTES, Decoder, Handshake, Incoming, Limits, LimitsOf, Step, ZmtpError,
};

/// Message limits until a container has registered: its metadata is a few short frames, and the
/// signature of one for tensors.
const HANDSHAKE_LIMITS: Limits = Limits {
    frames_max: 16,
    frame_max_bytes: SIGNATURE_MAX_BYTES,
    message_max_bytes: SIGNATURE_MAX_BYTES + (16 << 10),
    of: LimitsOf::Handshake,
};
/// Nothing has been asked, so nothing can be answered.
const NO_ANSWER: AnswerLimits =
    AnswerLimits { outputs_max: 0, error_max_bytes: None, joined: false, computed: false };
/// A peer that says nothing for this long after the handshake is asked for its metadata: it may
/// have reconnected to a restarted server and would otherwise stay silent until its own idle
/// heartbeat. Before the handshake, the server waits as long to see whether it is an HTTP client.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// For a last word to a connection that is closed then.
const LAST_WORD: Duration = Duration::from_millis(100);

fn end_of_decode(error: &DecodeError) -> RpcEnd {
    match error {
        DecodeError::RpcVersion { .. } => RpcEnd::RpcVersion,
        DecodeError::Name { .. } => RpcEnd::Name,
        DecodeError::InputType(_) | DecodeError::Signature(_) => RpcEnd::InputType,
        _ => RpcEnd::Protocol,
    }
}

fn closed(error: impl std::fmt::Display) -> Refused {
    Refused::new(RpcEnd::Closed, error)
}

fn broken(error: &ZmtpError) -> Refused {
    let refused = Refused::new(end_of(error), error);
    let cause = if error.is_http() { "rpc_http" } else { refused.cause };
    Refused { cause, ..refused }
}

#[derive(Debug)]
pub(super) struct ContainerConnection {
    stream: TcpStream,
    /// What has been read and not looked at.
    buffer: BytesMut,
    decoder: Decoder,
    unasked: UnaskedMeter,
    security: Security,
}

impl ContainerConnection {
    /// A connection of which `unread` has been read already.
    pub(super) fn new(
        stream: TcpStream,
        unread: BytesMut,
        unasked: UnaskedMeter,
        security: Security,
    ) -> Self {
        let decoder = Decoder::new(HANDSHAKE_LIMITS).with_session(security.session.as_ref());
        Self { stream, buffer: unread, decoder, unasked, security }
    }

    /// The connection itself and what was read too much.
    pub(super) fn into_parts(self) -> io::Result<(std::net::TcpStream, BytesMut, Security)> {
        Ok((self.stream.into_std()?, self.buffer, self.security))
    }

    /// What goes out, encrypted if the connection is.
    fn out(&self) -> WireChunks {
        WireChunks::of(self.security.session.as_ref())
    }

    /// Greeting, READY, and messages until one says what the peer serves. `help` is for those who
    /// speak HTTP, `gate` what is asked of this one.
    pub(super) async fn introduction(
        &mut self,
        help: &str,
        (gate, peer): (&Gate, IpAddr),
    ) -> Result<Introduction, Refused> {
        let identity = self.shake_hands(help, (gate, peer)).await?;
        let mut asked = false;
        let mut answer = self.out();
        loop {
            match self.next_message(&mut answer)? {
                Some(FromContainer::NewContainer {
                    name,
                    version,
                    input_type,
                    extensions,
                    signature,
                }) => {
                    let model = ModelId::new(name, version);
                    if let Err(refused) = self.may_serve(&model) {
                        if extensions.has(Extensions::NOTICES) {
                            self.notice(NoticeLevel::Error, &refused.text).await;
                        }
                        return Err(refused);
                    }
                    return Ok(Introduction { identity, model, input_type, extensions, signature });
                }
                Some(FromContainer::Heartbeat) => {
                    codec::encode_heartbeat(&mut answer, true);
                    asked = true;
                }
                Some(
                    FromContainer::Answer { .. }
                    | FromContainer::Build(_)
                    | FromContainer::Stream(_),
                ) => {
                    let text = "it sent an answer before it said what it serves";
                    return Err(Refused::new(RpcEnd::Protocol, text));
                }
                None if asked => self.read().await?,
                None => {
                    if let Ok(read) = tokio::time::timeout(ASK_AFTER, self.read()).await {
                        read?;
                    } else {
                        codec::encode_heartbeat(&mut answer, true);
                        asked = true;
                    }
                }
            }
            self.write_all(&mut answer).await?;
        }
    }

    /// Whether what it has come with is good for this model now.
    pub(super) fn may_serve(&self, model: &ModelId) -> Result<(), Refused> {
        let Some(admission) = &self.security.admission else { return Ok(()) };
        admission.check(model).map_err(|why| Refused::new(RpcEnd::Denied, why))
    }

    async fn shake_hands(
        &mut self,
        help: &str,
        (gate, peer_address): (&Gate, IpAddr),
    ) -> Result<Bytes, Refused> {
        // libzmq and its like send their first bytes at once. The greeting need not wait for them,
        // but an HTTP client would take it for an answer.
        if let Ok(read) = tokio::time::timeout(ASK_AFTER, self.read()).await {
            read?;
        }
        let local = self.stream.local_addr().ok().map(|local| local.ip());
        let mut handshake = Handshake::offering(gate.offer(Origin { peer: peer_address, local }));
        let mut greeting = Some(handshake.opening());
        loop {
            match handshake.advance(&mut self.buffer) {
                Ok(step) => {
                    if let Some(greeting) = greeting.take() {
                        self.write(&greeting).await?;
                    }
                    match step {
                        Step::More => self.read().await?,
                        Step::Send(bytes) => self.write(&bytes).await?,
                        Step::Decide(credentials) => match gate.admit(&credentials) {
                            Ok(admission) => self.security.admission = admission,
                            Err(why) => {
                                self.write(&handshake.refuse()).await?;
                                return Err(Refused::new(RpcEnd::Denied, why));
                            }
                        },
                        Step::Done(peer) => {
                            let session = handshake.session();
                            self.decoder = Decoder::new(HANDSHAKE_LIMITS).with_session(session);
                            self.security.session = session.cloned();
                            if self.security.admission.is_none() {
                                self.security.admission = gate.unasked(peer_address);
                            }
                            return Ok(peer.identity);
                        }
                    }
                }
                Err(error) => {
                    if greeting.is_some() && error.is_http() {
                        self.answer_http(help).await;
                    }
                    return Err(broken(&error));
                }
            }
        }
    }

    /// Tells an HTTP client where it should have gone.
    async fn answer_http(&mut self, help: &str) {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{help}",
            help.len()
        );
        let said = async {
            self.write(answer.as_bytes()).await?;
            // What is unread at the end would take the answer away from the client.
            self.stream.shutdown().await.map_err(closed)?;
            loop {
                self.buffer.clear();
                self.read().await?;
            }
        };
        let _: Result<Result<(), Refused>, _> = tokio::time::timeout(LAST_WORD, said).await;
    }

    /// Answers what has been read, in a connection that waits; whether it is between two messages.
    pub(super) async fn answer_all(&mut self, silence: Duration) -> Result<bool, Refused> {
        let mut answer = self.out();
        while let Some(message) = self.next_message(&mut answer)? {
            match message {
                FromContainer::Heartbeat => codec::encode_heartbeat(&mut answer, false),
                // It asks again after a heartbeat of ours crossed its first message.
                FromContainer::NewContainer { .. } => {}
                FromContainer::Answer { .. }
                | FromContainer::Build(_)
                | FromContainer::Stream(_) => {
                    let text = "it sent an answer although nothing was asked of it";
                    return Err(Refused::new(RpcEnd::Protocol, text));
                }
            }
        }
        match tokio::time::timeout(silence, self.write_all(&mut answer)).await {
            Ok(written) => written?,
            Err(_) => return Err(Refused::new(RpcEnd::Stuck, "it does not read")),
        }
        Ok(self.decoder.is_idle() && self.buffer.is_empty())
    }

    /// Says something to a container that understands notices.
    pub(super) async fn notice(&mut self, level: NoticeLevel, text: &str) {
        let mut out = self.out();
        codec::encode_notice(&mut out, level, text);
        let said = tokio::time::timeout(LAST_WORD, self.write_all(&mut out));
        if !matches!(said.await, Ok(Ok(()))) {
            tracing::debug!("a container could not be told: {text}");
        }
    }

    /// The next message in the buffer; nothing when more bytes are needed. Answers to PINGs are
    /// left in `answer`.
    fn next_message(&mut self, answer: &mut WireChunks) -> Result<Option<FromContainer>, Refused> {
        loop {
            let Some(incoming) = self.decoder.next(&mut self.buffer).map_err(|e| broken(&e))?
            else {
                return Ok(None);
            };
            let bytes = match &incoming {
                Incoming::Message(frames) => frames.iter().map(Bytes::len).sum(),
                Incoming::Ping { context } => context.len(),
                Incoming::Ignored => COMMAND_MAX_BYTES,
            };
            let counted = self.unasked.count(bytes, clock::now());
            counted.map_err(|flood| Refused::new(RpcEnd::Flood, flood))?;
            match incoming {
                Incoming::Message(frames) => {
                    return codec::decode_from_container(frames, NO_ANSWER)
                        .map(Some)
                        .map_err(|error| Refused::new(end_of_decode(&error), error));
                }
                Incoming::Ping { context } => answer.push_pong(&context),
                Incoming::Ignored => {}
            }
        }
    }

    async fn write_all(&mut self, answer: &mut WireChunks) -> Result<(), Refused> {
        while !answer.is_empty() {
            self.stream.write_buf(answer).await.map_err(closed)?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.stream.write_all(bytes).await.map_err(closed)
    }

    pub(super) async fn read(&mut self) -> Result<(), Refused> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(closed("the peer closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(closed(error)),
        }
    }
}
