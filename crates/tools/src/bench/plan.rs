//! What is measured, and how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::RequestBuilder;

use super::inputs::InputPlan;
use super::inputs::tensors::TensorPlan;
use crate::tls::Connector;

/// When requests of an open loop start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At random, independently of each other, as from many users.
    Poisson,
    /// Evenly.
    Constant,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Each connection waits for its answer.
    Closed,
    /// Requests start at their own times.
    Open { rate: f64, arrivals: Arrivals },
}

#[derive(Debug, Clone)]
pub struct Target {
    pub addr: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    pub app: String,
    /// Where connections are encrypted.
    pub tls: Option<Connector>,
    /// For a server that asks for one.
    pub key: Option<String>,
}

impl Target {
    /// A request with the key, if there is one.
    #[must_use]
    pub fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub target: Target,
    pub inputs: InputPlan,
    /// Of type tensors.
    pub tensors: Option<Arc<TensorPlan>>,
    /// How they follow each other.
    pub load: Load,
    /// Connections that carry requests; in an open loop the most requests under way.
    pub connections: usize,
    /// Further connections that are held open and silent.
    pub idle_connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// Time under load before anything is counted.
    pub warmup: Duration,
    /// Time that is counted.
    pub duration: Duration,
    /// A request without an answer after this has failed.
    pub timeout: Duration,
    /// The objective that goodput is counted against.
    pub slo: Duration,
    /// Decides arrivals and inputs.
    pub seed: u64,
}
