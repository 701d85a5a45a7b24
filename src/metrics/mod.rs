//! The metrics of the process, and the handles that hot paths keep.
//!
//! [`table`] declares every name, kind, unit and label. Writers touch atomics only ([`handles`]);
//! both views, [`clipper_json`] and [`prometheus_text`], are computed when somebody asks.

pub mod clipper_json;
mod exemplars;
mod family;
pub mod file_sd;
pub mod handles;
pub mod histogram;
pub mod http;
pub mod look;
pub mod meter;
pub mod open_metrics;
pub mod policy;
mod policy_states;
pub mod prometheus_text;
mod quotas;
mod recent;
pub mod registry;
pub mod rollout;
mod rpc_end;
pub mod table;
mod tls;
mod traces;
mod watcher;

pub use clipper_domain::Outcome;
pub use clipper_json::{clipper_json_body, write_clipper_json};
pub use exemplars::{Exemplar, Exemplars};
pub use handles::{AppMetrics, ModelCounts, ModelMetrics};
pub use open_metrics::write_open_metrics;
pub use policy::{ChoiceMetrics, FeedbackEnd, ModelWeights, PolicyMetrics};
pub use policy_states::{PolicyStateMetrics, Unsaved};
pub use prometheus_text::{FlatNames, prometheus_text_body, write_prometheus_text};
pub use registry::{Metrics, keep_ticking};
pub use rpc_end::RpcEnd;
pub use tls::TlsMetrics;
pub use traces::{SpanEnd, TraceMetrics};
pub use watcher::RedisMetrics;
