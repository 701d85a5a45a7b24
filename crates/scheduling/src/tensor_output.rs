//! A row of tensors as a model's output.

use std::sync::{Arc, OnceLock};

use clipper_domain::Signature;
use clipper_tensors::{put_json, row};

/// The tensors that a model has answered for one query.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorRow {
    /// Names and what they are.
    pub signature: Arc<Signature>,
    /// In the form of `clipper_tensors::row`.
    pub bytes: Arc<[u8]>,
}

impl TensorRow {
    /// An object with a member for each tensor.
    fn json(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        let tensors = row::read(&self.bytes).map(|(_, tensors)| tensors).unwrap_or_default();
        for (at, (spec, tensor)) in self.signature.outputs().iter().zip(tensors).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            // Writing to memory does not fail.
            drop(serde_json::to_writer(&mut out, &spec.name));
            out.push(b':');
            let dims: Vec<u64> = tensor.dims().collect();
            put_json(tensor.datatype, &dims, tensor.data, &mut out);
        }
        out.push(b'}');
        out
    }
}

/// A row and, once it has been asked for, its JSON. A copy has no JSON, so that none stays in the
/// cache, which counts the row alone.
#[derive(Debug)]
pub(super) struct LazyRow {
    pub(super) row: Arc<TensorRow>,
    json: OnceLock<Box<[u8]>>,
}

impl LazyRow {
    pub(super) fn new(row: TensorRow) -> Self {
        Self { row: Arc::new(row), json: OnceLock::new() }
    }

    pub(super) fn json(&self) -> &[u8] {
        self.json.get_or_init(|| self.row.json().into())
    }
}

impl Clone for LazyRow {
    fn clone(&self) -> Self {
        Self { row: Arc::clone(&self.row), json: OnceLock::new() }
    }
}

impl PartialEq for LazyRow {
    fn eq(&self, other: &Self) -> bool {
        self.row == other.row
    }
}

impl Eq for LazyRow {}
