//! Messages in their frames: a byte that says whether it is compressed, four for the length, and
//! so many bytes. Pure.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Of the frame, before the message.
pub const HEAD_BYTES: usize = 5;

/// A message that is longer than one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has {length} bytes, more than {max}")]
pub struct TooLong {
    pub length: usize,
    pub max: usize,
}

/// What a frame's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    No,
    /// By the encoding that the call's headers name.
    Yes,
    /// Neither 0 nor 1.
    Unknown(u8),
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A message of so many bytes begins.
    Begin { packed: Packed, length: usize },
    /// Some of it.
    Bytes(Bytes),
    /// All of it has come.
    End,
}

/// Cuts what comes into messages, whatever pieces it comes in. Keeps nothing of a message.
#[derive(Debug)]
pub struct Frames {
    max: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there; all of them while a message is under way.
    filled: usize,
    left: usize,
}

impl Frames {
    /// Of messages up to `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, head: [0; HEAD_BYTES], filled: 0, left: 0 }
    }

    /// Whether what has come so far ends between two messages.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.filled == 0
    }

    /// What stands at the start of `input`, which is taken from it; `None`: there is not enough.
    ///
    /// # Errors
    /// A message is too long, as its head says.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, TooLong> {
        if self.filled == HEAD_BYTES {
            if self.left == 0 {
                self.filled = 0;
                return Ok(Some(Part::End));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let piece = input.split_to(self.left.min(input.len()));
            self.left -= piece.len();
            return Ok(Some(Part::Bytes(piece)));
        }
        for (slot, byte) in self.head.iter_mut().skip(self.filled).zip(input.iter()) {
            *slot = *byte;
        }
        let taken = (HEAD_BYTES - self.filled).min(input.len());
        drop(input.split_to(taken));
        self.filled += taken;
        if self.filled < HEAD_BYTES {
            return Ok(None);
        }
        let [packed, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max {
            return Err(TooLong { length, max: self.max });
        }
        self.left = length;
        let packed = match packed {
            0 => Packed::No,
            1 => Packed::Yes,
            other => Packed::Unknown(other),
        };
        Ok(Some(Part::Begin { packed, length }))
    }
}

/// A message in its frame, not compressed.
#[must_use]
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + length);
    frame.put_u8(0);
    // Answers have a bound far below.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames, pieces: &[&[u8]]) -> Result<Vec<(usize, Vec<u8>)>, TooLong> {
        let (mut found, mut current) = (Vec::new(), None);
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(part) = frames.next(&mut input)? {
                match part {
                    Part::Begin { length, .. } => current = Some((length, Vec::new())),
                    Part::Bytes(bytes) => current.as_mut().unwrap().1.extend_from_slice(&bytes),
                    Part::End => found.push(current.take().unwrap()),
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_anything_is_kept() {
        let mut frames = Frames::new(10);
        let mut input = Bytes::from_static(b"\0\xff\xff\xff\xffx");
        let error = frames.next(&mut input).unwrap_err();
        assert_eq!(error, TooLong { length: 0xffff_ffff, max: 10 });
        let mut frames = Frames::new(10);
        let mut input = Bytes::from_static(b"\x07\0\0\0\x01x");
        let begin = Part::Begin { packed: Packed::Unknown(7), length: 1 };
        assert_eq!(frames.next(&mut input), Ok(Some(begin)));
    }

    proptest! {
        #[test]
        fn messages_are_the_same_whatever_pieces_they_come_in(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1_usize..50,
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                wire.push(0);
                wire.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
                wire.extend_from_slice(message);
            }
            let mut frames = Frames::new(100);
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            let found = all(&mut frames, &pieces).unwrap();
            prop_assert!(frames.is_between());
            prop_assert_eq!(found.len(), messages.len());
            for ((length, bytes), message) in found.iter().zip(&messages) {
                prop_assert_eq!(*length, message.len());
                prop_assert_eq!(bytes, message);
            }
        }
    }
}
