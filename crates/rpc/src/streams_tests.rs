//! Answers in pieces, there and back, and what is refused.

use super::*;
use crate::codec::{
    AnswerLimits, FromContainer, FromServer, decode_from_container, decode_from_server,
};

const LIMITS: AnswerLimits =
    AnswerLimits { outputs_max: 8, error_max_bytes: Some(64), joined: false, computed: false };

fn read(frames: Vec<Bytes>) -> Result<FromContainer, DecodeError> {
    decode_from_container(frames, LIMITS)
}

/// The frames of a queue that has whole, short messages.
fn frames_of(mut out: WireChunks) -> Vec<Bytes> {
    use bytes::Buf as _;
    let mut bytes = out.copy_to_bytes(out.remaining());
    let mut frames = Vec::new();
    while bytes.has_remaining() {
        let _flags = bytes.get_u8();
        let length = bytes.get_u8();
        frames.push(bytes.split_to(usize::from(length)));
    }
    frames
}

#[test]
fn what_a_container_says_is_read_as_it_was_meant() {
    let text = Bytes::from_static(b"he");
    for news in [
        StreamNews::Lanes(8),
        StreamNews::Piece { message_id: 7, text: text.clone() },
        StreamNews::End { message_id: 7, error: None },
        StreamNews::End { message_id: 7, error: Some(text) },
    ] {
        assert_eq!(read(encode_news(news.clone())), Ok(FromContainer::Stream(news)));
    }
}

#[test]
fn what_breaks_a_rule_is_refused() {
    for lanes in [0, LANES_MAX + 1, u32::MAX] {
        assert!(read(encode_news(StreamNews::Lanes(lanes))).is_err(), "{lanes}");
    }
    for error in [&b""[..], b"\xff", &[b'x'; 65]] {
        let error = Some(Bytes::copy_from_slice(error));
        assert!(read(encode_news(StreamNews::End { message_id: 1, error })).is_err());
    }
    let word = |value: u32| Bytes::copy_from_slice(&value.to_le_bytes());
    for kind in [TYPE_STREAMS, TYPE_PIECE, TYPE_END] {
        for frames in [0, 1, 4, 9] {
            let more = std::iter::repeat_n(Bytes::from_static(b"xyz"), frames);
            let broken = [Bytes::new(), word(kind)].into_iter().chain(more).collect();
            assert!(read(broken).is_err(), "{kind} {frames}");
        }
    }
}

#[test]
fn what_the_server_says_is_read_as_it_was_meant() {
    for order in [
        StreamOrder::Open { message_id: 7, pieces: 16, piece_max_bytes: 65_536 },
        StreamOrder::Credit { message_id: 7, pieces: 3 },
        StreamOrder::Cancel { message_id: 7 },
    ] {
        let mut out = WireChunks::new();
        encode_order(&mut out, order);
        let mut frames = frames_of(out);
        assert_eq!(decode_from_server(frames.clone(), 1), Ok(FromServer::Stream(order)));
        frames.push(Bytes::new());
        assert!(decode_from_server(frames.clone(), 1).is_err(), "one frame too many");
        frames.truncate(4);
        assert!(decode_from_server(frames, 1).is_err(), "too few");
    }
}
