//! Bytes on their way out: ZMTP frames, small ones copied together, large ones by reference.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::curve::{OVERHEAD_BYTES, Sealer, Session};

/// Frame bodies up to this many bytes are copied: cheaper than one more piece in a vectored write.
pub const INLINE_MAX_BYTES: usize = 4096;

/// The running buffer is closed and queued as a chunk when it holds this many bytes, so that a
/// burst does not leave a large buffer behind for the rest of the connection.
const TAIL_MAX_BYTES: usize = 64 << 10;

pub(super) const FLAG_MORE: u8 = 0b001;
pub(super) const FLAG_LONG: u8 = 0b010;
pub(super) const FLAG_COMMAND: u8 = 0b100;

/// A queue of encoded frames. Read it through [`Buf`]: `write_buf` of tokio then writes all its
/// pieces with one vectored system call.
///
/// It has no limit of its own: its owner compares [`Self::queued_bytes`] with the configured
/// write queue before it adds a message.
#[derive(Debug, Default)]
pub struct WireChunks {
    /// Closed pieces, oldest first.
    chunks: VecDeque<Bytes>,
    /// Bytes in `chunks`.
    chunks_bytes: usize,
    /// The running buffer behind the last closed piece.
    tail: BytesMut,
    /// Of an encrypted connection.
    sealer: Option<Arc<Sealer>>,
}

impl WireChunks {
    /// An empty queue; it allocates nothing until the first frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a connection that may be encrypted.
    #[must_use]
    pub fn of(session: Option<&Session>) -> Self {
        let sealer = session.map(|session| Arc::clone(&session.sealer));
        Self { sealer, ..Self::default() }
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.chunks_bytes + self.tail.len()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued_bytes() == 0
    }

    /// Adds one frame by copying `body`. `more`: further frames of the message follow.
    pub fn copy_frame(&mut self, body: &[u8], more: bool) {
        if self.sealer.is_some() {
            return self.seal(more, false, body.len(), |out| out.put_slice(body));
        }
        self.head(if more { FLAG_MORE } else { 0 }, body.len(), body.len());
        self.tail.put_slice(body);
        self.close_full_tail();
    }

    /// Adds one frame; a body over [`INLINE_MAX_BYTES`] is kept by reference.
    pub fn push_frame(&mut self, body: Bytes, more: bool) {
        if body.len() <= INLINE_MAX_BYTES || self.sealer.is_some() {
            return self.copy_frame(&body, more);
        }
        self.head(if more { FLAG_MORE } else { 0 }, body.len(), 0);
        self.close_tail();
        self.chunks_bytes += body.len();
        self.chunks.push_back(body);
    }

    /// Adds one frame whose `len` bytes are written by `fill`, without a buffer in between.
    ///
    /// `fill` must put exactly `len` bytes, or the peer will read what follows as garbage.
    pub fn fill_frame(&mut self, len: usize, more: bool, fill: impl FnOnce(&mut BytesMut)) {
        if self.sealer.is_some() {
            return self.seal(more, false, len, fill);
        }
        self.head(if more { FLAG_MORE } else { 0 }, len, len);
        let before = self.tail.len();
        fill(&mut self.tail);
        debug_assert_eq!(self.tail.len() - before, len, "the length was announced");
        self.close_full_tail();
    }

    /// Adds one frame of `len` bytes that is made of parts of other memory, large ones by
    /// reference.
    ///
    /// `parts` must be `len` bytes together, or the peer will read what follows as garbage.
    pub fn join_frame<'p>(
        &mut self,
        len: usize,
        more: bool,
        parts: impl Iterator<Item = (&'p Arc<[u8]>, Range<usize>)>,
    ) {
        if self.sealer.is_some() {
            return self.seal(more, false, len, |out| {
                for (memory, range) in parts {
                    out.put_slice(memory.get(range).unwrap_or_default());
                }
            });
        }
        self.head(if more { FLAG_MORE } else { 0 }, len, len.min(INLINE_MAX_BYTES));
        let mut put = 0;
        for (memory, range) in parts {
            let bytes = memory.get(range.clone()).unwrap_or_default();
            put += bytes.len();
            if bytes.len() <= INLINE_MAX_BYTES {
                self.tail.put_slice(bytes);
                self.close_full_tail();
            } else {
                self.close_tail();
                self.chunks_bytes += bytes.len();
                self.chunks.push_back(Bytes::from_owner(Arc::clone(memory)).slice(range));
            }
        }
        debug_assert_eq!(put, len, "the length was announced");
    }

