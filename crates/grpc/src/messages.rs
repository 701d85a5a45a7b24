//! The messages of a call as they come.

use bytes::Bytes;
use h2::RecvStream;

use crate::frame::{Frames, Part, TooLong};

/// Why no more can be read of a call.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The client's side ended within a message.
    #[error("the call ends within a message")]
    Cut,
    /// The client has given the call up, or the connection failed.
    #[error("the client has gone")]
    Gone,
}

/// What the client sends.
#[derive(Debug)]
pub struct Messages {
    body: RecvStream,
    frames: Frames,
    pending: Bytes,
}

impl Messages {
    pub(crate) fn new(body: RecvStream, max_bytes: usize) -> Self {
        Self { body, frames: Frames::new(max_bytes), pending: Bytes::new() }
    }

    /// The next part of a message; `None` when the client has sent all.
    ///
    /// What has been handed over no longer counts against the client's window: whoever reads keeps
    /// the account of it.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn next(&mut self) -> Result<Option<Part>, Broken> {
        loop {
            if let Some(part) = self.frames.next(&mut self.pending)? {
                return Ok(Some(part));
            }
            match self.body.data().await {
                Some(Ok(data)) => {
                    // Fails only once the stream has ended.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.pending = data;
                }
                Some(Err(_)) => return Err(Broken::Gone),
                None if self.frames.is_between() => return Ok(None),
                None => return Err(Broken::Cut),
            }
        }
    }
}
