//! How much of everything one connection may have.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls at the same time.
    pub streams: u32,
    /// Of one call, names and values together.
    pub headers_max_bytes: u32,
    /// One message, compressed or not.
    pub message_max_bytes: usize,
    /// The setting that this is the value of, for whoever is over it.
    pub message_max_setting: &'static str,
    /// What a client may send of one call before it has been read.
    pub stream_window_bytes: u32,
    /// The same of all its calls together.
    pub connection_window_bytes: u32,
    /// From accepting to the end of the client's preface.
    pub handshake: Duration,
    /// After so long the client is asked whether it is there, again and again.
    pub keep_alive: Duration,
    /// For its answer to that.
    pub keep_alive_timeout: Duration,
    /// For the client to take some of what has been written for it.
    pub write: Duration,
}
