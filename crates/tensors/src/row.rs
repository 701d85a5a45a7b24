//! One row of tensors as bytes, in the order of its signature.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | tensors, n |
//! | for each | 8: datatype and, above its lowest byte, rank; 8 for each dimension |
//! | 8 n | bytes of each |
//! | rest | their elements |
//!
//! Numbers are little-endian, elements as in the binary form of the Open Inference Protocol: row
//! after row, BYTES each behind its length in 4 bytes. What stands before the elements' lengths is
//! the row's head: rows with equal heads can be joined. Two rows are equal if their bytes are,
//! which is what the cache goes by.

use std::ops::Range;
use std::sync::Arc;

use clipper_domain::signature::{RANK_MAX, TENSORS_MAX};
use clipper_domain::{Datatype, TensorSpec};
use smallvec::SmallVec;

const WORD: usize = 8;

/// One tensor of a row, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor<'r> {
    pub datatype: Datatype,
    /// Little-endian words.
    dims: &'r [[u8; WORD]],
    pub data: &'r [u8],
}

impl<'r> Tensor<'r> {
    /// The dimensions of the row's part, without that of the rows.
    #[must_use]
    pub fn dims(&self) -> impl ExactSizeIterator<Item = u64> + use<'r> {
        self.dims.iter().map(|word| u64::from_le_bytes(*word))
    }

    /// Whether it is one of those that `spec` means.
    #[must_use]
    pub fn is_of(&self, spec: &TensorSpec) -> bool {
        spec.takes(self.datatype, self.dims())
    }
}

/// The tensors of a row.
pub type Tensors<'r> = SmallVec<[Tensor<'r>; 4]>;

/// What a tensor of a row is made of.
#[derive(Debug, Clone, Copy)]
pub struct Part<'p> {
    pub datatype: Datatype,
    pub dims: &'p [u64],
    pub data: &'p [u8],
}

/// Makes a row; its bytes are copied once.
#[must_use]
pub fn build(parts: &[Part<'_>]) -> Arc<[u8]> {
    let words: usize = parts.iter().map(|part| 2 + part.dims.len()).sum();
    let data: usize = parts.iter().map(|part| part.data.len()).sum();
    let length = (1 + words) * WORD + data;
    // In one piece, which is filled afterwards.
    let mut row: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    if let Some(mut left) = Arc::get_mut(&mut row) {
        let mut put = |bytes: &[u8]| {
            if let Some((place, rest)) = std::mem::take(&mut left).split_at_mut_checked(bytes.len())
            {
                place.copy_from_slice(bytes);
                left = rest;
            }
        };
        put(&(parts.len() as u64).to_le_bytes());
        for part in parts {
            let kind = u64::from(part.datatype.wire_code()) | (part.dims.len() as u64) << 8;
            put(&kind.to_le_bytes());
            for dim in part.dims {
                put(&dim.to_le_bytes());
            }
        }
        for part in parts {
            put(&(part.data.len() as u64).to_le_bytes());
        }
        for part in parts {
            put(part.data);
        }
    }
    row
}

fn word(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

/// The head of a row, and its tensors; `None` for bytes that are no row. That the elements are as
/// long as the shapes say was checked by whoever made it.
#[must_use]
pub fn read(row: &[u8]) -> Option<(&[u8], Tensors<'_>)> {
    let mut left = row;
    let count = usize::try_from(word(&mut left)?).ok().filter(|n| *n <= TENSORS_MAX)?;
    let mut tensors = Tensors::with_capacity(count);
    for _ in 0..count {
        let kind = word(&mut left)?;
        let datatype = Datatype::from_wire_code(kind & 0xff)?;
        let rank = usize::try_from(kind >> 8).ok().filter(|rank| *rank < RANK_MAX)?;
        let (dims, rest) = left.split_at_checked(rank * WORD)?;
        tensors.push(Tensor { datatype, dims: dims.as_chunks().0, data: &[] });
        left = rest;
    }
    let head = row.get(..row.len() - left.len())?;
    let (lengths, mut data) = left.split_at_checked(count * WORD)?;
    for (tensor, length) in tensors.iter_mut().zip(lengths.as_chunks::<WORD>().0) {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        (tensor.data, data) = data.split_at_checked(length)?;
    }
    data.is_empty().then_some((head, tensors))
}

/// Where the tensors of a row are.
#[derive(Debug, Clone)]
pub struct Layout<'r> {
    /// What rows have in common that can be joined.
    pub head: &'r [u8],
    /// All that stands before the elements.
    before: &'r [u8],
    /// Of the whole row.
    bytes: usize,
    /// Those of the row that it was read of.
    pub tensors: Tensors<'r>,
}

impl<'r> Layout<'r> {
    /// That of `row`; `None` for bytes that are no row.
    #[must_use]
    pub fn of(row: &'r [u8]) -> Option<Self> {
        let (head, tensors) = read(row)?;
        let before = row.get(..head.len() + tensors.len() * WORD)?;
        Some(Self { head, before, bytes: row.len(), tensors })
    }

    /// Whether it is that of `row` as well.
    fn is_of(&self, row: &[u8]) -> bool {
        row.len() == self.bytes && row.starts_with(self.before)
    }

    /// Where in the row the elements of each tensor are.
    pub fn places(&self) -> impl Iterator<Item = Range<usize>> {
        let mut end = self.before.len();
        self.tensors.iter().map(move |tensor| {
            let start = end;
            end += tensor.data.len();
            start..end
        })
    }
}

/// What is made of the layouts of many rows in turn. Most are laid out as the one before, which is
/// seen sooner than each can be read.
#[derive(Debug)]
pub struct ByLayout<'r, T>(Option<(Layout<'r>, T)>);

