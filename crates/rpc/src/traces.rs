//! The extension that says which trace each item of a batch belongs to ([`Extensions::TRACES`]).
//!
//! The server says it by a message of its own, before the predict message with the same id: a line
//! of text for each item that belongs to one. Items that do not, and batches without such items,
//! have none.

use std::fmt::Write as _;

use bytes::Bytes;
use clipper_domain::TraceContext;

use super::decode_error::{DecodeError, Part};
use super::fields::u32_at;
use super::introduction::frame_count;
use super::protocol::RPC_VERSION;
use super::wire::WireChunks;

#[allow(unused_imports, reason = "named in the description")]
use super::protocol::Extensions;

const TYPE_HEARTBEAT: u32 = 2;
pub(super) const HEARTBEAT_TRACES: u32 = 7;

/// Longest text of one message, bytes; the items whose lines are beyond it have no trace.
pub const TRACES_MAX_BYTES: usize = 256 << 10;

/// The traces of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchTraces {
    /// Of the predict message.
    pub message_id: u32,
    /// By the place of the item: the traces of those that belong to one.
    pub items: Vec<(usize, TraceContext)>,
}

/// Queues the traces of the items of a batch by their places, before it is queued itself; nothing
/// if there are none. Only for a container that has announced [`Extensions::TRACES`].
pub fn encode_traces(
    out: &mut WireChunks,
    message_id: u32,
    items: impl Iterator<Item = (usize, TraceContext)>,
) {
    let mut text = String::new();
    for (place, TraceContext { parent, state }) in items {
        let before = text.len();
        // Writing to memory does not fail.
        let _ = write!(text, "{place} {parent}");
        if let Some(state) = &state {
            text.push(' ');
            text.push_str(state);
        }
        text.push('\n');
        if text.len() > TRACES_MAX_BYTES {
            text.truncate(before);
            break;
        }
    }
    if text.is_empty() {
        return;
    }
    out.copy_frame(&[], true);
    out.copy_frame(&RPC_VERSION.to_le_bytes(), true);
    out.copy_frame(&TYPE_HEARTBEAT.to_le_bytes(), true);
    out.copy_frame(&HEARTBEAT_TRACES.to_le_bytes(), true);
    out.copy_frame(&message_id.to_le_bytes(), true);
    out.push_frame(Bytes::from(text), false);
}

/// Reads such a message. A line that is none is left out: nothing depends on it.
pub(super) fn decode(frames: &[Bytes]) -> Result<BatchTraces, DecodeError> {
    frame_count(frames, 6)?;
    let message_id = u32_at(frames, 4, Part::MessageId)?;
    let text = std::str::from_utf8(&frames[5]).map_err(|_| {
        let bytes = Some(frames[5].len());
        DecodeError::Malformed { part: Part::Traces, bytes }
    })?;
    Ok(BatchTraces { message_id, items: text.lines().filter_map(item).collect() })
}

fn item(line: &str) -> Option<(usize, TraceContext)> {
    let mut parts = line.splitn(3, ' ').map(str::as_bytes);
    let place = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let parent = parts.next();
    Some((place, TraceContext::of(parent.into_iter(), parts)?))
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use clipper_domain::TraceParent;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{FromServer, decode_from_server};
    use crate::zmtp::{Decoder, Incoming, Limits, LimitsOf};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(state: Option<&str>) -> TraceContext {
        let parent = TraceParent::parse(PARENT.as_bytes()).unwrap();
        TraceContext { parent, state: state.map(Into::into) }
    }

    /// The frames of what is written, if anything is.
    fn written(items: &[(usize, TraceContext)]) -> Option<Vec<Bytes>> {
        let mut out = WireChunks::new();
        encode_traces(&mut out, 7, items.iter().cloned());
        let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
        let (frame_max_bytes, message_max_bytes) = (1 << 20, 1 << 20);
        let of = LimitsOf::Answers;
        let limits = Limits { frames_max: 9, frame_max_bytes, message_max_bytes, of };
        match Decoder::new(limits).next(&mut bytes).unwrap() {
            Some(Incoming::Message(frames)) => Some(frames),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn read(frames: Vec<Bytes>) -> BatchTraces {
        match decode_from_server(frames, 0).unwrap() {
            FromServer::Traces(traces) => traces,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn traces_are_one_message_of_the_documented_bytes() {
        let items = [(0, context(Some("a=1,b=x y"))), (3, context(None))];
        let frames = written(&items).unwrap();
        let text = format!("0 {PARENT} a=1,b=x y\n3 {PARENT}\n");
        let expected = [&b""[..], &[3, 0, 0, 0], &[2, 0, 0, 0], &[7, 0, 0, 0], &[7, 0, 0, 0]];
        assert_eq!(frames[..5], expected);
        assert_eq!(frames[5], text);
        assert_eq!(read(frames), BatchTraces { message_id: 7, items: items.into() });
    }

    #[test]
    fn without_a_trace_nothing_is_said() {
        assert_eq!(written(&[]), None);
    }

    #[test]
    fn a_batch_of_many_says_as_much_as_one_message_may_have() {
        let state = format!("a={}", "x".repeat(256));
        let items: Vec<_> = (0..4_096).map(|at| (at, context(Some(&state)))).collect();
        let frames = written(&items).unwrap();
        let bytes = frames[5].len();
        assert!(bytes <= TRACES_MAX_BYTES && bytes > TRACES_MAX_BYTES - 400, "{bytes}");
        let found = read(frames).items;
        assert_eq!(found, items[..found.len()]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[0-9a-f \n=-]{0,200}") {
            let mut frames = written(&[(1, context(None))]).unwrap();
            frames[5] = Bytes::from(text);
            let _ = read(frames);
        }
    }
}
