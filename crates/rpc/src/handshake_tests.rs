//! Tests of [`super`]: PLAIN and CURVE against the client's side, hostile bytes.

use super::*;
use crate::client::{self, Identity, Secret};
use crate::curve::{ClientHandshake, SecretKey};
use crate::wire::WireChunks;
use crate::zmtp::{Decoder, Incoming, Limits, LimitsOf};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    frames_max: 16,
    frame_max_bytes: 1 << 20,
    message_max_bytes: 1 << 20,
    of: LimitsOf::Answers,
};

fn key(n: u8) -> SecretKey {
    SecretKey::from_random([n; 32])
}

fn curve_offer() -> curve::Offer {
    curve::Offer { secret: key(1), transient: key(2), nonce: [3; 16], cookie: [4; 96] }
}

fn offer() -> Offer {
    Offer { null: false, plain: true, curve: Some(Box::new(curve_offer())) }
}

fn plain() -> client::Handshake {
    let (name, secret) = ("m".to_owned(), "open sesame".to_owned());
    client::Handshake::new(Identity::Secret(Secret { name, secret }))
}

fn curve(server: &SecretKey) -> client::Handshake {
    let handshake = ClientHandshake::new(server.public(), key(5), key(6), [7; 16]);
    client::Handshake::new(Identity::Curve(Box::new(handshake)))
}

/// How both sides end.
struct Ended {
    decided: Option<Credentials>,
    server: Result<(Peer, Option<Session>), String>,
    client: Result<Option<Session>, String>,
}

/// Plays both sides; `change` may spoil what the client sends.
fn play(
    mut client: client::Handshake,
    mut change: impl FnMut(usize, Bytes) -> Bytes,
    is_welcome: bool,
) -> Ended {
    let mut server = Handshake::offering(offer());
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    to_server.put_slice(&change(0, Bytes::copy_from_slice(&client.greeting())));
    to_client.put_slice(&server.opening());
    let (mut decided, mut sent, mut done) = (None, 1, Err("nothing".to_owned()));
    loop {
        loop {
            match server.advance(&mut to_server) {
                Ok(Step::Send(bytes)) => to_client.put_slice(&bytes),
                Ok(Step::More) => break,
                Ok(Step::Decide(credentials)) => {
                    decided = Some(credentials);
                    if !is_welcome {
                        to_client.put_slice(&server.refuse());
                        loop {
                            if let Err(error) = client.advance(&mut to_client) {
                                let server = Err("refused".to_owned());
                                return Ended { decided, server, client: Err(error.to_string()) };
                            }
                        }
                    }
                }
                Ok(Step::Done(peer)) => {
                    let session = server.session().cloned();
                    while done.is_err() {
                        if let client::Step::Done(session) = client.advance(&mut to_client).unwrap()
                        {
                            done = Ok(session);
                        }
                    }
                    return Ended { decided, server: Ok((peer, session)), client: done };
                }
                Err(error) => {
                    return Ended { decided, server: Err(error.to_string()), client: done };
                }
            }
        }
        match client.advance(&mut to_client) {
            Ok(client::Step::Send(bytes)) => {
                to_server.put_slice(&change(sent, bytes));
                sent += 1;
            }
            Ok(client::Step::Done(session)) => done = Ok(session),
            Ok(client::Step::More) => {
                return Ended { decided, server: Err("it waits".to_owned()), client: done };
            }
            Err(error) => {
                let error = error.to_string();
                return Ended { decided, server: Err("gone".to_owned()), client: Err(error) };
            }
        }
    }
}

fn as_it_is(_: usize, bytes: Bytes) -> Bytes {
    bytes
}

#[test]
fn a_name_and_its_secret_are_asked_about() {
    let ended = play(plain(), as_it_is, true);
    let (peer, session) = ended.server.unwrap();
    assert_eq!(peer.socket_type, "DEALER");
    assert!(session.is_none() && ended.client.unwrap().is_none());
    let (name, secret) = (Bytes::from_static(b"m"), Bytes::from_static(b"open sesame"));
    let credentials = Credentials::Secret { name, secret };
    assert!(!format!("{credentials:?}").contains("sesame"));
    assert_eq!(ended.decided, Some(credentials));
    let refused = play(plain(), as_it_is, false);
    assert!(refused.client.unwrap_err().contains("\"400\""));
}

