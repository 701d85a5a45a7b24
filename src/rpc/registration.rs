//! What is known of a container when it has said what it serves, and why it may not be taken.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::access::Security;
use super::places::Place;
use crate::metrics::RpcEnd;
use clipper_domain::{InputType, ModelId, Signature};
use clipper_rpc::codec::Extensions;
use clipper_rpc::zmtp::{LimitsOf, ZmtpError};

/// A connection that has said what it serves.
#[derive(Debug)]
pub struct Registration {
    /// The connection, handshake done.
    pub stream: std::net::TcpStream,
    /// What was read beyond the new-container message.
    pub unread: BytesMut,
    /// What it says of itself.
    pub introduction: Introduction,
    pub peer: SocketAddr,
    /// What it has come with.
    pub security: Security,
    /// Its place among the open connections.
    pub place: Place,
}

/// What a container says of itself.
#[derive(Debug)]
pub struct Introduction {
    /// The routing identity it asked for; mostly empty.
    pub identity: Bytes,
    pub model: ModelId,
    /// What its inputs are made of.
    pub input_type: InputType,
    /// The extensions that it announces.
    pub extensions: Extensions,
    /// Of type tensors: what goes in and comes out.
    pub signature: Option<Arc<Signature>>,
}

/// Why a connection was not handed over.
#[derive(Debug)]
pub struct Refused {
    pub why: RpcEnd,
    pub text: String,
    /// What its log lines are limited by.
    pub cause: &'static str,
}

impl Refused {
    /// A refusal with its explanation.
    pub fn new(why: RpcEnd, text: impl fmt::Display) -> Self {
        Self { why, text: text.to_string(), cause: why.label() }
    }
}

/// A connection that was not handed over.
#[derive(Debug)]
pub struct NotTaken {
    /// The connection, where there is a last word to say to it.
    pub registration: Option<Box<Registration>>,
    pub why: WhyNot,
}

/// Why a container is not taken.
#[derive(Debug)]
pub enum WhyNot {
    /// Nobody knows its model yet.
    UnknownModel,
    /// It cannot be taken as it is.
    Refused(Refused),
}

impl NotTaken {
    /// Nobody is left to take it.
    pub fn lost(text: impl fmt::Display) -> Self {
        let why = WhyNot::Refused(Refused::new(RpcEnd::Shutdown, text));
        Self { registration: None, why }
    }
}

/// What is known of models where containers are registered.
pub trait KnownModels: Clone + 'static {
    /// Whether a container of this model would be taken now.
    fn is_known(&self, model: &ModelId) -> bool;

    /// Changes whenever a model becomes known.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Lists a container that waits, until what this gives is dropped.
    fn list(&self, introduction: &Introduction) -> Box<dyn Any>;
}

/// The metric label of a ZMTP error.
#[must_use]
pub fn end_of(error: &ZmtpError) -> RpcEnd {
    match error {
        ZmtpError::Io(_) => RpcEnd::Closed,
        ZmtpError::Unspoken { .. } | ZmtpError::Box(_) => RpcEnd::Denied,
        error => match error.over_limit() {
            Some((_, LimitsOf::Answers)) => RpcEnd::AnswerTooLarge,
            Some((_, LimitsOf::Unasked)) => RpcEnd::Flood,
            Some((_, LimitsOf::Handshake)) | None => RpcEnd::Zmtp,
        },
    }
}
