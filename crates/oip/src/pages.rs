//! What the server says of itself and of its models.

use std::sync::Arc;

use clipper_domain::{InputType, Signature};
use serde::{Deserialize, Serialize};

use crate::signature::TensorInfo;

/// What `GET /v2` lists: the parts of the protocol that are served.
pub const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "model_configuration", "parameters", "statistics"];

/// The metadata of a model, or of an application.
#[derive(Debug, Serialize)]
pub struct Metadata<'a> {
    /// As it was asked for.
    pub name: &'a str,
    /// Those that can be asked for.
    pub versions: Vec<&'a str>,
    pub platform: &'a str,
    pub inputs: Vec<TensorInfo<'a>>,
    pub outputs: Vec<TensorInfo<'a>>,
}

/// What the configuration of a model says, in Triton's words.
#[derive(Debug, Clone)]
pub struct Config<'a> {
    /// As it was asked for.
    pub name: &'a str,
    pub platform: &'a str,
    pub input_type: InputType,
    /// Of type tensors, if it is known.
    pub signature: Option<Arc<Signature>>,
    /// Rows in one request.
    pub rows_max: usize,
    /// Queries that a replica is sent at once; `None` where the server chooses.
    pub batch_size: Option<u32>,
    /// Whether equal queries may be answered by what an earlier one was answered.
    pub cache: bool,
    /// Microseconds.
    pub latency_slo: u32,
}

impl Config<'_> {
    #[must_use]
    pub fn page(&self) -> serde_json::Value {
        let tensor = |info: TensorInfo<'_>| {
            serde_json::json!({
                "name": info.name,
                "data_type": info.datatype.config_name(),
                "dims": info.dims(),
            })
        };
        let signature = self.signature.as_deref();
        let inputs = TensorInfo::inputs(self.input_type, signature).into_iter().map(tensor);
        let outputs = TensorInfo::outputs(self.input_type, signature).into_iter().map(tensor);
        serde_json::json!({
            "name": self.name,
            "platform": self.platform,
            "backend": self.platform,
            "version_policy": { "all": {} },
            "max_batch_size": self.rows_max,
            "input": inputs.collect::<Vec<_>>(),
            "output": outputs.collect::<Vec<_>>(),
            "dynamic_batching": {
                "preferred_batch_size": self.batch_size.into_iter().collect::<Vec<_>>(),
                "max_queue_delay_microseconds": 0,
            },
            "response_cache": { "enable": self.cache },
            "model_transaction_policy": { "decoupled": false },
            "parameters": self
                .parameters()
                .map(|(name, value)| {
                    (name.to_owned(), serde_json::json!({ "string_value": value }))
                })
                .into_iter()
                .collect::<serde_json::Map<_, _>>(),
        })
    }

    /// What Triton has no words for.
    pub(crate) fn parameters(&self) -> [(&'static str, String); 2] {
        [
            ("input_type", self.input_type.long_name().to_owned()),
            ("latency_slo_micros", self.latency_slo.to_string()),
        ]
    }
}

/// Whether a model is served.
#[derive(Debug, Serialize)]
pub struct Named<'a> {
    /// As it was asked for.
    pub name: &'a str,
    /// Whether it is served.
    pub ready: bool,
}

/// How often something happened, and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    pub count: u64,
    pub ns: u64,
}

impl Spent {
    /// From microseconds.
    #[must_use]
    pub fn micros(count: u64, micros: u64) -> Self {
        Self { count, ns: micros.saturating_mul(1_000) }
    }
}

/// What a model version has done since it was registered. Rows are counted, not requests.
#[derive(Debug, Serialize)]
pub struct Statistics<'a> {
    /// As it was asked for.
    pub name: &'a str,
    pub version: &'a str,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Batches that replicas answered.
    pub execution_count: u64,
    /// Where the time went.
    pub inference_stats: InferenceStats,
    /// Not kept by size.
    pub batch_stats: [(); 0],
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InferenceStats {
    /// Rows with an output, from their arrival in the queue.
    pub success: Spent,
    /// Rows that the model answered with an error.
    pub fail: Spent,
    /// Before they were sent to a replica.
    pub queue: Spent,
    /// Not told apart from computing.
    pub compute_input: Spent,
    /// From sending to the answer.
    pub compute_infer: Spent,
    /// Not told apart from computing.
    pub compute_output: Spent,
    /// Answered from the prediction cache.
    pub cache_hit: Spent,
    /// Not answered from it.
    pub cache_miss: Spent,
}

/// A row of the index.
#[derive(Debug, Serialize)]
pub struct IndexRow {
    /// Of an application or a model.
    pub name: String,
    /// Which, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: &'static str,
}

impl IndexRow {
    /// A row that is ready unless there is a reason why not.
    #[must_use]
    pub fn new(name: &str, version: Option<&str>, reason: &'static str) -> Self {
        let state = if reason.is_empty() { "READY" } else { "UNAVAILABLE" };
        Self { name: name.to_owned(), version: version.map(str::to_owned), state, reason }
    }
}

/// What may be asked of the index.
#[derive(Debug, Default, Deserialize)]
pub struct IndexRequest {
    /// Only what is ready.
    #[serde(default)]
    pub ready: Option<bool>,
}
