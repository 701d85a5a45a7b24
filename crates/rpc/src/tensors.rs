//! Batches of tensors: the messages of [`super::codec`], whose items are then a description and the
//! joined elements of each tensor (`clipper_tensors::batch`).

use bytes::BufMut;
use clipper_domain::{Input, InputType};
use clipper_tensors::batch;

use super::codec::encode_predict_head;
use super::wire::WireChunks;

/// Queues a batch of rows; large parts of them are queued by reference. Gives back the places of
/// the rows in the order in which they are sent, which is that of the answer; what is no row is not
/// among them. `before` is told that order first, and may queue a message about it.
pub fn encode_predict(
    out: &mut WireChunks,
    message_id: u32,
    rows: &[&Input],
    before: impl FnOnce(&mut WireChunks, &[usize]),
) -> Vec<usize> {
    let joined = batch::join(rows.iter().copied());
    before(out, &joined.order);
    let count = 1 + joined.frames.len();
    encode_predict_head(out, message_id, InputType::Tensors, count, |header| {
        header.put_u64_le(joined.description.len() as u64);
        for pieces in &joined.frames {
            header.put_u64_le(pieces.bytes as u64);
        }
    });
    out.copy_frame(&joined.description, count > 1);
    for (index, pieces) in joined.frames.iter().enumerate() {
        let parts = pieces
            .of
            .iter()
            .filter_map(|(row, range)| rows.get(*row).map(|input| (&input.0, range.clone())));
        out.join_frame(pieces.bytes, index + 2 < count, parts);
    }
    joined.order
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, Bytes};
    use clipper_domain::{Datatype, TensorSpec};
    use clipper_tensors::batch::{Expected, Group};
    use clipper_tensors::row::{self, Part};

    use super::*;
    use crate::codec::{FromServer, decode_from_server};

    /// The frames of one message, small and long ones.
    fn frames(mut bytes: Bytes) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while bytes.has_remaining() {
            let flags = bytes.get_u8();
            let length = if flags & 2 != 0 { bytes.get_u64() } else { bytes.get_u8().into() };
            frames.push(bytes.split_to(usize::try_from(length).unwrap()));
            assert_eq!(flags & 1 == 1, bytes.has_remaining());
        }
        frames
    }

    #[test]
    fn a_batch_reaches_the_container_joined() {
        let specs = [TensorSpec {
            name: "x".to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![-1, -1],
            labels: Vec::new(),
        }];
        let input = |length: u64, value: u8| {
            let data = vec![value; usize::try_from(length).unwrap()];
            Input(row::build(&[Part { datatype: Datatype::Uint8, dims: &[length], data: &data }]))
        };
        let rows = [input(3, 1), input(10_000, 2), input(3, 3), input(10_000, 4)];
        let mut out = WireChunks::new();
        let rows_of = rows.iter().collect::<Vec<_>>();
        let order = encode_predict(&mut out, 7, &rows_of, |_, order| {
            assert_eq!(order, [0, 2, 1, 3]);
        });
        assert_eq!(order, [0, 2, 1, 3]);
        let message = frames(out.copy_to_bytes(out.remaining()));
        let read = decode_from_server(message, 100).unwrap();
        let FromServer::Predict { message_id: 7, input_type, inputs } = read else { panic!() };
        assert_eq!(input_type, InputType::Tensors);
        let expected = Expected { specs: &specs, rows: None, error_max_bytes: 0 };
        let groups = batch::parse(&inputs, expected).unwrap();
        let received: Vec<_> = groups.iter().flat_map(Group::rows).map(Input).collect();
        assert_eq!(received, order.iter().map(|at| rows[*at].clone()).collect::<Vec<_>>());
    }
}
