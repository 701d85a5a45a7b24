//! Compressed bodies, within bounds that hold while they grow.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

/// Bytes that are made before the next question whether there is room.
const PIECE_BYTES: usize = 64 << 10;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    /// What HTTP calls deflate: the zlib format.
    Deflate,
}

impl Encoding {
    /// Reads the value of `Content-Encoding`; `None` for one that is not known.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        Some(match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Self::Identity,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            _ => return None,
        })
    }
}

/// Why a body was not decompressed.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// It is not of its format, or ends early.
    #[error("the body is not of its Content-Encoding: {0}")]
    Broken(#[from] std::io::Error),
    /// It would be longer than a body may be.
    #[error("the body would be longer than {0} bytes")]
    TooLong(usize),
    /// There is no room for more in what all bodies may take together.
    #[error("there is no room for it")]
    NoRoom,
}

/// The body behind an encoding, at most `max_bytes` of it. `room_for` is asked before each piece
/// whether there is room for so many bytes more.
///
/// # Errors
/// See [`InflateError`].
pub fn inflate(
    body: &[u8],
    encoding: Encoding,
    max_bytes: usize,
    mut room_for: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, InflateError> {
    let mut decoder: Box<dyn Read + '_> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Encoding::Deflate => Box::new(ZlibDecoder::new(body)),
    };
    // In pieces: one that grows by being copied holds up to three times of what it needs.
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    loop {
        if !room_for(PIECE_BYTES) {
            return Err(InflateError::NoRoom);
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = decoder.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        bytes += read;
        if bytes > max_bytes {
            return Err(InflateError::TooLong(max_bytes));
        }
        if read == 0 {
            return Ok(joined(pieces, bytes));
        }
        pieces.push(piece);
    }
}

/// Each piece is given back before the next one is copied.
fn joined(pieces: Vec<Vec<u8>>, bytes: usize) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes);
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_formats_give_the_body() {
        let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for (encoding, packed) in
            [(Encoding::Gzip, gzip(&body)), (Encoding::Deflate, deflate(&body))]
        {
            assert_eq!(inflate(&packed, encoding, 1 << 20, |_| true).unwrap(), body);
            let cut = &packed[..packed.len() - 9];
            assert!(matches!(
                inflate(cut, encoding, 1 << 20, |_| true),
                Err(InflateError::Broken(_))
            ));
            let other = inflate(b"{\"inputs\": []}", encoding, 1 << 20, |_| true);
            assert!(matches!(other, Err(InflateError::Broken(_))));
        }
        assert_eq!(Encoding::parse(b" GZIP "), Some(Encoding::Gzip));
        assert_eq!(Encoding::parse(b"br"), None);
    }

    #[test]
    fn a_bomb_ends_at_the_bound_and_at_the_room() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let mut asked = 0;
        let error = inflate(&bomb, Encoding::Gzip, 1 << 20, |bytes| {
            asked += bytes;
            true
        });
        assert!(matches!(error, Err(InflateError::TooLong(_))));
        assert!(asked <= (1 << 20) + 2 * PIECE_BYTES, "{asked}");
        let mut room = 10 * PIECE_BYTES;
        let error = inflate(&bomb, Encoding::Gzip, 32 << 20, |bytes| {
            room = room.saturating_sub(bytes);
            room > 0
        });
        assert!(matches!(error, Err(InflateError::NoRoom)));
    }
}
