//! What pages are told, as JSON has it. Times are Unix milliseconds, `null` is what is not known.

use std::collections::BTreeMap;

use clipper_domain::admin::{AppDescription, ModelDescription};
use clipper_domain::rollout::progress::RolloutDescription;
use serde::Serialize;

use super::attention::Notice;

#[derive(Debug, Serialize)]
pub struct ServerRow {
    pub version: &'static str,
    pub started_ms: u64,
    /// Answered queries a second.
    pub per_second: f64,
    pub container_connections: u64,
    /// `null` without one.
    pub redis_connected: Option<bool>,
    /// The last change.
    pub last_event: u64,
}

/// The first page.
#[derive(Debug, Serialize)]
pub struct Overview {
    pub at_ms: u64,
    pub server: ServerRow,
    /// How many there are; the lists have the first of them.
    pub applications: usize,
    pub models: usize,
    /// How many need attention.
    pub needing: usize,
    pub app_rows: Vec<AppRow>,
    pub model_rows: Vec<ModelRow>,
}

#[derive(Debug, Serialize)]
pub struct AppRow {
    pub name: String,
    pub objective_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    pub models: Vec<String>,
    /// Answers a second since the last look.
    pub per_second: f64,
    /// The time that the rest is about, s.
    pub window_s: f64,
    pub answered: u64,
    /// Share of the answers that were predictions in time.
    pub attainment: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Default outputs by their reason.
    pub defaults: BTreeMap<&'static str, u64>,
    pub rejected: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutDescription>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

#[derive(Debug, Serialize)]
pub struct ModelRow {
    pub model: String,
    pub version: String,
    pub current: bool,
    pub replicas: u64,
    /// Processes that this server keeps of it.
    pub kept: usize,
    pub queue: u64,
    /// Queries answered by replicas a second since the last look.
    pub per_second: f64,
    pub batch_mean: Option<f64>,
    pub cache_hit_share: Option<f64>,
    pub errors: u64,
    pub retried: u64,
    pub hedged: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// A model of an application.
#[derive(Debug, Serialize)]
pub struct LinkedModel {
    #[serde(flatten)]
    pub row: ModelRow,
    pub weight: Option<f64>,
    pub asked: Option<u64>,
    pub left_out: Option<u64>,
    /// Mean, of what feedback has judged.
    pub loss: Option<f64>,
    pub wait_p99_ms: Option<f64>,
    pub batch_p50_ms: Option<f64>,
    pub batch_p99_ms: Option<f64>,
    /// Sizes of the last batches, and how many there were of each.
    pub batch_sizes: Vec<(u64, usize)>,
}

/// The page of an application.
#[derive(Debug, Serialize)]
pub struct AppPicture {
    pub at_ms: u64,
    pub last_event: u64,
    #[serde(flatten)]
    pub row: AppRow,
    pub description: AppDescription,
    pub linked: Vec<LinkedModel>,
    /// What its models say that they take, where they are of type tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<std::sync::Arc<clipper_domain::Signature>>,
    /// Whether its history is kept.
    pub has_history: bool,
}

#[derive(Debug, Serialize)]
pub struct ReplicaRow {
    pub replica: u32,
    /// Whether it is connected to this server, or to another one that shares the metadata.
    pub here: bool,
    pub batches: Option<u64>,
    pub queries: Option<u64>,
    /// On batches since its start, ms.
    pub busy_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct ChildRow {
    pub number: u32,
    pub state: &'static str,
    pub starts: u64,
    pub pid: Option<i32>,
    pub failures: u32,
    pub last_end_ms: Option<u64>,
    pub last_end: Option<String>,
    /// When, and what.
    pub lines: Vec<(u64, String)>,
}

/// A time that a batch of this size is expected to take, and that 99 of 100 stay within.
#[derive(Debug, Serialize)]
pub struct CurvePoint {
    pub queries: usize,
    pub mean_ms: f64,
    pub p99_ms: f64,
}

/// The page of a model version.
#[derive(Debug, Serialize)]
pub struct ModelPicture {
    pub at_ms: u64,
    pub last_event: u64,
    #[serde(flatten)]
    pub row: ModelRow,
    pub description: ModelDescription,
    pub applications: Vec<String>,
    pub versions: Vec<ModelRow>,
    pub replica_rows: Vec<ReplicaRow>,
    pub children: Vec<ChildRow>,
    pub wait_p99_ms: Option<f64>,
    pub batch_p50_ms: Option<f64>,
    pub batch_p99_ms: Option<f64>,
    /// Two points of a line.
    pub curve: Vec<CurvePoint>,
    /// Sizes and ms of the last batches.
    pub batches: Vec<(u64, f64)>,
}

/// The page of what is not there.
#[derive(Debug, Serialize)]
pub struct Gone {
    pub at_ms: u64,
    pub gone: bool,
}

/// The history of an application.
#[derive(Debug, Serialize)]
pub struct AppHistory {
    pub step_ms: u64,
    /// The names of the outcomes, in the order of the numbers of a point.
    pub outcomes: Vec<&'static str>,
    pub points: Vec<HistoryPoint>,
}

#[derive(Debug, Serialize)]
pub struct HistoryPoint {
    pub end_ms: u64,
    pub outcomes: Vec<u32>,
    pub rejected: u32,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}
