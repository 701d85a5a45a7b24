//! Compressed bodies, within bounds that hold while they grow.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

/// Bytes that are made before the next question whether there is room.
const PIECE_BYTES: usize = 64 << 10;

/// What a body in zstd may have its reader keep of what came before: 8 MiB, the most that RFC 9659
/// lets a client ask for.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    /// What HTTP calls deflate: the zlib format.
    Deflate,
    Zstd,
}

impl Encoding {
    /// Those that are read beside none at all, as a client is told.
    pub const NAMES: &'static str = "gzip, deflate, zstd";

    /// Reads the value of `Content-Encoding`; `None` for one that is not known.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        Some(match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Self::Identity,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

/// Why a body was not decompressed.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// It is not of its format, or ends early.
    #[error("the body is not of its encoding: {0}")]
    Broken(#[from] std::io::Error),
    /// It would be longer than a body may be.
    #[error("the body would be longer than {0} bytes")]
    TooLong(usize),
    /// There is no room for more in what all bodies may take together.
    #[error("there is no room for it")]
    NoRoom,
    /// Whoever has sent it may not have so much.
    #[error("it is more than who has sent it may have")]
    Unpaid,
}

/// The body behind an encoding, at most `max_bytes` of it. `room_for` is asked before each piece
/// whether there is room for so many bytes more; `pays_for` after it whether whoever has sent the
/// body may have so many in all, whatever comes of them: also of a body that turns out broken, or
/// too long.
///
/// # Errors
/// See [`InflateError`].
pub fn inflate(
    body: &[u8],
    encoding: Encoding,
    max_bytes: usize,
    mut room_for: impl FnMut(usize) -> bool,
    mut pays_for: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, InflateError> {
    let mut decoder: Box<dyn Read + '_> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Encoding::Deflate => Box::new(ZlibDecoder::new(body)),
        // To zstd nothing is the end of no frame.
        Encoding::Zstd if body.is_empty() => {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    // In pieces: one that grows by being copied holds up to three times of what it needs.
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    loop {
        if !room_for(PIECE_BYTES) {
            return Err(InflateError::NoRoom);
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = decoder.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        // Where it fails, the piece has what came before.
        bytes += piece.len();
        if !pays_for(bytes.min(max_bytes)) {
            return Err(InflateError::Unpaid);
        }
        if bytes > max_bytes {
            return Err(InflateError::TooLong(max_bytes));
        }
        if read? == 0 {
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

    /// Why at most 1 MiB of a body is not made, and how much of it was paid for by who has so much.
    fn paid(packed: &[u8], encoding: Encoding, has: usize) -> (InflateError, usize) {
        let mut paid = 0;
        let pays_for = |bytes: usize| {
            assert!(bytes >= paid, "in all");
            let pays = bytes <= has;
            paid = if pays { bytes } else { paid };
            pays
        };
        (inflate(packed, encoding, 1 << 20, |_| true, pays_for).unwrap_err(), paid)
    }

    #[test]
    fn every_format_gives_the_body() {
        let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for (encoding, packed) in [
            (Encoding::Gzip, gzip(&body)),
            (Encoding::Deflate, deflate(&body)),
            (Encoding::Zstd, zstd::encode_all(&body[..], 3).unwrap()),
        ] {
            let whole = inflate(&packed, encoding, 1 << 20, |_| true, |_| true);
            assert_eq!(whole.unwrap(), body);
            let cut = &packed[..packed.len() - 9];
            let (error, paid) = self::paid(cut, encoding, usize::MAX);
            assert!(matches!(error, InflateError::Broken(_)), "{error}");
            assert!(paid > body.len() - 4 * PIECE_BYTES, "what came before: {paid}");
            let other = inflate(b"{\"inputs\": []}", encoding, 1 << 20, |_| true, |_| true);
            assert!(matches!(other, Err(InflateError::Broken(_))));
        }
        assert_eq!(Encoding::parse(b" GZIP "), Some(Encoding::Gzip));
        assert_eq!(Encoding::parse(b"br"), None);
        for name in Encoding::NAMES.split(", ") {
            assert!(Encoding::parse(name.as_bytes()).is_some(), "{name}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_bound_and_at_the_room() {
        let blanks = vec![0; 64 << 20];
        for (encoding, bomb) in [
            (Encoding::Gzip, gzip(&blanks)),
            (Encoding::Zstd, zstd::encode_all(&blanks[..], 3).unwrap()),
        ] {
            assert!(bomb.len() < 100_000);
            let mut asked = 0;
            let room_for = |bytes| {
                asked += bytes;
                true
            };
            let error = inflate(&bomb, encoding, 1 << 20, room_for, |_| true);
            assert!(matches!(error, Err(InflateError::TooLong(_))));
            assert!(asked <= (1 << 20) + 2 * PIECE_BYTES, "{asked}");
            let mut room = 10 * PIECE_BYTES;
            let room_for = |bytes| {
                room = room.saturating_sub(bytes);
                room > 0
            };
            let error = inflate(&bomb, encoding, 32 << 20, room_for, |_| true);
            assert!(matches!(error, Err(InflateError::NoRoom)));
            let (error, paid) = self::paid(&bomb, encoding, usize::MAX);
            assert!(matches!(error, InflateError::TooLong(_)) && paid == 1 << 20, "{paid}");
            let (error, paid) = self::paid(&bomb, encoding, 300_000);
            assert!(matches!(error, InflateError::Unpaid), "{error}");
            assert!((300_000 - PIECE_BYTES..=300_000).contains(&paid), "{paid}");
        }
    }

    #[test]
    fn a_window_above_the_bound_is_refused_before_it_is_made() {
        // A frame that asks for 2 GiB of what came before: magic, descriptor, window descriptor.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        let error = inflate(&frame, Encoding::Zstd, 1 << 20, |_| true, |_| true).unwrap_err();
        assert!(matches!(error, InflateError::Broken(_)), "{error}");
    }
}
