//! Batches there and back, and answers of containers that lie.

use proptest::prelude::*;

use super::*;
use crate::row::RowCheck;

fn specs() -> Vec<TensorSpec> {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
        labels: Vec::new(),
    };
    vec![spec("x", Datatype::Uint16, &[-1, -1]), spec("t", Datatype::Bytes, &[-1])]
}

fn input(numbers: &[u16], text: &str) -> Input {
    let data: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let dims = [numbers.len() as u64];
    Input(row::build(&[
        Part { datatype: Datatype::Uint16, dims: &dims, data: &data },
        Part { datatype: Datatype::Bytes, dims: &[], data: &bytes },
    ]))
}

/// What a container receives.
fn sent(inputs: &[Input]) -> (Vec<usize>, Vec<Bytes>) {
    let joined = join(inputs.iter());
    let mut frames = vec![Bytes::from(joined.description)];
    for pieces in joined.frames {
        let mut data = Vec::new();
        for (row, range) in pieces.of {
            data.extend_from_slice(&inputs[row].0[range]);
        }
        assert_eq!(data.len(), pieces.bytes);
        frames.push(data.into());
    }
    (joined.order, frames)
}

fn all(specs: &[TensorSpec], rows: usize) -> Expected<'_> {
    Expected { specs, rows: Some(rows), error_max_bytes: 10 }
}

#[test]
fn rows_of_one_shape_are_joined_and_taken_apart() {
    let inputs = [input(&[1, 2], "a"), input(&[3], "bb"), input(&[4, 5], ""), input(&[6], "c")];
    let (order, frames) = sent(&inputs);
    assert_eq!(order, [0, 2, 1, 3]);
    let specs = specs();
    let groups = parse(&frames, all(&specs, 4)).unwrap();
    assert_eq!(groups.iter().map(|group| group.rows).collect::<Vec<_>>(), [2, 2]);
    let Content::Tensors(first) = &groups[0].content else { panic!() };
    assert_eq!(first[0].shape, [2, 2]);
    assert_eq!(&first[0].data[..], [1, 0, 2, 0, 4, 0, 5, 0]);
    assert_eq!(&first[1].data[..], b"\x01\0\0\0a\0\0\0\0");
    let rows: Vec<_> = groups.iter().flat_map(Group::rows).map(Input).collect();
    let expected: Vec<_> = order.iter().map(|at| inputs[*at].clone()).collect();
    assert_eq!(rows, expected);
    assert_eq!(parse(&answer(groups.clone()), all(&specs, 4)).unwrap(), groups);
    let alone: Vec<_> = groups
        .iter()
        .flat_map(|group| (0..group.rows).map(|row| group.part(row..row + 1)))
        .flat_map(|row| row.rows().collect::<Vec<_>>())
        .map(Input)
        .collect();
    assert_eq!(alone, expected);
}

#[test]
fn an_answer_may_have_errors_of_some_rows() {
    let specs = specs();
    let (_, frames) = sent(&[input(&[1], "a")]);
    let mut groups = parse(&frames, all(&specs, 1)).unwrap();
    groups.push(Group { rows: 2, content: Content::Error(Bytes::from("no")) });
    assert_eq!(parse(&answer(groups.clone()), all(&specs, 3)).unwrap(), groups);
    assert_eq!(groups[1].rows().count(), 0);
    let none = Expected { error_max_bytes: 0, ..all(&specs, 3) };
    assert_eq!(parse(&answer(groups.clone()), none), Err(BatchError::TooMany(1)));
    for text in ["", "longer than ten", "\u{fffd}"] {
        let bytes = if text == "\u{fffd}" { Bytes::from_static(b"\xff") } else { text.into() };
        groups[1].content = Content::Error(bytes);
        let error = parse(&answer(groups.clone()), all(&specs, 3));
        assert_eq!(error, Err(BatchError::ErrorText(1)), "{text}");
    }
}

#[test]
fn lies_are_found() {
    let specs = specs();
    let words = |words: &[u64]| -> Bytes { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let numbers = Bytes::from_static(&[1, 0, 2, 0]);
    let text = Bytes::from_static(b"\x01\0\0\0a");
    let of = |description: &[u64], parts: &[&Bytes]| {
        let mut frames = vec![words(description)];
        frames.extend(parts.iter().map(|part| (*part).clone()));
        parse(&frames, all(&specs, 1))
    };
    let good = [1, 1, 2, 2, 2, 1, 2, 13, 1, 1];
    assert!(of(&good, &[&numbers, &text]).is_ok());
    let with = |at: usize, word: u64| {
        let mut words = good;
        words[at] = word;
        of(&words, &[&numbers, &text])
    };
    let tensor = |tensor| Err(BatchError::Tensor { group: 0, tensor });
    assert_eq!(with(0, u64::MAX), Err(BatchError::Description));
    assert_eq!(with(0, 0), Err(BatchError::Description));
    assert_eq!(with(1, 0), Err(BatchError::Rows { expected: 1, found: 0 }));
    assert_eq!(with(1, 1 << 63), Err(BatchError::Rows { expected: 1, found: 1 << 63 }));
    assert_eq!(with(2, 3), Err(BatchError::TooMany(0)));
    assert_eq!(with(3, 99), tensor(0));
    assert_eq!(with(3, 3), tensor(0));
    assert_eq!(with(4, 1 << 60), Err(BatchError::TooMany(0)));
    assert_eq!(with(5, 2), tensor(0));
    assert_eq!(with(6, 3), tensor(0));
    assert_eq!(with(6, 1 << 63), tensor(0));
    assert_eq!(of(&good[..9], &[&numbers, &text]), Err(BatchError::Description));
    assert_eq!(of(&good, &[&numbers]), Err(BatchError::Parts { expected: 1, found: 0 }));
    let more = of(&good, &[&numbers, &text, &text]);
    assert_eq!(more, Err(BatchError::Parts { expected: 2, found: 3 }));
    let lie = Bytes::from_static(b"\xff\xff\xff\xffa");
    assert_eq!(of(&good, &[&numbers, &lie]), tensor(1));
    assert_eq!(parse(&[], all(&specs, 1)), Err(BatchError::Description));
    assert_eq!(
        parse(&[Bytes::from_static(b"1234567")], all(&specs, 1)),
        Err(BatchError::Description)
    );
}

proptest! {
    #[test]
    fn any_answer(words in prop::collection::vec(prop_oneof![0_u64..5, any::<u64>()], 0..24),
                  parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..4)) {
        let mut frames: Vec<Bytes> = vec![words.iter().flat_map(|w| w.to_le_bytes()).collect()];
        frames.extend(parts.into_iter().map(Bytes::from));
        let specs = specs();
        if let Ok(groups) = parse(&frames, all(&specs, 3)) {
            let rows: usize = groups.iter().map(|group| group.rows).sum();
            prop_assert_eq!(rows, 3);
            let mut rows = groups.iter().flat_map(Group::rows);
            prop_assert!(rows.all(|row| RowCheck::new(&specs).takes(&row)));
        }
    }
}
