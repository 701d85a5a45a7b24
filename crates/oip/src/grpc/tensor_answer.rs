//! Rows of tensors into a message.

use bytes::Bytes;

use super::answer::contents;
use super::messages::{InferTensor, ModelInferResponse};
use crate::answer::OutputFault;
use crate::tensor_answer::TensorAnswer;
use clipper_domain::Datatype;

impl TensorAnswer<'_> {
    /// The message, whose outputs are at most `max_bytes`: raw where they are wanted binary, or
    /// have no list, else in the lists for their datatypes.
    ///
    /// # Errors
    /// See [`OutputFault`].
    pub fn message(&self, max_bytes: usize) -> Result<ModelInferResponse, OutputFault> {
        let mut columns = Vec::with_capacity(self.form.outputs.len());
        let mut sum = 0_usize;
        for wanted in &self.form.outputs {
            let column = self.column(*wanted)?;
            let data = column.joined();
            sum = sum.saturating_add(data.len());
            if sum > max_bytes {
                return Err(OutputFault::TooLong(max_bytes));
            }
            columns.push((column.spec, column.shape, data));
        }
        // All of them, or none: the protocol counts raw data by the outputs.
        let is_raw = self.form.outputs.iter().any(|output| output.binary)
            || columns.iter().any(|(spec, ..)| is_binary_only(spec.datatype));
        let mut raw_output_contents: Vec<Bytes> = Vec::new();
        let mut outputs = Vec::with_capacity(columns.len());
        for (spec, shape, data) in columns {
            let dimension = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let mut output = InferTensor {
                name: spec.name.clone(),
                datatype: spec.datatype.name().to_owned(),
                shape: shape.into_iter().map(dimension).collect(),
                ..InferTensor::default()
            };
            if is_raw {
                raw_output_contents.push(data);
            } else {
                output.contents = Some(contents(spec.datatype, data));
            }
            outputs.push(output);
        }
        Ok(ModelInferResponse {
            model_name: self.model_name.to_owned(),
            model_version: self.model_version.unwrap_or_default().to_owned(),
            id: self.id.unwrap_or_default().to_owned(),
            outputs,
            raw_output_contents,
            ..ModelInferResponse::default()
        })
    }
}

fn is_binary_only(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16)
}
