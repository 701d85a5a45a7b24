//! A batch of rows as a container gets and answers it: rows whose heads are equal are one group,
//! and each tensor of a group is one piece of memory, joined along the first axis.
//!
//! A message has a description and, behind it, the elements of each tensor of each group. The
//! description is a list of little-endian words of 8 bytes: the number of groups; of each its rows,
//! its number of tensors, and of each tensor datatype, rank and dimensions, the rows first. A group
//! of an answer without tensors is an error: one text for all its rows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clipper_domain::signature::{RANK_MAX, TENSORS_MAX};
use clipper_domain::{Datatype, Input, TensorSpec};
use smallvec::SmallVec;

use crate::row::{self, ByLayout, Layout, Part};

/// The elements of one tensor of one group, in pieces of rows.
#[derive(Debug, Default)]
pub struct Pieces {
    pub bytes: usize,
    /// Which row, and which of its bytes.
    pub of: Vec<(usize, Range<usize>)>,
}

/// A batch for a container.
#[derive(Debug)]
pub struct Joined {
    pub description: Vec<u8>,
    /// The places of the rows in the order in which they are sent.
    pub order: Vec<usize>,
    pub frames: Vec<Pieces>,
}

/// Joins rows; those that are none are left out.
#[must_use]
pub fn join<'r>(rows: impl Iterator<Item = &'r Input>) -> Joined {
    let rows: Vec<&[u8]> = rows.map(|input| &input.0[..]).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    let mut group_of = ByLayout::default();
    for (at, bytes) in rows.iter().enumerate() {
        let next = groups.len();
        let group = group_of.of(bytes, |layout| *known.entry(layout.head).or_insert(next));
        let Some(group) = group.copied() else { continue };
        match groups.get_mut(group) {
            Some(members) => members.push(at),
            None => groups.push(vec![at]),
        }
    }
    let mut joined = Joined { description: Vec::new(), order: Vec::new(), frames: Vec::new() };
    put(&mut joined.description, groups.len() as u64);
    for members in groups {
        joined.add(&rows, &members);
        joined.order.extend(members);
    }
    joined
}

fn put(description: &mut Vec<u8>, word: u64) {
    description.extend_from_slice(&word.to_le_bytes());
}

impl Joined {
    fn add(&mut self, rows: &[&[u8]], members: &[usize]) {
        let first = members.first().and_then(|at| Layout::of(rows.get(*at)?));
        let Some(Layout { tensors, .. }) = first else { return };
        let description = &mut self.description;
        put(description, members.len() as u64);
        put(description, tensors.len() as u64);
        for tensor in &tensors {
            put(description, tensor.datatype.wire_code().into());
            put(description, 1 + tensor.dims().len() as u64);
            put(description, members.len() as u64);
            for dim in tensor.dims() {
                put(description, dim);
            }
        }
        let pieces = |_| Pieces { bytes: 0, of: Vec::with_capacity(members.len()) };
        let mut frames: SmallVec<[Pieces; 4]> = tensors.iter().map(pieces).collect();
        let mut places_of = ByLayout::<SmallVec<[Range<usize>; 4]>>::default();
        for at in members {
            let Some(bytes) = rows.get(*at) else { continue };
            let places = places_of.of(bytes, |layout| layout.places().collect());
            for (frame, place) in frames.iter_mut().zip(places.into_iter().flatten()) {
                frame.bytes += place.len();
                frame.of.push((*at, place.clone()));
            }
        }
        self.frames.extend(frames);
    }
}

/// One tensor of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedTensor {
    pub datatype: Datatype,
    /// The rows first.
    pub shape: Vec<u64>,
    pub data: Bytes,
}

/// What a group of rows is, or is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Tensors(Vec<JoinedTensor>),
    /// Why the model has no outputs for these rows.
    Error(Bytes),
}

/// Rows of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub rows: usize,
    pub content: Content,
}

