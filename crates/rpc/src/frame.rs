//! Heads of frames.

use super::limits::COMMAND_MAX_BYTES;
use super::wire::{FLAG_COMMAND, FLAG_LONG, FLAG_MORE};
use super::zmtp_error::ZmtpError;

/// A frame's flags and length, as announced.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) command: bool,
    pub(super) more: bool,
    pub(super) len: u64,
}

impl FrameHead {
    /// Reads a head from the front of `bytes`; gives it with its own size, or nothing when it is
    /// not whole yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ZmtpError> {
        let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
        let command = flags & FLAG_COMMAND != 0;
        let more = flags & FLAG_MORE != 0;
        if flags & !(FLAG_COMMAND | FLAG_LONG | FLAG_MORE) != 0 || (command && more) {
            return Err(ZmtpError::Flags(flags));
        }
        let (len, head_bytes) = if flags & FLAG_LONG != 0 {
            let Some(len) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*len), 9)
        } else {
            let Some(&len) = rest.first() else { return Ok(None) };
            (u64::from(len), 2)
        };
        Ok(Some((Self { command, more, len }, head_bytes)))
    }

    pub(super) fn command_len(self) -> Result<usize, ZmtpError> {
        within(self.len, COMMAND_MAX_BYTES).ok_or(ZmtpError::CommandBytes(self.len))
    }
}

/// `len` as a `usize` when it is not over `max`.
pub(super) fn within(len: u64, max: usize) -> Option<usize> {
    usize::try_from(len).ok().filter(|len| *len <= max)
}
