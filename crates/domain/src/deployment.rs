//! What is deployed in one step: a model version, its replicas, its application.

use serde::{Deserialize, Serialize};

use crate::app::{AppSpec, AppUpdate};
use crate::ids::AppName;
use crate::model::ModelSpec;

/// What computes an ONNX model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnnxEngine {
    /// ONNX Runtime where its library is found, else the built-in engine.
    #[default]
    Auto,
    /// ONNX Runtime or none.
    Ort,
    /// The engine in the binary.
    Builtin,
}

impl OnnxEngine {
    /// All names, as settings and flags take them.
    pub const NAMES: [&str; 3] = ["auto", "ort", "builtin"];

    /// The name in settings and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ort => "ort",
            Self::Builtin => "builtin",
        }
    }

    /// The engine of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::Ort, Self::Builtin].into_iter().find(|engine| engine.name() == name)
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// What the server runs as a replica. Paths of a deployed version are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "runtime", rename_all = "lowercase", deny_unknown_fields)]
pub enum Runtime {
    /// An ONNX file, by this binary.
    Onnx {
        path: String,
        #[serde(default, skip_serializing_if = "OnnxEngine::is_auto")]
        engine: OnnxEngine,
        /// ONNX Runtime's library; none = looked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        library: Option<String>,
        /// Threads that compute a batch; none = one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
    },
    Python {
        /// `FILE.py:function`.
        function: String,
        python: String,
    },
    /// Anything that speaks the protocol.
    Command { command: Vec<String> },
}

impl Runtime {
    /// `onnx`, `python` or `command`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Onnx { .. } => "onnx",
            Self::Python { .. } => "python",
            Self::Command { .. } => "command",
        }
    }

    /// What it serves, as it was asked for.
    #[must_use]
    pub fn source(&self) -> String {
        match self {
            Self::Onnx { path, .. } => path.clone(),
            Self::Python { function, .. } => function.clone(),
            Self::Command { command } => command.join(" "),
        }
    }
}

/// The replicas of a model version that the server keeps alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// What each of them is.
    pub runtime: Runtime,
    pub count: u32,
}

/// A model version with its replicas, linked to an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub model: ModelSpec,
    pub replicas: Replicas,
    /// The application that queries it.
    pub app: AppName,
    /// How to register that application if it is not there.
    pub new_app: Option<AppSpec>,
    /// How to change that application if it is there.
    pub app_update: Option<AppUpdate>,
    /// Whether the version becomes the current one, or waits for that.
    pub make_current: bool,
    /// What becomes of the replicas of earlier versions.
    pub old_replicas: OldReplicas,
}

/// Which replicas of earlier versions go on when a new version becomes current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OldReplicas {
    /// Those of the version that was current until then: going back to it costs nothing.
    Previous,
    /// Those of all versions.
    All,
}
