//! Boxes as they travel: the tag, and behind it the sealed text.

use bytes::{BufMut as _, BytesMut};
use crypto_box::aead::AeadInPlace as _;
use crypto_box::{PublicKey, SalsaBox};

use super::keys::{Key, SecretKey};

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 16;

/// Bytes of a nonce; what differs from box to box are the last 8 or 16.
const NONCE_BYTES: usize = 24;

/// A nonce: what it is for, and what has not been there before.
pub(super) fn nonce(prefix: &[u8], unique: &[u8]) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    for (to, from) in nonce.iter_mut().zip(prefix.iter().chain(unique)) {
        *to = *from;
    }
    nonce
}

/// What these two keys make.
pub(super) fn between(public: &Key, secret: &SecretKey) -> SalsaBox {
    SalsaBox::new(&PublicKey::from_bytes(public.0), &secret.0)
}

/// Puts a box of `text`, which may be in parts.
pub(super) fn seal(key: &SalsaBox, nonce: &[u8; NONCE_BYTES], text: &[&[u8]], out: &mut BytesMut) {
    let start = out.len();
    out.put_bytes(0, TAG_BYTES);
    for part in text {
        out.put_slice(part);
    }
    seal_in_place(key, nonce, out.get_mut(start..).unwrap_or_default());
}

/// Seals what stands behind the room for the tag.
pub(super) fn seal_in_place(key: &SalsaBox, nonce: &[u8; NONCE_BYTES], room: &mut [u8]) {
    let Some((tag, text)) = room.split_at_mut_checked(TAG_BYTES) else { return };
    // Fails for none but texts of 2^64 blocks.
    if let Ok(made) = key.encrypt_in_place_detached(nonce.into(), &[], text) {
        tag.copy_from_slice(&made);
    }
}

/// Opens a box in place; the text is behind its tag. `None`: it was made with other keys, or
/// changed.
pub(super) fn open<'b>(
    key: &SalsaBox,
    nonce: &[u8; NONCE_BYTES],
    sealed: &'b mut [u8],
) -> Option<&'b [u8]> {
    let (tag, text) = sealed.split_at_mut_checked(TAG_BYTES)?;
    let tag: [u8; TAG_BYTES] = (*tag).try_into().ok()?;
    key.decrypt_in_place_detached(nonce.into(), &[], text, &tag.into()).ok()?;
    Some(text)
}
