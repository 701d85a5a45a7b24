//! Why a connection of a container ends.

use std::time::Duration;

use clipper_rpc::codec::DecodeError;
use clipper_rpc::zmtp::ZmtpError;
use zeromq::ZmqError;

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("cannot connect: {0}")]
    Connect(ZmqError),
    #[error("the connection broke: {0}")]
    Socket(#[from] ZmqError),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Zmtp(ZmtpError),
    #[error("the server does not answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the server refuses this container's key: its log says why")]
    Refused,
    #[error("the server closed the connection")]
    Disconnected,
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server sent a broken message: {0}")]
    Message(#[from] DecodeError),
}
