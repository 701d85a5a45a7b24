//! Where to look and how often.

use std::time::Duration;

use crate::tls::Trust;

#[derive(Debug, Clone)]
pub struct TopOptions {
    /// `http://host:port` of the query frontend, for its metrics.
    pub query_url: String,
    /// `http://host:port` of the management frontend, for definitions and replicas.
    pub management_url: String,
    pub interval: Duration,
    /// For a server that asks for one.
    pub key: Option<String>,
    /// For addresses that begin with `https://`.
    pub trust: Trust,
}