impl<T> Default for ByLayout<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'r, T> ByLayout<'r, T> {
    /// What `make` makes of the layout of `row`, or has made of that before; `None` for bytes that
    /// are no row.
    pub fn of(&mut self, row: &'r [u8], make: impl FnOnce(&Layout<'r>) -> T) -> Option<&T> {
        if !self.0.as_ref().is_some_and(|(layout, _)| layout.is_of(row)) {
            let layout = Layout::of(row)?;
            let value = make(&layout);
            self.0 = Some((layout, value));
        }
        self.0.as_ref().map(|(_, value)| value)
    }
}

/// Tells rows of some tensors, in turn, from others.
#[derive(Debug)]
pub struct RowCheck<'s, 'r> {
    specs: &'s [TensorSpec],
    taken: ByLayout<'r, bool>,
}

impl<'s, 'r> RowCheck<'s, 'r> {
    #[must_use]
    pub fn new(specs: &'s [TensorSpec]) -> Self {
        Self { specs, taken: ByLayout::default() }
    }

    /// Whether `row` is one of the tensors.
    pub fn takes(&mut self, row: &'r [u8]) -> bool {
        let Self { specs, taken } = self;
        let is_taken = taken.of(row, |Layout { tensors, .. }| {
            tensors.len() == specs.len()
                && tensors.iter().zip(*specs).all(|(tensor, spec)| tensor.is_of(spec))
        });
        is_taken == Some(&true)
    }
}

/// Elements of these dimensions, if that is a number that memory can hold.
#[must_use]
pub fn elements(dims: impl IntoIterator<Item = u64>) -> Option<usize> {
    let product = dims.into_iter().try_fold(1_u64, u64::checked_mul)?;
    usize::try_from(product).ok().filter(|n| isize::try_from(*n).is_ok_and(|n| n < isize::MAX / 8))
}

/// The length of the first `count` elements of BYTES, each behind its length; `None` where they end
/// early.
#[must_use]
pub fn texts_bytes(data: &[u8], count: usize) -> Option<usize> {
    let mut left = data;
    for _ in 0..count {
        let (length, rest) = left.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        left = rest.get(length..)?;
    }
    Some(data.len() - left.len())
}

/// Bytes that one row of these dimensions takes of `left`, the elements of `rows` rows that are
/// left, `all` of them so many bytes.
#[must_use]
pub fn row_bytes(
    datatype: Datatype,
    dims: &[u64],
    (all, rows): (usize, usize),
    left: &[u8],
) -> usize {
    if datatype.element_bytes().is_some() {
        return all / rows.max(1);
    }
    let elements = elements(dims.iter().copied()).unwrap_or(0);
    texts_bytes(left, elements).unwrap_or(0)
}

/// Whether elements of BYTES, each behind its length, are all UTF-8.
#[must_use]
pub fn are_texts(data: &[u8]) -> bool {
    let mut left = data;
    while let Some((length, rest)) = left.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((text, rest)) = rest.split_at_checked(length) else { return false };
        if std::str::from_utf8(text).is_err() {
            return false;
        }
        left = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_made() {
        let x = Part { datatype: Datatype::Fp32, dims: &[2, 1], data: &[7; 8] };
        let text = Part { datatype: Datatype::Bytes, dims: &[], data: b"\x02\0\0\0hi" };
        let row = build(&[x, text]);
        let (head, tensors) = read(&row).unwrap();
        assert_eq!(tensors.len(), 2);
        assert_eq!(tensors[0].dims().collect::<Vec<_>>(), [2, 1]);
        assert_eq!((tensors[0].datatype, tensors[0].data), (Datatype::Fp32, &[7; 8][..]));
        assert_eq!((tensors[1].datatype, tensors[1].data), (Datatype::Bytes, text.data));
        assert_eq!(tensors[1].dims().len(), 0);
        let longer = Part { data: b"\x03\0\0\0hey", ..text };
        assert_eq!(read(&build(&[x, longer])).unwrap().0, head, "texts of any length are joined");
        let layout = Layout::of(&row).unwrap();
        assert_eq!(layout.head, head);
        let places: Vec<_> = layout.places().collect();
        assert_eq!(
            places.iter().map(|place| &row[place.clone()]).collect::<Vec<_>>(),
            [x.data, text.data]
        );
        assert!(layout.is_of(&build(&[Part { data: &[8; 8], ..x }, text])));
        assert!(!layout.is_of(&build(&[x, longer])), "its elements are elsewhere");
        let other = Part { dims: &[1, 2], ..x };
        assert!(!layout.is_of(&build(&[other, text])));
        assert_ne!(read(&build(&[other, text])).unwrap().0, head);
    }

    #[test]
    fn products_that_overflow_are_none() {
        assert_eq!(elements([2, 3]), Some(6));
        assert_eq!(elements([]), Some(1));
        assert_eq!(elements([1 << 63, 1]), None);
        assert_eq!(elements([1 << 33, 1 << 33]), None);
        assert_eq!(elements([u64::MAX, 0]), Some(0));
        assert_eq!(texts_bytes(b"\x02\0\0\0hi\0\0\0\0", 2), Some(10));
        assert_eq!(texts_bytes(b"\x02\0\0\0hi", 2), None);
        assert_eq!(texts_bytes(b"\xff\xff\xff\xffhi", 1), None);
    }

    proptest! {
        #[test]
        fn any_bytes(row in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some((head, tensors)) = read(&row) {
                prop_assert!(head.len() <= row.len() && tensors.len() <= TENSORS_MAX);
            }
        }
    }
}