    /// Adds a whole message.
    pub fn push_message(&mut self, frames: &[Bytes]) {
        for (index, frame) in frames.iter().enumerate() {
            self.push_frame(frame.clone(), index + 1 < frames.len());
        }
    }

    /// Adds a PONG command: the answer to a PING with the same `context`.
    pub fn push_pong(&mut self, context: &[u8]) {
        const NAME: &[u8] = b"\x04PONG";
        let len = NAME.len() + context.len();
        if self.sealer.is_some() {
            return self.seal(false, true, len, |out| {
                out.put_slice(NAME);
                out.put_slice(context);
            });
        }
        self.head(FLAG_COMMAND, len, len);
        self.tail.put_slice(NAME);
        self.tail.put_slice(context);
        self.close_full_tail();
    }

    /// Adds a frame in its box, whose flags are inside. What is outside looks like a message of one
    /// frame, as libzmq writes it.
    fn seal(&mut self, more: bool, command: bool, len: usize, fill: impl FnOnce(&mut BytesMut)) {
        let Some(sealer) = self.sealer.clone() else { return };
        let whole = len + OVERHEAD_BYTES;
        self.head(0, whole, whole);
        sealer.seal((more, command), len, fill, &mut self.tail);
        self.close_full_tail();
    }

    /// Writes a frame's flags and length; makes room for `inline` bytes of body behind them.
    fn head(&mut self, flags: u8, len: usize, inline: usize) {
        self.tail.reserve(9 + inline);
        if let Ok(short) = u8::try_from(len) {
            self.tail.put_u8(flags);
            self.tail.put_u8(short);
        } else {
            self.tail.put_u8(flags | FLAG_LONG);
            self.tail.put_u64(len as u64);
        }
    }

    fn close_full_tail(&mut self) {
        if self.tail.len() >= TAIL_MAX_BYTES {
            self.close_tail();
        }
    }

    fn close_tail(&mut self) {
        let chunk = self.tail.split().freeze();
        self.chunks_bytes += chunk.len();
        self.chunks.push_back(chunk);
    }
}

impl Buf for WireChunks {
    fn remaining(&self) -> usize {
        self.queued_bytes()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&self.tail[..], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let pieces = self.chunks.iter().map(|chunk| &chunk[..]).chain(tail);
        let mut used = 0;
        for (slot, piece) in out.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.chunks.front_mut() {
            let step = written.min(front.len());
            front.advance(step);
            self.chunks_bytes -= step;
            written -= step;
            if !front.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_bytes_that_libzmq_writes() {
        let mut out = WireChunks::new();
        out.push_message(&[Bytes::new(), Bytes::from_static(&[2, 0, 0, 0])]);
        assert_eq!(&out.copy_to_bytes(out.remaining())[..], b"\x01\x00\x00\x04\x02\x00\x00\x00");
        out.copy_frame(&[b'x'; 300], false);
        assert_eq!(&out.chunk()[..10], b"\x02\x00\x00\x00\x00\x00\x00\x01\x2cx");
        let mut out = WireChunks::new();
        out.push_pong(b"ctx");
        assert_eq!(out.chunk(), b"\x04\x08\x04PONGctx");
    }

    #[test]
    fn large_frames_are_queued_by_reference_and_order_is_kept() {
        let large = Bytes::from(vec![7; INLINE_MAX_BYTES + 1]);
        let mut out = WireChunks::new();
        out.copy_frame(b"a", true);
        out.push_frame(large.clone(), true);
        out.copy_frame(b"b", false);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(out.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        let total = 3 + 9 + large.len() + 3;
        assert_eq!(out.queued_bytes(), total);
        let mut seen = Vec::new();
        while out.has_remaining() {
            let step = out.chunk().len().min(1000);
            seen.extend_from_slice(&out.chunk()[..step]);
            out.advance(step);
        }
        assert_eq!(seen.len(), total);
        assert_eq!(&seen[total - 3..], b"\x00\x01b");
        assert!(out.is_empty());
    }

    #[test]
    fn a_burst_of_small_frames_becomes_several_chunks() {
        let mut out = WireChunks::new();
        for _ in 0..100 {
            out.copy_frame(&[1; 4000], false);
        }
        assert!(out.chunks.len() >= 5);
        assert!(out.tail.capacity() <= 4 * TAIL_MAX_BYTES);
        out.advance(out.remaining());
        assert!(out.is_empty());
    }
}
