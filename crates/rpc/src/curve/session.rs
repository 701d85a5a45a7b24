//! What both sides have agreed on: messages in boxes, numbered, so that none comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::boxes::TAG_BYTES;
use super::direction::{Direction, NUMBER_BYTES, PREFIX_BYTES, SharedKey};
use super::keys::{Key, SecretKey};
use crate::zmtp_error::ZmtpError;

/// The command that holds a message's frame.
const NAME: &[u8] = b"\x07MESSAGE";
/// Bytes around the body of a frame: name, number, tag, flags.
pub const OVERHEAD_BYTES: usize = NAME.len() + NUMBER_BYTES + TAG_BYTES + 1;

const FROM_SERVER: &[u8; PREFIX_BYTES] = b"CurveZMQMESSAGES";
const FROM_CLIENT: &[u8; PREFIX_BYTES] = b"CurveZMQMESSAGEC";

/// Flags inside a box.
const INNER_MORE: u8 = 0b01;
const INNER_COMMAND: u8 = 0b10;

/// An encrypted connection after its handshake, seen from one side.
#[derive(Debug, Clone)]
pub struct Session {
    pub sealer: Arc<Sealer>,
    pub opener: Arc<Opener>,
}

/// The numbers that both sides have come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Session {
    pub(super) fn of_server(client: &Key, own: &SecretKey, numbers: Numbers) -> Self {
        Self::new(&SharedKey::between(client, own), (FROM_SERVER, FROM_CLIENT), numbers)
    }

    pub(super) fn of_client(server: &Key, own: &SecretKey, numbers: Numbers) -> Self {
        Self::new(&SharedKey::between(server, own), (FROM_CLIENT, FROM_SERVER), numbers)
    }

    fn new(
        shared: &SharedKey,
        (ours, theirs): (&[u8; PREFIX_BYTES], &[u8; PREFIX_BYTES]),
        Numbers { sent, received }: Numbers,
    ) -> Self {
        let direction = |prefix| Arc::new(Direction::new(shared, prefix));
        let sealer = Sealer { boxes: direction(ours), last: AtomicU64::new(sent) };
        let opener = Opener { boxes: direction(theirs), last: AtomicU64::new(received) };
        Self { sealer: Arc::new(sealer), opener: Arc::new(opener) }
    }
}

#[cfg(test)]
impl Session {
    /// The same keys, with what has been received forgotten.
    pub(crate) fn again(&self) -> Self {
        let boxes = Arc::clone(&self.opener.boxes);
        let opener = Opener { boxes, last: AtomicU64::new(0) };
        Self { sealer: Arc::clone(&self.sealer), opener: Arc::new(opener) }
    }
}

/// Puts frames into boxes, in the order in which they are sent.
#[derive(Debug)]
pub struct Sealer {
    boxes: Arc<Direction>,
    last: AtomicU64,
}

impl Sealer {
    pub(super) fn next_number(&self) -> [u8; NUMBER_BYTES] {
        (self.last.fetch_add(1, Relaxed) + 1).to_be_bytes()
    }

    /// Appends the body of a frame, sealed; `len` bytes are written by `fill`.
    pub fn seal(
        &self,
        (more, command): (bool, bool),
        len: usize,
        fill: impl FnOnce(&mut BytesMut),
        out: &mut BytesMut,
    ) {
        let number = self.next_number();
        out.reserve(OVERHEAD_BYTES + len);
        out.put_slice(NAME);
        out.put_slice(&number);
        let start = out.len();
        out.put_bytes(0, TAG_BYTES);
        out.put_u8((u8::from(more) * INNER_MORE) | (u8::from(command) * INNER_COMMAND));
        fill(out);
        let room = out.get_mut(start..).unwrap_or_default();
        self.boxes.seal(number, room);
    }
}

/// Takes frames out of boxes.
#[derive(Debug)]
pub struct Opener {
    boxes: Arc<Direction>,
    last: AtomicU64,
}

/// What a box was marked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) more: bool,
    pub(crate) command: bool,
}

impl Opener {
    /// Opens a frame in place, so that its body is left.
    pub(crate) fn open(&self, frame: &mut BytesMut) -> Result<Marks, ZmtpError> {
        const MALFORMED: ZmtpError = ZmtpError::MalformedCommand("MESSAGE");
        let rest = frame.strip_prefix(NAME).ok_or(MALFORMED)?;
        let number = *rest.first_chunk::<NUMBER_BYTES>().ok_or(MALFORMED)?;
        let value = u64::from_be_bytes(number);
        if value <= self.last.load(Relaxed) {
            return Err(ZmtpError::Repeated);
        }
        frame.advance(NAME.len() + NUMBER_BYTES);
        let text = self.boxes.open(number, frame).ok_or(ZmtpError::Box("MESSAGE"))?;
        let flags = *text.first().ok_or(MALFORMED)?;
        let marks = Marks { more: flags & INNER_MORE != 0, command: flags & INNER_COMMAND != 0 };
        if flags & !(INNER_MORE | INNER_COMMAND) != 0 || (marks.more && marks.command) {
            return Err(ZmtpError::Flags(flags));
        }
        // Not before it has proved to be of the other side.
        self.last.store(value, Relaxed);
        frame.advance(TAG_BYTES + 1);
        Ok(marks)
    }
}