/// Why a message is no batch. The texts are for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the description of the tensors ends early or goes on")]
    Description,
    #[error("the message describes {found} rows instead of {expected}")]
    Rows { expected: usize, found: u64 },
    #[error("group {0} has more tensors or dimensions than there may be")]
    TooMany(usize),
    #[error("group {group}: tensor {tensor} has another shape, length or datatype than it must")]
    Tensor { group: usize, tensor: usize },
    #[error("group {0} is an error that is empty, too long or not UTF-8")]
    ErrorText(usize),
    #[error("the message has {found} parts for {expected} tensors")]
    Parts { expected: usize, found: usize },
}

struct Words<'d>(&'d [[u8; 8]]);

impl Words<'_> {
    fn next(&mut self) -> Result<u64, BatchError> {
        let (word, rest) = self.0.split_first().ok_or(BatchError::Description)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }
}

/// What the groups of a message have to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'s> {
    pub specs: &'s [TensorSpec],
    pub rows: Option<usize>,
    /// Longest text of an error, bytes; 0 where there is none.
    pub error_max_bytes: usize,
}

/// Reads the groups of a message: its description and what follows. Elements are not copied.
///
/// # Errors
/// See [`BatchError`].
pub fn parse(frames: &[Bytes], expected: Expected<'_>) -> Result<Vec<Group>, BatchError> {
    let (description, mut parts) = frames.split_first().ok_or(BatchError::Description)?;
    let (words, rest) = description.as_chunks();
    if !rest.is_empty() {
        return Err(BatchError::Description);
    }
    let mut words = Words(words);
    let count = words.next()?;
    let (mut groups, mut rows) = (Vec::new(), 0_u64);
    // Each takes two words at least, so the description bounds them.
    for index in 0..count {
        let index = usize::try_from(index).map_err(|_| BatchError::Description)?;
        let group = group(&mut words, &mut parts, index, expected)?;
        rows = rows.saturating_add(group.rows as u64);
        groups.push(group);
    }
    if !words.0.is_empty() {
        return Err(BatchError::Description);
    }
    if !parts.is_empty() {
        let found = frames.len() - 1;
        return Err(BatchError::Parts { expected: found - parts.len(), found });
    }
    match expected.rows {
        Some(expected) if rows != expected as u64 => {
            Err(BatchError::Rows { expected, found: rows })
        }
        _ => Ok(groups),
    }
}

fn group(
    words: &mut Words<'_>,
    parts: &mut &[Bytes],
    index: usize,
    expected: Expected<'_>,
) -> Result<Group, BatchError> {
    let (rows, tensors) = (words.next()?, words.next()?);
    let wanted = expected.rows.unwrap_or(usize::MAX);
    let count = usize::try_from(rows).ok().filter(|n| (1..=wanted).contains(n));
    let rows = count.ok_or(BatchError::Rows { expected: wanted, found: rows })?;
    let mut next_part = || {
        let (part, rest) = parts.split_first()?;
        *parts = rest;
        Some(part.clone())
    };
    let missing = BatchError::Parts { expected: 1, found: 0 };
    if tensors == 0 && expected.error_max_bytes > 0 {
        let text = next_part().ok_or(missing)?;
        let fits = (1..=expected.error_max_bytes).contains(&text.len());
        if !fits || std::str::from_utf8(&text).is_err() {
            return Err(BatchError::ErrorText(index));
        }
        return Ok(Group { rows, content: Content::Error(text) });
    }
    if tensors != expected.specs.len() as u64 || tensors > TENSORS_MAX as u64 {
        return Err(BatchError::TooMany(index));
    }
    let mut joined = Vec::with_capacity(expected.specs.len());
    for (tensor, spec) in expected.specs.iter().enumerate() {
        let wrong = BatchError::Tensor { group: index, tensor };
        let datatype = Datatype::from_wire_code(words.next()?).ok_or(wrong)?;
        let rank = usize::try_from(words.next()?).ok().filter(|rank| *rank <= RANK_MAX);
        let rank = rank.ok_or(BatchError::TooMany(index))?;
        let shape = (0..rank).map(|_| words.next()).collect::<Result<Vec<_>, _>>()?;
        let data = next_part().ok_or(missing)?;
        let (first, dims) = shape.split_first().ok_or(wrong)?;
        let is_one = *first == rows as u64 && spec.takes(datatype, dims.iter().copied());
        if !is_one || !is_as_long(datatype, &shape, &data) {
            return Err(wrong);
        }
        joined.push(JoinedTensor { datatype, shape, data });
    }
    Ok(Group { rows, content: Content::Tensors(joined) })
}

