//! Tests of [`super`]: what libzmq and the `zeromq` crate send, hostile bytes, limits.

use super::*;
use crate::codec;
use crate::wire::WireChunks;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeromq::{Socket, SocketRecv, SocketSend};

const LIMITS: Limits = Limits {
    frames_max: 4096,
    frame_max_bytes: 64 << 20,
    message_max_bytes: 64 << 20,
    of: LimitsOf::Answers,
};

/// What libzmq 4.3.5 (pyzmq 27.3) wrote as a DEALER: before our greeting, and after it.
const LIBZMQ_SIGNATURE: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f";
const LIBZMQ_READY: &[u8] = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";
const LIBZMQ_PING: &[u8] = b"\x04\x07\x04PING\0\0";

fn greeting_with(change: impl FnOnce(&mut [u8; 64])) -> Vec<u8> {
    let mut greeting = Handshake::greeting();
    change(&mut greeting);
    greeting.to_vec()
}

fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.put_u32(u32::try_from(socket_type.len()).unwrap());
    body.extend_from_slice(socket_type.as_bytes());
    let mut frame = vec![4, u8::try_from(body.len()).unwrap()];
    frame.extend(body);
    frame
}

/// Feeds a handshake in pieces of `piece` bytes; gives what it sent, the peer and the rest.
fn shake(bytes: &[u8], piece: usize) -> Result<Option<(Bytes, Peer, BytesMut)>, String> {
    let mut handshake = Handshake::new();
    let mut buf = BytesMut::new();
    let mut sent = Bytes::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match handshake.advance(&mut buf).map_err(|error| error.to_string())? {
            Step::More => match pieces.next() {
                Some(piece) => buf.put_slice(piece),
                None => return Ok(None),
            },
            Step::Send(bytes) => sent = bytes,
            Step::Decide(_) => unreachable!("NULL has nothing to decide"),
            Step::Done(peer) => {
                pieces.for_each(|piece| buf.put_slice(piece));
                return Ok(Some((sent, peer, buf)));
            }
        }
    }
}

fn refusal(bytes: &[u8]) -> String {
    let whole = shake(bytes, usize::MAX).expect_err("should be refused");
    assert_eq!(shake(bytes, 1).expect_err("should be refused bytewise"), whole);
    whole
}

/// Feeds a decoder in pieces; gives what came out and how it ended.
fn decode(limits: Limits, bytes: &[u8], piece: usize) -> (Vec<Incoming>, Result<usize, String>) {
    let mut decoder = Decoder::new(limits);
    let mut buf = BytesMut::new();
    let mut out = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        buf.put_slice(piece);
        loop {
            match decoder.next(&mut buf) {
                Ok(Some(Incoming::Ignored)) => {}
                Ok(Some(incoming)) => out.push(incoming),
                Ok(None) => break,
                Err(error) => return (out, Err(error.to_string())),
            }
        }
    }
    (out, Ok(buf.len()))
}

