//! The questions to the server, over HTTP.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;

use super::Options;
use super::scrape::Samples;
use clipper_clock::{self as clock, Instant};

/// Patience with one answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer read; a server with thousands of applications and models writes a tenth of it.
const ANSWER_MAX_BYTES: u64 = 64 << 20;

/// An application, as `get_all_applications` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its objective, microseconds.
    pub latency_slo_micros: u64,
    /// The models that answer it.
    pub linked_models: Vec<String>,
}

/// A model version, as `get_all_models` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Model {
    /// The model.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// Whether applications are answered by this version.
    pub is_current_version: bool,
}

/// A replica, as `get_all_containers` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replica {
    /// The model.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// Its number.
    pub model_replica_id: u32,
}

/// What the management frontend tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// All applications.
    pub applications: Vec<Application>,
    /// All model versions.
    pub models: Vec<Model>,
    /// All connected replicas, those of other frontends included.
    pub replicas: Vec<Replica>,
}

/// Everything that one look at the server gave.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// When.
    pub at: Instant,
    /// When, by the wall clock, Unix milliseconds.
    pub unix_ms: u64,
    /// The metrics.
    pub samples: Samples,
    /// The definitions, or why they cannot be had: the metrics alone still make most of the rows.
    pub definitions: Result<Definitions, String>,
}

/// Asks one server.
#[derive(Debug, Clone)]
pub struct Fetcher {
    agent: Agent,
    metrics: String,
    admin: String,
}

impl Fetcher {
    /// A client that has not asked yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None);
        Self {
            agent: config.build().into(),
            metrics: format!("{}/metrics", options.query_url.trim_end_matches('/')),
            admin: format!("{}/admin", options.management_url.trim_end_matches('/')),
        }
    }

    /// One look at the server.
    ///
    /// # Errors
    /// Why its metrics cannot be had.
    pub fn fetch(&self) -> Result<Fetched, String> {
        let text = self.metrics()?;
        let at = clock::now();
        let samples = Samples::parse(&text);
        let definitions = self.definitions();
        Ok(Fetched { at, unix_ms: clock::unix_millis(), samples, definitions })
    }

    fn metrics(&self) -> Result<String, String> {
        let question = self.agent.get(&self.metrics).header("Accept", "text/plain");
        answer(&self.metrics, question.call())
    }

    fn definitions(&self) -> Result<Definitions, String> {
        Ok(Definitions {
            applications: self.list("get_all_applications")?,
            models: self.list("get_all_models")?,
            replicas: self.list("get_all_containers")?,
        })
    }

    fn list<T: DeserializeOwned>(&self, operation: &str) -> Result<Vec<T>, String> {
        let url = format!("{}/{operation}", self.admin);
        let question = self.agent.post(&url).header("Content-Type", "application/json");
        let text = answer(&url, question.send("{\"verbose\": true}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{url}: {error}"))
    }
}

/// The text of an answer with status 200.
fn answer(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String, String> {
    let explain = |error: ureq::Error| format!("{url}: {error}");
    let mut answer = answer.map_err(explain)?;
    if answer.status() != 200 {
        return Err(format!("{url}: status {}", answer.status()));
    }
    answer.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_string().map_err(explain)
}
