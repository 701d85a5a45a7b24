//! The words of the project, as values: no IO, no clock, no actors.
//!
//! - **application**: what a client queries: an input type, a latency objective (SLO), a default
//!   output.
//! - **model**: a name with versions; one version is *current*. An application is *linked* to a
//!   model.
//! - **replica**: one connected container process that serves one model version.
//! - **query**: one input on its way to one output; a request carries one query or a batch of them.
//!
//! Text from outside becomes one of these types at the edge and is never a raw string afterwards.

pub mod access;
pub mod admin;
pub mod app;
pub mod asker;
pub mod command;
pub mod datatype;
pub mod deploy_model;
pub mod deployment;
pub mod difference;
pub mod explain;
pub mod history;
pub mod ids;
pub mod limits;
pub mod line_limit;
pub mod model;
pub mod outcome;
pub mod plan;
pub mod printable;
pub mod request_id;
pub mod rollout;
pub mod shown_url;
pub mod signature;
pub mod tensor;
pub mod trace_context;

pub use access::{AccessKey, Action, KeyTable, Pattern, Role, SecretHash};
pub use app::{
    AppSpec, AppUpdate, DEFAULT_OUTPUT_MAX_BYTES, DEFAULT_POLICY, LatencySlo, OnModelError,
    PolicyParameters, PolicySpec, Weight, default_output,
};
pub use asker::{Asker, Note};
pub use command::{Command, CommandError, Plan, Step};
pub use datatype::Datatype;
pub use deployment::{Deployment, OldReplicas, OnnxEngine, Replicas, Runtime};
pub use ids::{AppName, InvalidName, KeyName, Label, ModelId, ModelName, ModelVersion, ReplicaId};
pub use limits::Limits;
pub use model::{BatchSize, ModelSpec, ModelUpdate};
pub use outcome::{GONE, Outcome, UNAUTHORIZED};
pub use request_id::RequestId;
pub use signature::{InvalidSignature, Signature, TensorSpec};
pub use tensor::{Input, InputType};
pub use trace_context::{SpanId, TraceContext, TraceId, TraceParent};
