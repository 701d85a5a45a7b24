//! Arbitrary bytes to the handshake and the frame decoder: no panic, the same outcome whole and
//! split, no message over a limit, no memory beyond what arrived.
//!
//! Input: one byte of mode and piece size, then what the peer sends.
#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use clipper_rpc::zmtp::{Decoder, Handshake, Incoming, Limits, LimitsOf, Step};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits =
    Limits { frames_max: 16, frame_max_bytes: 512, message_max_bytes: 1024, of: LimitsOf::Answers };

/// All that can be seen of a connection: what it brought, and how it ended.
#[derive(Debug, PartialEq)]
struct Seen {
    shaken: bool,
    messages: Vec<Incoming>,
    end: Result<usize, String>,
}

/// Plays a connection whose bytes arrive in pieces of `piece`.
fn play(mut handshake: Option<Handshake>, bytes: &[u8], piece: usize) -> Seen {
    let mut decoder = Decoder::new(LIMITS);
    let mut buf = BytesMut::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        buf.put_slice(piece);
        let before = buf.len();
        if let Err(end) = turn(&mut handshake, &mut decoder, &mut buf, &mut messages) {
            return Seen { shaken: handshake.is_none(), messages, end: Err(end) };
        }
        assert!(buf.capacity() <= 4 * before + (128 << 10), "memory grows with what arrived");
    }
    Seen { shaken: handshake.is_none(), messages, end: Ok(buf.len()) }
}

fn turn(
    handshake: &mut Option<Handshake>,
    decoder: &mut Decoder,
    buf: &mut BytesMut,
    messages: &mut Vec<Incoming>,
) -> Result<(), String> {
    while let Some(shaking) = handshake {
        match shaking.advance(buf).map_err(|error| error.to_string())? {
            Step::More => return Ok(()),
            Step::Send(_) | Step::Decide(_) => {}
            Step::Done(_) => *handshake = None,
        }
    }
    while let Some(incoming) = decoder.next(buf).map_err(|error| error.to_string())? {
        if let Incoming::Message(frames) = &incoming {
            assert!((1..=LIMITS.frames_max).contains(&frames.len()));
            assert!(frames.iter().all(|frame| frame.len() <= LIMITS.frame_max_bytes));
            assert!(frames.iter().map(Bytes::len).sum::<usize>() <= LIMITS.message_max_bytes);
        }
        messages.push(incoming);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let piece = usize::from(mode >> 2) + 1;
    let greeted = [&Handshake::greeting(), bytes].concat();
    let (start, bytes): (fn() -> Option<Handshake>, &[u8]) = match mode & 3 {
        0 => (|| Some(Handshake::new()), bytes),
        1 => (|| Some(Handshake::new()), &greeted),
        _ => (|| None, bytes),
    };
    let whole = play(start(), bytes, usize::MAX);
    assert_eq!(play(start(), bytes, piece), whole);
});
