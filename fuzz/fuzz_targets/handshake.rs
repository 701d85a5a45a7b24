//! Arbitrary bytes to the handshakes of PLAIN and CURVE and to an encrypted connection: no panic, and
//! the same outcome whole and split.
//!
//! Input: one byte of mechanism and piece size, then what the peer sends behind its greeting.
#![no_main]

use bytes::{BufMut, BytesMut};
use clipper_rpc::curve::{self, SecretKey};
use clipper_rpc::zmtp::{Handshake, Offer, Step};
use libfuzzer_sys::fuzz_target;

fn handshake() -> Handshake {
    let key = |n| SecretKey::from_random([n; 32]);
    let curve = curve::Offer { secret: key(1), transient: key(2), nonce: [3; 16], cookie: [4; 96] };
    Handshake::offering(Offer { null: false, plain: true, curve: Some(Box::new(curve)) })
}

/// What was sent, what was asked, and how it ended.
fn play(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<String>, Option<String>) {
    let mut handshake = handshake();
    let (mut sent, mut asked, mut buf) = (Vec::new(), Vec::new(), BytesMut::new());
    for part in bytes.chunks(piece) {
        buf.put_slice(part);
        loop {
            match handshake.advance(&mut buf) {
                Ok(Step::More) => break,
                Ok(Step::Send(bytes)) => sent.extend(bytes),
                Ok(Step::Decide(credentials)) => asked.push(format!("{credentials:?}")),
                Ok(Step::Done(_)) => return (sent, asked, None),
                Err(error) => return (sent, asked, Some(error.to_string())),
            }
        }
    }
    (sent, asked, Some("it waits".to_owned()))
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let mut whole = Handshake::greeting().to_vec();
    let mechanism: &[u8] = if mode & 1 == 0 { b"PLAIN" } else { b"CURVE" };
    whole[12..17].copy_from_slice(mechanism);
    whole.extend(bytes);
    assert_eq!(play(&whole, usize::from(mode >> 1) + 1), play(&whole, usize::MAX));
});