#[test]
fn an_encrypted_connection_carries_messages_both_ways() {
    let ended = play(curve(&key(1)), as_it_is, true);
    assert_eq!(ended.decided, Some(Credentials::Curve(key(5).public())));
    let (server, client) = (ended.server.unwrap().1.unwrap(), ended.client.unwrap().unwrap());
    let large = Bytes::from(vec![9; 70_000]);
    for (from, to) in [(&server, &client), (&client, &server)] {
        let mut out = WireChunks::of(Some(from));
        out.push_message(&[Bytes::new(), large.clone(), Bytes::from_static(b"end")]);
        out.push_pong(b"ctx");
        out.fill_frame(2, false, |room| room.put_slice(b"ab"));
        let bytes = out.copy_to_bytes(out.remaining());
        assert!(!bytes.windows(3).any(|three| three == b"end"));
        for piece in [1, 1000, 100_000] {
            // Each time from the numbers of the start.
            let mut decoder = Decoder::new(LIMITS).with_session(Some(&to.again()));
            let mut buf = BytesMut::new();
            let mut came = Vec::new();
            for part in bytes.chunks(piece) {
                buf.put_slice(part);
                while let Some(incoming) = decoder.next(&mut buf).unwrap() {
                    came.push(incoming);
                }
            }
            let first = vec![Bytes::new(), large.clone(), Bytes::from_static(b"end")];
            let last = Incoming::Message(vec![Bytes::from_static(b"ab")]);
            assert_eq!(came, [Incoming::Message(first), Incoming::Ignored, last]);
            assert!(decoder.is_idle());
        }
    }
}

#[test]
fn a_message_that_was_changed_or_comes_twice_ends_the_connection() {
    let ended = play(curve(&key(1)), as_it_is, true);
    let (server, client) = (ended.server.unwrap().1.unwrap(), ended.client.unwrap().unwrap());
    let mut out = WireChunks::of(Some(&client));
    out.copy_frame(b"hello", false);
    let bytes = out.copy_to_bytes(out.remaining());
    for at in 0..bytes.len() {
        let mut changed = BytesMut::from(&bytes[..]);
        changed[at] ^= 0x40;
        let mut decoder = Decoder::new(LIMITS).with_session(Some(&server.again()));
        let came = decoder.next(&mut changed);
        assert!(!matches!(came, Ok(Some(Incoming::Message(_)))), "byte {at}: {came:?}");
    }
    let mut decoder = Decoder::new(LIMITS).with_session(Some(&server));
    let mut twice = BytesMut::from(&[&bytes[..], &bytes[..]].concat()[..]);
    assert!(decoder.next(&mut twice).unwrap().is_some());
    assert!(decoder.next(&mut twice).unwrap_err().to_string().contains("repeats"));
    let small = Limits { frame_max_bytes: 4, ..LIMITS };
    let mut decoder = Decoder::new(small).with_session(Some(&server.again()));
    let told = decoder.next(&mut BytesMut::from(&bytes[..])).unwrap_err().to_string();
    assert!(told.contains("a frame of 5 bytes; the limit is 4"), "{told}");
}

#[test]
fn wrong_keys_and_mechanisms_are_told_apart() {
    let wrong = play(curve(&key(8)), as_it_is, true);
    assert!(wrong.server.unwrap_err().contains("HELLO does not open"));
    assert_eq!(wrong.decided, None);
    let null = |_: usize, _: Bytes| Bytes::copy_from_slice(&Handshake::greeting());
    let told = play(plain(), null, true).server.unwrap_err();
    assert!(told.contains("\"NULL\"; of this server it may have PLAIN, CURVE"), "{told}");
    // Somebody else's proof: the lasting key of one, the vouch of another.
    for spoiled in 1..3 {
        for at in [12, 60, 130, 180] {
            let change = |n: usize, bytes: Bytes| {
                let mut bytes = bytes.to_vec();
                if n == spoiled {
                    let at = at.min(bytes.len() - 1);
                    bytes[at] ^= 1;
                }
                Bytes::from(bytes)
            };
            let ended = play(curve(&key(1)), change, true);
            // The padding of HELLO means nothing.
            let is_padding = spoiled == 1 && (12..80).contains(&at);
            assert_eq!(ended.decided.is_some(), is_padding, "{spoiled} {at}");
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_end_the_handshake_or_wait(
        mechanism in 0_usize..3,
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        piece in 1_usize..64,
    ) {
        let name: &[u8] = [&b"NULL"[..], b"PLAIN", b"CURVE"][mechanism];
        let mut whole = greeting(name, false).to_vec();
        whole.extend(bytes);
        let mut server = Handshake::offering(offer());
        let mut buf = BytesMut::new();
        let mut steps = 0;
        'all: for part in whole.chunks(piece) {
            buf.put_slice(part);
            loop {
                steps += 1;
                prop_assert!(steps < 2_000);
                match server.advance(&mut buf) {
                    Ok(Step::More) => break,
                    Ok(Step::Send(_) | Step::Decide(_)) => {}
                    Ok(Step::Done(_)) | Err(_) => break 'all,
                }
            }
        }
    }
}