/// Whether data are the elements of a shape.
#[must_use]
pub fn is_as_long(datatype: Datatype, shape: &[u64], data: &[u8]) -> bool {
    let Some(elements) = row::elements(shape.iter().copied()) else { return false };
    match datatype.element_bytes() {
        Some(bytes) => elements.checked_mul(bytes) == Some(data.len()),
        None => row::texts_bytes(data, elements) == Some(data.len()),
    }
}

impl Group {
    /// The rows of a group, each by itself; none of an error.
    pub fn rows(&self) -> impl Iterator<Item = Arc<[u8]>> {
        let tensors = match &self.content {
            Content::Tensors(tensors) => tensors.as_slice(),
            Content::Error(_) => &[],
        };
        let mut left: SmallVec<[&[u8]; 4]> = tensors.iter().map(|t| &t.data[..]).collect();
        let rows = if tensors.is_empty() { 0 } else { self.rows };
        (0..rows).map(move |_| {
            let parts = tensors.iter().zip(&mut left).map(|(tensor, left)| {
                let dims = tensor.shape.get(1..).unwrap_or_default();
                let all = (tensor.data.len(), self.rows);
                let bytes = row::row_bytes(tensor.datatype, dims, all, left);
                let (data, rest) = left.split_at_checked(bytes).unwrap_or_default();
                *left = rest;
                Part { datatype: tensor.datatype, dims, data }
            });
            row::build(&parts.collect::<SmallVec<[_; 4]>>())
        })
    }
}

impl Group {
    /// Some of its rows, whose elements stay where they are.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> Self {
        let count = rows.end.min(self.rows).saturating_sub(rows.start);
        let content = match &self.content {
            Content::Error(text) => Content::Error(text.clone()),
            Content::Tensors(tensors) => {
                Content::Tensors(tensors.iter().map(|tensor| tensor.part(&rows, count)).collect())
            }
        };
        Self { rows: count, content }
    }
}

impl JoinedTensor {
    fn part(&self, rows: &Range<usize>, count: usize) -> Self {
        let all = self.shape.first().copied().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let dims = self.shape.get(1..).unwrap_or_default();
        let place = |row: usize| {
            if self.datatype.element_bytes().is_some() {
                return self.data.len() / all.max(1) * row;
            }
            let elements = row::elements(dims.iter().copied()).unwrap_or(0);
            row::texts_bytes(&self.data, elements.saturating_mul(row)).unwrap_or(0)
        };
        let (start, end) = (place(rows.start), place(rows.start + count));
        let data = if start <= end && end <= self.data.len() {
            self.data.slice(start..end)
        } else {
            Bytes::new()
        };
        let shape = std::iter::once(count as u64).chain(dims.iter().copied()).collect();
        Self { datatype: self.datatype, shape, data }
    }
}

/// Writes an answer: its description and what follows.
#[must_use]
pub fn answer(groups: Vec<Group>) -> Vec<Bytes> {
    let mut description = Vec::new();
    let mut frames = vec![Bytes::new()];
    put(&mut description, groups.len() as u64);
    for Group { rows, content } in groups {
        put(&mut description, rows as u64);
        match content {
            Content::Error(text) => {
                put(&mut description, 0);
                frames.push(text);
            }
            Content::Tensors(tensors) => {
                put(&mut description, tensors.len() as u64);
                for JoinedTensor { datatype, shape, data } in tensors {
                    put(&mut description, datatype.wire_code().into());
                    put(&mut description, shape.len() as u64);
                    for dim in shape {
                        put(&mut description, dim);
                    }
                    frames.push(data);
                }
            }
        }
    }
    if let Some(first) = frames.first_mut() {
        *first = description.into();
    }
    frames
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
