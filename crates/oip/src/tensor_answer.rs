//! Rows of tensors into the body of an answer.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clipper_domain::TensorSpec;
use clipper_tensors::row::{self, ByLayout};
use clipper_tensors::write::put_flat;

use crate::answer::{Head, OutputFault};
use crate::form::{TensorForm, WantedOutput};
use clipper_domain::Datatype;

/// What of a row is not copied but sent from where it is, at least.
const BY_REFERENCE_BYTES: usize = 16 << 10;

/// The answer to an infer request of a model of type tensors.
#[derive(Debug)]
pub struct TensorAnswer<'a> {
    /// As it was asked for.
    pub model_name: &'a str,
    /// Which version answered.
    pub model_version: Option<&'a str>,
    /// The request's.
    pub id: Option<&'a str>,
    /// What the model said of each row, in the form of `clipper_tensors::row`.
    pub rows: &'a [&'a Arc<[u8]>],
    pub form: &'a TensorForm,
}

/// A body: JSON, then what is binary.
#[derive(Debug)]
pub struct TensorParts {
    pub json: Vec<u8>,
    /// In the order of the outputs; empty if none of them is binary.
    pub binary: Vec<Bytes>,
    /// Whether there is a binary part, which may have no bytes.
    pub has_binary: bool,
}

impl TensorParts {
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.json.len() + self.binary.iter().map(Bytes::len).sum::<usize>()
    }
}

/// One output of all rows.
pub(crate) struct Column<'a> {
    pub(crate) spec: &'a TensorSpec,
    /// The rows first.
    pub(crate) shape: Vec<u64>,
    /// Of each row its part.
    parts: Vec<(&'a Arc<[u8]>, Range<usize>)>,
    bytes: usize,
}

impl Column<'_> {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|(row, range)| row.get(range.clone()).unwrap_or_default())
    }

    /// All elements in one piece: that of the row, where there is but one.
    pub(crate) fn joined(&self) -> Bytes {
        if let [(row, range)] = &self.parts[..] {
            return Bytes::from_owner(Arc::clone(row)).slice(range.clone());
        }
        self.slices().collect::<Vec<_>>().concat().into()
    }

    /// Appends the elements: large parts as they are, small ones copied together.
    fn put(&self, chunks: &mut Vec<Bytes>, small: &mut BytesMut) {
        for ((row, range), slice) in self.parts.iter().zip(self.slices()) {
            if slice.len() < BY_REFERENCE_BYTES {
                small.extend_from_slice(slice);
                continue;
            }
            if !small.is_empty() {
                chunks.push(small.split().freeze());
            }
            chunks.push(Bytes::from_owner(Arc::clone(row)).slice(range.clone()));
        }
    }
}

impl TensorAnswer<'_> {
    /// The body, of at most `max_bytes`.
    ///
    /// # Errors
    /// See [`OutputFault`].
    pub fn write(&self, max_bytes: usize) -> Result<TensorParts, OutputFault> {
        let Self { model_name, model_version, id, .. } = *self;
        let head = Head { model_name, model_version, id, parameters: None };
        let mut json = serde_json::to_vec(&head).unwrap_or_default();
        // The head is an object that goes on.
        json.pop();
        json.extend_from_slice(b",\"outputs\":[");
        let (mut binary, mut small, mut has_binary) = (Vec::new(), BytesMut::new(), false);
        let mut sum = 0_usize;
        for (index, wanted) in self.form.outputs.iter().enumerate() {
            let column = self.column(*wanted)?;
            if index > 0 {
                json.push(b',');
            }
            put_description(&column, &mut json);
            if wanted.binary {
                let size = column.bytes;
                let size = format!("\"parameters\":{{\"binary_data_size\":{size}}}}}");
                json.extend_from_slice(size.as_bytes());
                column.put(&mut binary, &mut small);
                has_binary = true;
                sum = sum.saturating_add(column.bytes);
            } else {
                put_data(&column, &mut json, max_bytes)?;
            }
            if json.len().saturating_add(sum) > max_bytes {
                return Err(OutputFault::TooLong(max_bytes));
            }
        }
        json.extend_from_slice(b"]}");
        if !small.is_empty() {
            binary.push(small.freeze());
        }
        Ok(TensorParts { json, binary, has_binary })
    }

    /// One output of all rows; each must have the same shape.
    pub(crate) fn column(&self, wanted: WantedOutput) -> Result<Column<'_>, OutputFault> {
        let outputs = self.form.signature.outputs();
        let broken = OutputFault::NoTensors;
        let spec = outputs.get(wanted.at).ok_or(broken)?;
        let parts = Vec::with_capacity(self.rows.len());
        let mut column = Column { spec, shape: Vec::new(), parts, bytes: 0 };
        let mut place_of = ByLayout::default();
        for (index, row) in self.rows.iter().enumerate() {
            let place = place_of.of(row, |layout| {
                let tensor = layout.tensors.get(wanted.at).filter(|tensor| tensor.is_of(spec));
                let tensor = tensor.ok_or(broken)?;
                let dims = std::iter::once(self.rows.len() as u64).chain(tensor.dims());
                if column.shape.is_empty() {
                    column.shape = dims.collect();
                } else if !dims.eq(column.shape.iter().copied()) {
                    return Err(OutputFault::Ragged { row: index });
                }
                layout.places().nth(wanted.at).ok_or(broken)
            });
            let place = place.ok_or(broken)?.clone()?;
            column.bytes = column.bytes.saturating_add(place.len());
            column.parts.push((row, place));
        }
        Ok(column)
    }
}

fn put_description(column: &Column<'_>, json: &mut Vec<u8>) {
    json.extend_from_slice(b"{\"name\":");
    // Writing to memory does not fail.
    drop(serde_json::to_writer(&mut *json, &column.spec.name));
    let datatype = column.spec.datatype.name();
    json.extend_from_slice(format!(",\"datatype\":\"{datatype}\",\"shape\":").as_bytes());
    drop(serde_json::to_writer(&mut *json, &column.shape));
    json.push(b',');
}

fn put_data(column: &Column<'_>, json: &mut Vec<u8>, max_bytes: usize) -> Result<(), OutputFault> {
    json.extend_from_slice(b"\"data\":[");
    let mut is_first = true;
    for (row, slice) in column.slices().enumerate() {
        if column.spec.datatype == Datatype::Bytes && !row::are_texts(slice) {
            return Err(OutputFault::NotText { row });
        }
        put_flat(column.spec.datatype, slice, is_first, json);
        is_first &= slice.is_empty();
        if json.len() > max_bytes {
            return Err(OutputFault::TooLong(max_bytes));
        }
    }
    json.extend_from_slice(b"]}");
    Ok(())
}
