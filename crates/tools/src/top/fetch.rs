//! The questions to the server, over HTTP.

use std::time::Duration;

use super::error::TopError;
use super::fetch_error::FetchError;
use super::options::TopOptions;
use super::scrape::Samples;
use crate::admin::{Client, ClientError};
use clipper_clock::{self as clock, Instant};
use clipper_domain::admin::{AppDescription, ModelDescription, ReplicaDescription};

/// Patience with one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What the management frontend tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    pub applications: Vec<AppDescription>,
    pub models: Vec<ModelDescription>,
    /// All connected replicas, those of other frontends included.
    pub replicas: Vec<ReplicaDescription>,
}

/// Everything that one look at the server gave.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub at: Instant,
    /// When, by the wall clock, Unix milliseconds.
    pub unix_ms: u64,
    pub samples: Samples,
    /// The definitions, or why they cannot be had: the metrics alone still make most of the rows.
    pub definitions: Result<Definitions, FetchError>,
}

#[derive(Debug, Clone)]
pub struct Fetcher {
    query: Client,
    management: Client,
}

impl Fetcher {
    /// A client that has not asked yet.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(options: &TopOptions) -> Result<Self, TopError> {
        let key = options.key.as_deref();
        Ok(Self {
            query: Client::new(&options.query_url, TIMEOUT, &options.trust)?.with_key(key)?,
            management: Client::new(&options.management_url, TIMEOUT, &options.trust)?
                .with_key(key)?,
        })
    }

    /// One look at the server.
    ///
    /// # Errors
    /// Why its metrics cannot be had.
    pub fn fetch(&self) -> Result<Fetched, FetchError> {
        const METRICS: &str = "/metrics";
        let text = self.query.get(METRICS, "text/plain");
        let text = text.map_err(|error| FetchError::of(&self.query, METRICS, error))?;
        let at = clock::now();
        let samples = Samples::parse(&text);
        let definitions = self.definitions();
        let definitions =
            definitions.map_err(|error| FetchError::of(&self.management, "/admin", error));
        Ok(Fetched { at, unix_ms: clock::unix_millis(), samples, definitions })
    }

    fn definitions(&self) -> Result<Definitions, ClientError> {
        Ok(Definitions {
            applications: self.management.list("get_all_applications")?,
            models: self.management.list("get_all_models")?,
            replicas: self.management.list("get_all_containers")?,
        })
    }
}
