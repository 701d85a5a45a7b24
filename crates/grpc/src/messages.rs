//! The messages of a call as they come.

use bytes::Bytes;
use h2::RecvStream;

use crate::frame::{Frames, Part, TooLong};
use crate::limits::Limits;

/// Why no more can be read of a call.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// With the setting that says how long one may be.
    #[error("{0}")]
    TooLong(TooLong, &'static str),
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
    max_setting: &'static str,
    pending: Bytes,
}

impl Messages {
    pub(crate) fn new(body: RecvStream, limits: &Limits) -> Self {
        let Limits { message_max_bytes, message_max_setting: max_setting, .. } = *limits;
        Self { body, frames: Frames::new(message_max_bytes), max_setting, pending: Bytes::new() }
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
            let part = self.frames.next(&mut self.pending);
            if let Some(part) = part.map_err(|long| Broken::TooLong(long, self.max_setting))? {
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