#[test]
fn a_staged_libzmq_greeting_is_accepted_and_the_rest_is_left() {
    let mut bytes = LIBZMQ_SIGNATURE.to_vec();
    bytes.extend_from_slice(&Handshake::greeting()[10..]);
    bytes.extend_from_slice(LIBZMQ_READY);
    bytes.extend_from_slice(b"\x01\x00\x00\x04\x02\x00\x00\x00");
    for piece in [1, 10, 11, 64, 1000] {
        let (sent, peer, rest) = shake(&bytes, piece).unwrap().expect("done");
        assert_eq!(&sent[..], b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER");
        let expected = Peer { version: (3, 1), socket_type: "DEALER", identity: Bytes::new() };
        assert_eq!(peer, expected);
        assert_eq!(&rest[..], b"\x01\x00\x00\x04\x02\x00\x00\x00");
    }
}

#[test]
fn other_socket_types_and_properties() {
    for (name, accepted) in [("DEALER", true), ("REQ", true), ("ROUTER", true), ("PUB", false)] {
        let bytes = [greeting_with(|_| {}), ready(name)].concat();
        assert_eq!(shake(&bytes, 7).is_ok(), accepted, "{name}");
    }
    let with_identity =
        b"\x04\x2e\x05READY\x08identity\0\0\0\x05alice\x0bsocket-TYPE\0\0\0\x06DEALER";
    let bytes = [&greeting_with(|_| {})[..], with_identity].concat();
    assert_eq!(&shake(&bytes, 9).unwrap().expect("done").1.identity[..], b"alice");
}

#[test]
fn who_cannot_shake_hands_is_told_apart() {
    let good = greeting_with(|_| {});
    let after = |frame: &[u8]| refusal(&[&good, frame].concat());
    assert_eq!(
        refusal(b"GET / HTTP/1.1\r\n\r\n"),
        "the peer is not ZMTP 3: its first byte is 0x47 ('G'); \
         is an HTTP client talking to the RPC port?"
    );
    assert!(refusal(b"\x16\x03\x01").contains("TLS"));
    assert!(refusal(b"\x01\x00").contains("ZeroMQ 2"));
    assert!(refusal(b"\xff\0\0\0\0\0\0\0\x01\x00").contains("byte 10"));
    assert!(refusal(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01").contains("ZMTP 2"));
    let curve = greeting_with(|bytes| bytes[12..17].copy_from_slice(b"CURVE"));
    assert!(refusal(&curve).contains("\"CURVE\""));
    assert!(refusal(&greeting_with(|bytes| bytes[15] = 0)).contains("\"NUL\""));
    assert!(refusal(&greeting_with(|bytes| bytes[32] = 1)).contains("server"));
    assert!(after(&ready("PUB")).contains("\"PUB\""));
    assert!(after(b"\x04\x06\x05READY").contains("no Socket-Type"));
    assert!(after(b"\x00\x05hello").contains("a message instead of READY"));
    assert!(after(b"\x04\x05\x04PING").contains("\"PING\""));
    assert!(after(b"\x04\x0a\x05ERROR\x03bad").contains("\"bad\""));
    assert!(after(b"\x04\x09\x05READY\x0bSo").contains("malformed"));
    assert!(after(b"\x04\x00").contains("malformed"));
    assert!(after(b"\x06\0\0\0\0\0\0\x20\x01").contains("8193"));
    assert!(after(b"\x06\0\0\x01\0\0\0\0\0").contains("limit is 8192"));
    assert!(after(b"\x08\x00").contains("0x08"));
    assert_eq!(shake(&good, 5).unwrap(), None);
}

#[test]
fn messages_and_pings_may_interleave() {
    let mut bytes = b"\x01\x00".to_vec();
    bytes.extend_from_slice(LIBZMQ_PING);
    bytes.extend_from_slice(b"\x00\x04\x02\x00\x00\x00");
    bytes.extend_from_slice(b"\x04\x05\x04PONG\x04\x0b\x09SUBSCRIBEx");
    bytes.extend_from_slice(b"\x04\x0a\x04PING\0\0ctx");
    for piece in 1..bytes.len() {
        let (out, end) = decode(LIMITS, &bytes, piece);
        assert_eq!(end, Ok(0));
        let heartbeat = vec![Bytes::new(), Bytes::from_static(b"\x02\0\0\0")];
        let expected = [
            Incoming::Ping { context: Bytes::new() },
            Incoming::Message(heartbeat),
            Incoming::Ping { context: Bytes::from_static(b"ctx") },
        ];
        assert_eq!(out, expected);
    }
}

#[test]
fn broken_frames_end_with_a_reason() {
    let end = |bytes: &[u8]| decode(LIMITS, bytes, 3).1.expect_err("should end");
    assert!(end(b"\x05\x00").contains("0x05"));
    assert!(end(b"\x80\x00").contains("0x80"));
    assert!(end(b"\x04\x0a\x05ERROR\x03bad").contains("bad"));
    assert!(end(b"\x04\x05\x04PING").contains("PING"));
    assert!(end(&[&b"\x04\x18\x04PING"[..], &[0; 19]].concat()).contains("PING"));
    assert!(end(b"\x04\x01\x09").contains("nameless"));
    for length in [1 << 40, 1 << 62, 1 << 63, u64::MAX, (64 << 20) + 1] {
        let bytes = [&[2][..], &u64::to_be_bytes(length)].concat();
        assert!(end(&bytes).contains("rpc.frame_max_bytes"), "{length}");
        let bytes = [&[6][..], &u64::to_be_bytes(length)].concat();
        assert!(end(&bytes).contains("command"), "{length}");
    }
    let limits = Limits { message_max_bytes: 5, ..LIMITS };
    let (_, end) = decode(limits, b"\x01\x03abc\x01\x03abc", 100);
    assert!(end.expect_err("too long").contains("rpc.message_max_bytes"));
    let commands = [&b"\x01\x01x"[..], &LIBZMQ_PING.repeat(10)].concat();
    let (out, end) = decode(Limits { message_max_bytes: 29, ..LIMITS }, &commands, 100);
    assert_eq!(out.len(), 4, "commands inside a message count as part of it");
    assert!(end.expect_err("too long").contains("rpc.message_max_bytes"));
}

#[test]
fn a_message_ends_under_the_limits_that_it_began_with() {
    let unasked = Limits { message_max_bytes: 4, of: LimitsOf::Unasked, ..LIMITS };
    let mut decoder = Decoder::new(unasked);
    let mut buf = BytesMut::from(&b"\x01\x03abc"[..]);
    decoder.set_next_limits(LIMITS);
    assert!(decoder.next(&mut buf).unwrap().is_none());
    decoder.set_next_limits(unasked);
    buf.extend_from_slice(b"\x00\x03def\x00\x05ghijk");
    assert!(matches!(decoder.next(&mut buf), Ok(Some(Incoming::Message(_)))));
    let error = decoder.next(&mut buf).unwrap_err();
    assert_eq!(error.over_limit(), Some((Limit::MessageBytes, LimitsOf::Unasked)));
    assert!(error.to_string().contains("while nothing is asked of it"), "{error}");
}

#[test]
fn commands_without_a_meaning_come_out_one_by_one() {
    let mut decoder = Decoder::new(LIMITS);
    let mut buf = BytesMut::from(&b"\x04\x05\x04PONG\x04\x02\x01x"[..]);
    for _ in 0..2 {
        assert_eq!(decoder.next(&mut buf).unwrap(), Some(Incoming::Ignored));
    }
    assert_eq!(decoder.next(&mut buf).unwrap(), None);
}

#[test]
fn ten_million_one_byte_frames_end_at_the_limit() {
    let (out, end) = decode(LIMITS, &b"\x01\x01x".repeat(10_000_000), 64 << 10);
    assert!(out.is_empty());
    assert!(end.expect_err("too many").contains("more than 4096 frames"));
}

#[test]
fn an_announced_frame_reserves_no_more_than_a_step() {
    let mut decoder = Decoder::new(LIMITS);
    let mut buf = BytesMut::from(&b"\x02\0\0\0\0\x04\0\0\0abc"[..]);
    assert!(decoder.next(&mut buf).unwrap().is_none());
    assert!(buf.capacity() <= 2 * RESERVE_STEP_BYTES, "{}", buf.capacity());
}

#[test]
fn a_large_frame_leaves_no_large_buffer_behind() {
    let mut bytes = b"\x02\0\0\0\0\0\x40\0\0".to_vec();
    bytes.extend(vec![7; 4 << 20]);
    bytes.extend_from_slice(b"\x00");
    let mut decoder = Decoder::new(LIMITS);
    let mut buf = BytesMut::new();
    let mut messages = 0;
    for piece in bytes.chunks(10_000) {
        buf.put_slice(piece);
        while let Some(Incoming::Message(frames)) = decoder.next(&mut buf).unwrap() {
            assert_eq!(frames[0].len(), 4 << 20);
            messages += 1;
        }
        assert!(buf.capacity() <= 4 * buf.len().max(RESERVE_STEP_BYTES));
    }
    assert_eq!(messages, 1);
    assert_eq!(&buf[..], b"\x00");
    assert_eq!(buf.capacity(), FRESH_BUFFER_BYTES);
}

/// Serves one connection: shakes hands, gives the first message, answers it with `reply`.
async fn serve_one(listener: tokio::net::TcpListener, reply: Vec<Bytes>) -> Vec<Bytes> {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&Handshake::greeting()).await.unwrap();
    let mut handshake = Handshake::new();
    let mut buf = BytesMut::new();
    loop {
        match handshake.advance(&mut buf).unwrap() {
            Step::More => assert_ne!(stream.read_buf(&mut buf).await.unwrap(), 0),
            Step::Send(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::Decide(_) => unreachable!("NULL has nothing to decide"),
            Step::Done(peer) => break assert_eq!(peer.socket_type, "DEALER"),
        }
    }
    let mut decoder = Decoder::new(LIMITS);
    let frames = loop {
        match decoder.next(&mut buf).unwrap() {
            Some(Incoming::Message(frames)) => break frames,
            Some(Incoming::Ping { .. } | Incoming::Ignored) => {}
            None => assert_ne!(stream.read_buf(&mut buf).await.unwrap(), 0),
        }
    };
    let mut out = WireChunks::new();
    out.push_message(&reply);
    while !out.is_empty() {
        stream.write_buf(&mut out).await.unwrap();
    }
    // The peer closes when it has what it wants.
    while stream.read_buf(&mut buf).await.unwrap_or(0) > 0 {}
    frames
}

#[tokio::test]
async fn a_dealer_of_the_zeromq_crate_shakes_hands_and_talks() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let large = Bytes::from(vec![9; 3 << 20]);
    let reply = vec![Bytes::new(), Bytes::from_static(b"small"), large, Bytes::new()];
    let server = tokio::spawn(serve_one(listener, reply.clone()));
    let mut dealer = zeromq::DealerSocket::new();
    dealer.connect(&endpoint).await.unwrap();
    let form = codec::AnswerForm::default();
    let sent = codec::encode_answer(7, vec![Bytes::from(vec![b'1'; 1 << 20])], &[], form);
    dealer.send(zeromq::ZmqMessage::try_from(sent.clone()).unwrap()).await.unwrap();
    let limit = std::time::Duration::from_secs(30);
    let received = tokio::time::timeout(limit, dealer.recv()).await.unwrap().unwrap();
    assert!(received.into_vec() == reply, "the reply arrives whole and in order");
    drop(dealer);
    let arrived = tokio::time::timeout(limit, server).await.unwrap().unwrap();
    assert!(arrived == sent, "the message arrives whole and in order");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_however_it_is_split(
        messages in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..6), 0..5),
        piece in 1usize..2000,
    ) {
        let mut out = WireChunks::new();
        let mut expected = Vec::new();
        for message in messages {
            let frames: Vec<Bytes> = message.into_iter().map(Bytes::from).collect();
            out.push_message(&frames);
            out.push_pong(b"ignored");
            expected.push(Incoming::Message(frames));
        }
        let bytes = out.copy_to_bytes(out.remaining());
        prop_assert_eq!(decode(LIMITS, &bytes, piece), (expected, Ok(0)));
    }

    #[test]
    fn any_bytes_end_the_same_whole_and_split(
        bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..400),
        piece in 1usize..50,
    ) {
        let of = LimitsOf::Unasked;
        let limits = Limits { frames_max: 8, frame_max_bytes: 100, message_max_bytes: 200, of };
        prop_assert_eq!(decode(limits, &bytes, piece), decode(limits, &bytes, usize::MAX));
        let whole = shake(&bytes, usize::MAX).map(|done| done.map(|(_, peer, _)| peer));
        prop_assert_eq!(shake(&bytes, piece).map(|done| done.map(|(_, peer, _)| peer)), whole);
        let framed = [greeting_with(|_| {}), bytes].concat();
        let whole = shake(&framed, usize::MAX).map(|done| done.map(|(_, peer, _)| peer));
        prop_assert_eq!(shake(&framed, piece).map(|done| done.map(|(_, peer, _)| peer)), whole);
    }
}
