//! The answers of the service, made of the same values as those over HTTP.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::messages::{
    AllVersions, InferParameter, InferStatistics, InferTensor, InferTensorContents, ModelConfig,
    ModelDynamicBatching, ModelIndex, ModelInferResponse, ModelInput, ModelMetadataResponse,
    ModelOutput, ModelParameter, ModelResponseCache, ModelStatistics, ModelTransactionPolicy,
    ModelVersionPolicy, ParameterChoice, StatisticDuration, TensorMetadata,
};
use crate::answer::{Answer, OutputFault};
use crate::pages::{Config, IndexRow, InferenceStats, Metadata, Spent, Statistics};
use crate::signature::{OUTPUT, TensorInfo};
use clipper_domain::Datatype;

impl Answer<'_> {
    /// The message, whose output is at most `max_bytes`: raw where [`Self::form`] is binary, else
    /// in the list for its datatype.
    ///
    /// # Errors
    /// See [`OutputFault`].
    pub fn message(&self, max_bytes: usize) -> Result<ModelInferResponse, OutputFault> {
        let tensor = self.tensor(true, max_bytes)?;
        let dimensions = [self.rows.len(), tensor.each];
        let mut output = InferTensor {
            name: OUTPUT.to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            shape: dimensions.map(|n| i64::try_from(n).unwrap_or(i64::MAX)).to_vec(),
            ..InferTensor::default()
        };
        let raw_output_contents = if self.form.binary {
            vec![Bytes::from(tensor.data)]
        } else {
            output.contents = Some(contents(tensor.datatype, tensor.data.into()));
            Vec::new()
        };
        Ok(ModelInferResponse {
            model_name: self.model_name.to_owned(),
            model_version: self.model_version.unwrap_or_default().to_owned(),
            id: self.id.unwrap_or_default().to_owned(),
            parameters: self.parameters(),
            outputs: vec![output],
            raw_output_contents,
        })
    }

    fn parameters(&self) -> BTreeMap<String, InferParameter> {
        let mut parameters = BTreeMap::new();
        let Some(defaults) = &self.defaults else { return parameters };
        let is_default = !defaults.rows.is_empty();
        parameters.insert("default".to_owned(), ParameterChoice::Bool(is_default).into());
        if is_default {
            let texts = [
                ("default_rows", defaults.listed()),
                ("default_explanation", defaults.explanation.to_owned()),
            ];
            let texts =
                texts.map(|(name, text)| (name.to_owned(), ParameterChoice::Text(text).into()));
            parameters.extend(texts);
        }
        parameters
    }
}

/// Elements in the list for their datatype.
pub(super) fn contents(datatype: Datatype, data: Bytes) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match datatype {
        Datatype::Bool => contents.bool_contents = data.iter().map(|n| *n != 0).collect(),
        Datatype::Int8 => contents.int_contents = elements(&data, |n| i8::from_le_bytes(n).into()),
        Datatype::Int16 => {
            contents.int_contents = elements(&data, |n| i16::from_le_bytes(n).into());
        }
        Datatype::Int32 => contents.int_contents = elements(&data, i32::from_le_bytes),
        Datatype::Int64 => contents.int64_contents = elements(&data, i64::from_le_bytes),
        Datatype::Uint8 => {
            contents.uint_contents = elements(&data, |n| u8::from_le_bytes(n).into());
        }
        Datatype::Uint16 => {
            contents.uint_contents = elements(&data, |n| u16::from_le_bytes(n).into());
        }
        Datatype::Uint32 => contents.uint_contents = elements(&data, u32::from_le_bytes),
        Datatype::Uint64 => contents.uint64_contents = elements(&data, u64::from_le_bytes),
        Datatype::Fp32 => contents.fp32_contents = elements(&data, f32::from_le_bytes),
        Datatype::Fp64 => contents.fp64_contents = elements(&data, f64::from_le_bytes),
        // The 16-bit floats have no list, and are never given so.
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {
            contents.bytes_contents = texts(data);
        }
    }
    contents
}

fn elements<T, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|element| read(*element)).collect()
}

/// The texts behind their lengths.
fn texts(mut data: Bytes) -> Vec<Bytes> {
    let mut texts = Vec::new();
    while let Some(length) = data.first_chunk().map(|length| u32::from_le_bytes(*length)) {
        drop(data.split_to(4));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        texts.push(data.split_to(length.min(data.len())));
    }
    texts
}

