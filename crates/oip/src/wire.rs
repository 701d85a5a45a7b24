//! A request as it is written. What has no meaning here is passed over; what could name millions of
//! things is bounded.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::bounded::{AtMost, OUTPUTS_MAX, RANK_MAX, TENSORS_MAX};
use crate::error::{Fault, InferError, shown};

#[derive(Debug, Deserialize)]
pub(crate) struct Request<'a> {
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Option<RequestParameters>,
    #[serde(borrow)]
    pub(crate) inputs: AtMost<Tensor<'a>, TENSORS_MAX>,
    #[serde(default, borrow)]
    pub(crate) outputs: Option<AtMost<Output<'a>, OUTPUTS_MAX>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RequestParameters {
    /// Microseconds.
    pub(crate) timeout: Option<u64>,
    /// 1 is the highest, 0 the usual one.
    pub(crate) priority: Option<u64>,
    pub(crate) binary_data_output: Option<bool>,
    /// Of this server: the default output is taken for an answer.
    pub(crate) default: Option<bool>,
    /// Of this server: what the output is given as.
    pub(crate) output_datatype: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tensor<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) shape: AtMost<u64, RANK_MAX>,
    #[serde(borrow)]
    pub(crate) datatype: Cow<'a, str>,
    #[serde(default)]
    pub(crate) parameters: Option<TensorParameters>,
    #[serde(default, borrow)]
    pub(crate) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct TensorParameters {
    pub(crate) binary_data_size: Option<u64>,
    pub(crate) shared_memory_region: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Output<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(default)]
    pub(crate) parameters: Option<OutputParameters>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct OutputParameters {
    pub(crate) binary_data: Option<bool>,
    pub(crate) classification: Option<u64>,
    pub(crate) shared_memory_region: Option<IgnoredAny>,
    /// Of this server, as `output_datatype` of the request.
    pub(crate) datatype: Option<String>,
}

/// Reads the JSON of a request.
pub(crate) fn read(json: &[u8]) -> Result<Request<'_>, InferError> {
    let fault = |field: &str, error: &serde_json::Error| {
        InferError::new(field, Fault::Json(shown(&error.to_string())))
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let request = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // Both stand for no field: none has been begun, or its name is cut.
        let field = if path == "." || path == "?" { "request".to_owned() } else { shown(&path) };
        fault(&field, error.inner())
    })?;
    deserializer.end().map_err(|error| fault("request", &error))?;
    Ok(request)
}
