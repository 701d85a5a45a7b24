//! `[[application]]` and `[[model]]`: what is registered at start if it is missing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::policy::PolicyConfig;
use super::process::ProcessConfig;
use clipper_domain::limits;
use clipper_domain::{
    InvalidName, Limits, ModelId, ModelName, ModelVersion, OnModelError, OnnxEngine, Replicas,
    Runtime, Signature,
};

/// `[[application]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationConfig {
    pub name: String,
    /// bytes, integers, floats, doubles, strings or tensors.
    pub input_type: String,
    /// Sent when no model answers in time.
    pub default_output: String,
    /// The objective, microseconds.
    pub latency_slo_micros: i64,
    /// What a caller gets for a query that the model answers with an error.
    #[serde(default)]
    pub on_model_error: OnModelError,
    /// Whether its queries may be answered from the prediction cache.
    #[serde(default = "yes")]
    pub cache: bool,
    /// Its part of a model that it shares with others.
    #[serde(default = "one")]
    pub weight: u32,
    /// The model it queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// More models, for a policy that chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Models that it queries once they have a current version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_models: Vec<String>,
    /// How much its clients may ask for, all together.
    #[serde(
        default,
        deserialize_with = "limits::as_written",
        skip_serializing_if = "Limits::is_none"
    )]
    pub limits: Limits,
    /// Which of them are asked; absent = the one model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyConfig>,
}

/// `[[model]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub name: String,
    pub version: String,
    /// bytes, integers, floats, doubles, strings or tensors.
    pub input_type: String,
    /// Queries a message; -1 = adaptive.
    #[serde(default = "adaptive")]
    pub batch_size: i64,
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether its outputs may be kept in the prediction cache.
    #[serde(default = "yes")]
    pub cache: bool,
    /// Whether queries go to this version; absent = to the last new one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// The image or runtime that serves it; absent = as its container says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Where its data came from; absent = as its container says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_data_path: Option<String>,
    /// Of type tensors: its inputs and outputs; absent = as its containers say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// How its replicas are started; absent = they connect by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerConfig>,
    /// What each of their processes may use; absent = as `[containers]` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("model name: {0}")]
    Name(InvalidName),
    #[error("model version: {0}")]
    Version(InvalidName),
}

impl ModelConfig {
    /// Its id.
    ///
    /// # Errors
    /// A name that cannot be one.
    pub fn id(&self) -> Result<ModelId, InvalidId> {
        let name = ModelName::parse(&self.name).map_err(InvalidId::Name)?;
        let version = ModelVersion::parse(&self.version).map_err(InvalidId::Version)?;
        Ok(ModelId::new(name, version))
    }
}

fn yes() -> bool {
    true
}

fn adaptive() -> i64 {
    -1
}

/// `[model.container]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "runtime", rename_all = "lowercase", deny_unknown_fields)]
pub enum ContainerConfig {
    /// This binary again: `clipper container onnx`.
    Onnx {
        /// The model file; relative to the config file's folder.
        path: String,
        #[serde(default)]
        engine: OnnxEngine,
        /// ONNX Runtime's library; relative likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        library: Option<String>,
        /// Threads that compute a batch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
    /// A Python function: a list of inputs in, a list of outputs out.
    Python {
        /// `FILE.py:function`; relative to the config file's folder.
        function: String,
        #[serde(default = "python3")]
        python: String,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
    /// Anything that speaks the protocol.
    Command {
        command: Vec<String>,
        /// Processes to keep alive.
        #[serde(default = "one")]
        replicas: u32,
    },
}

impl ContainerConfig {
    /// Its files, and programs with a slash, where they are if they are in `folder`.
    pub fn make_absolute(&mut self, folder: &Path) {
        let absolute = |text: &mut String| *text = folder.join(&*text).display().to_string();
        match self {
            Self::Onnx { path, library, .. } => {
                absolute(path);
                library.iter_mut().for_each(absolute);
            }
            Self::Python { function, python, .. } => {
                absolute(function);
                if python.contains('/') {
                    absolute(python);
                }
            }
            Self::Command { command, .. } => {
                command
                    .iter_mut()
                    .take(1)
                    .filter(|program| program.contains('/'))
                    .for_each(absolute);
            }
        }
    }

    /// Keeps these replicas.
    #[must_use]
    pub fn of(replicas: &Replicas) -> Self {
        let count = replicas.count;
        match replicas.runtime.clone() {
            Runtime::Onnx { path, engine, library, threads } => {
                Self::Onnx { path, engine, library, threads, replicas: count }
            }
            Runtime::Python { function, python } => {
                Self::Python { function, python, replicas: count }
            }
            Runtime::Command { command } => Self::Command { command, replicas: count },
        }
    }

    /// What each of its processes is.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        match self.clone() {
            Self::Onnx { path, engine, library, threads, .. } => {
                Runtime::Onnx { path, engine, library, threads }
            }
            Self::Python { function, python, .. } => Runtime::Python { function, python },
            Self::Command { command, .. } => Runtime::Command { command },
        }
    }

    /// Processes to keep alive.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        match self {
            Self::Onnx { replicas, .. }
            | Self::Python { replicas, .. }
            | Self::Command { replicas, .. } => *replicas,
        }
    }
}

fn one() -> u32 {
    1
}

fn python3() -> String {
    "python3".to_owned()
}