impl From<TensorInfo<'_>> for TensorMetadata {
    fn from(info: TensorInfo<'_>) -> Self {
        Self {
            name: info.name.to_owned(),
            datatype: info.datatype.name().to_owned(),
            shape: info.shape,
        }
    }
}

impl From<Metadata<'_>> for ModelMetadataResponse {
    fn from(metadata: Metadata<'_>) -> Self {
        Self {
            name: metadata.name.to_owned(),
            versions: metadata.versions.into_iter().map(str::to_owned).collect(),
            platform: metadata.platform.to_owned(),
            inputs: metadata.inputs.into_iter().map(Into::into).collect(),
            outputs: metadata.outputs.into_iter().map(Into::into).collect(),
        }
    }
}

/// Of the enum `DataType`.
fn data_type(datatype: Datatype) -> i32 {
    match datatype {
        Datatype::Bool => 1,
        Datatype::Uint8 => 2,
        Datatype::Uint16 => 3,
        Datatype::Uint32 => 4,
        Datatype::Uint64 => 5,
        Datatype::Int8 => 6,
        Datatype::Int16 => 7,
        Datatype::Int32 => 8,
        Datatype::Int64 => 9,
        Datatype::Fp16 => 10,
        Datatype::Fp32 => 11,
        Datatype::Fp64 => 12,
        Datatype::Bytes => 13,
        Datatype::Bf16 => 14,
    }
}

impl From<Config<'_>> for ModelConfig {
    fn from(config: Config<'_>) -> Self {
        let whole = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let signature = config.signature.as_deref();
        let inputs = TensorInfo::inputs(config.input_type, signature);
        let outputs = TensorInfo::outputs(config.input_type, signature);
        let input = |info: TensorInfo<'_>| ModelInput {
            name: info.name.to_owned(),
            data_type: data_type(info.datatype),
            dims: info.dims().to_vec(),
        };
        let output = |info: TensorInfo<'_>| ModelOutput {
            name: info.name.to_owned(),
            data_type: data_type(info.datatype),
            dims: info.dims().to_vec(),
        };
        let sizes =
            config.batch_size.into_iter().map(|size| i32::try_from(size).unwrap_or(i32::MAX));
        let parameter = |(name, string_value): (&str, String)| {
            (name.to_owned(), ModelParameter { string_value })
        };
        Self {
            name: config.name.to_owned(),
            platform: config.platform.to_owned(),
            backend: config.platform.to_owned(),
            version_policy: Some(ModelVersionPolicy { all: Some(AllVersions {}) }),
            max_batch_size: whole(config.rows_max),
            input: inputs.into_iter().map(input).collect(),
            output: outputs.into_iter().map(output).collect(),
            dynamic_batching: Some(ModelDynamicBatching {
                preferred_batch_size: sizes.collect(),
                max_queue_delay_microseconds: 0,
            }),
            parameters: config.parameters().map(parameter).into(),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
            response_cache: Some(ModelResponseCache { enable: config.cache }),
        }
    }
}

impl From<Spent> for StatisticDuration {
    fn from(Spent { count, ns }: Spent) -> Self {
        Self { count, ns }
    }
}

impl From<InferenceStats> for InferStatistics {
    fn from(stats: InferenceStats) -> Self {
        Self {
            success: Some(stats.success.into()),
            fail: Some(stats.fail.into()),
            queue: Some(stats.queue.into()),
            compute_input: Some(stats.compute_input.into()),
            compute_infer: Some(stats.compute_infer.into()),
            compute_output: Some(stats.compute_output.into()),
            cache_hit: Some(stats.cache_hit.into()),
            cache_miss: Some(stats.cache_miss.into()),
        }
    }
}

impl From<Statistics<'_>> for ModelStatistics {
    fn from(statistics: Statistics<'_>) -> Self {
        Self {
            name: statistics.name.to_owned(),
            version: statistics.version.to_owned(),
            inference_count: statistics.inference_count,
            execution_count: statistics.execution_count,
            inference_stats: Some(statistics.inference_stats.into()),
        }
    }
}

impl From<IndexRow> for ModelIndex {
    fn from(row: IndexRow) -> Self {
        Self {
            name: row.name,
            version: row.version.unwrap_or_default(),
            state: row.state.to_owned(),
            reason: row.reason.to_owned(),
        }
    }
}
