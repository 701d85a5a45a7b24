//! Boxes of the messages in one direction. Their nonces differ in the last 8 bytes only, so that
//! what `XSalsa20` makes of the first 16 is made once.

use std::fmt;

use cryptoxide::poly1305::Poly1305;
use curve25519_dalek::MontgomeryPoint;
use salsa20::cipher::consts::U10;
use salsa20::cipher::{KeyIvInit as _, StreamCipherCore as _};
use salsa20::{SalsaCore, hsalsa};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::boxes::TAG_BYTES;
use super::keys::{KEY_BYTES, Key, SecretKey};

/// What a nonce of messages starts with.
pub(super) const PREFIX_BYTES: usize = 16;
pub(super) const NUMBER_BYTES: usize = 8;

/// Bytes that the cipher makes at a time; the first half of the first block is the key of the tag.
const BLOCK_BYTES: usize = 64;

type Salsa20 = SalsaCore<U10>;
type Block = salsa20::cipher::Block<Salsa20>;

/// What two keys have in common.
pub(super) struct SharedKey(Zeroizing<[u8; KEY_BYTES]>);

impl SharedKey {
    /// As `crypto_box` makes it.
    pub(super) fn between(public: &Key, secret: &SecretKey) -> Self {
        let point = Zeroizing::new((secret.0.to_scalar() * MontgomeryPoint(public.0)).0);
        let key = hsalsa::<U10>((&*point).into(), &[0; PREFIX_BYTES].into());
        Self(Zeroizing::new(key.into()))
    }
}

/// Makes and opens the boxes of one direction.
pub(super) struct Direction(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direction")
    }
}

impl Direction {
    pub(super) fn new(shared: &SharedKey, prefix: &[u8; PREFIX_BYTES]) -> Self {
        let key = hsalsa::<U10>((&*shared.0).into(), prefix.into());
        Self(Zeroizing::new(key.into()))
    }

    /// Seals what stands behind the room for the tag.
    pub(super) fn seal(&self, number: [u8; NUMBER_BYTES], room: &mut [u8]) {
        let Some((tag, text)) = room.split_at_mut_checked(TAG_BYTES) else { return };
        let opened = OpenedBox::new(&self.0, number);
        let poly1305 = opened.poly1305();
        opened.apply(text);
        tag.copy_from_slice(&tag_of(poly1305, text));
    }

    /// Opens a box in place; the text is behind its tag. `None`: it was made with other keys, or
    /// changed.
    pub(super) fn open<'b>(
        &self,
        number: [u8; NUMBER_BYTES],
        sealed: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        let (tag, text) = sealed.split_at_mut_checked(TAG_BYTES)?;
        let opened = OpenedBox::new(&self.0, number);
        let expected = tag_of(opened.poly1305(), text);
        if !bool::from(expected.as_slice().ct_eq(tag)) {
            return None;
        }
        opened.apply(text);
        Some(text)
    }
}

/// The stream of one box.
struct OpenedBox {
    salsa20: Salsa20,
    first: Block,
}

impl OpenedBox {
    fn new(key: &[u8; KEY_BYTES], number: [u8; NUMBER_BYTES]) -> Self {
        let mut salsa20 = Salsa20::new(key.into(), &number.into());
        let mut first = Block::default();
        salsa20.write_keystream_block(&mut first);
        Self { salsa20, first }
    }

    /// Its key is good for this one box.
    fn poly1305(&self) -> Poly1305 {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.first.split_at(KEY_BYTES).0);
        Poly1305::new(&key)
    }

    fn apply(mut self, text: &mut [u8]) {
        let (_, rest) = self.first.split_at(KEY_BYTES);
        let (head, tail) = text.split_at_mut(text.len().min(rest.len()));
        xor(head, rest);
        for piece in tail.chunks_mut(BLOCK_BYTES) {
            let mut block = Block::default();
            self.salsa20.write_keystream_block(&mut block);
            xor(piece, &block);
        }
    }
}

fn tag_of(mut poly1305: Poly1305, text: &[u8]) -> [u8; TAG_BYTES] {
    poly1305.update_mut(text);
    poly1305.finalize().0
}

fn xor(text: &mut [u8], stream: &[u8]) {
    for (byte, of_stream) in text.iter_mut().zip(stream) {
        *byte ^= of_stream;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::boxes;

    #[test]
    fn its_boxes_are_those_of_crypto_box() {
        let prefix = b"CurveZMQMESSAGES";
        let (one, other) = (SecretKey::from_random([1; 32]), SecretKey::from_random([2; 32]));
        let theirs = boxes::between(&other.public(), &one);
        let shared = SharedKey::between(&one.public(), &other);
        let direction = Direction::new(&shared, prefix);
        for len in (0..200_u64).chain([255, 256, 257, 1_000, 5_000]) {
            let number = (len + 1).to_be_bytes();
            let text: Vec<u8> = (0..=250).cycle().take(usize::try_from(len).unwrap()).collect();
            let room = [&[0; TAG_BYTES][..], &text].concat();
            let (mut ours, mut expected) = (room.clone(), room);
            direction.seal(number, &mut ours);
            let nonce = boxes::nonce(prefix, &number);
            boxes::seal_in_place(&theirs, &nonce, &mut expected);
            assert_eq!(ours, expected, "{len}");
            assert_eq!(direction.open(number, &mut expected), Some(&text[..]));
            for at in [0, TAG_BYTES - 1, ours.len() - 1] {
                let mut changed = ours.clone();
                changed[at] ^= 1;
                assert_eq!(direction.open(number, &mut changed), None, "{len} {at}");
            }
            let other = (len + 2).to_be_bytes();
            assert_eq!(direction.open(other, &mut ours), None, "another number");
        }
        assert_eq!(direction.open([0; 8], &mut [0; TAG_BYTES - 1]), None);
    }
}
