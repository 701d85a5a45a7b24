//! `clipper` serves machine-learning predictions before each application's latency objective.
//!
//! Reading order: [`clipper_domain`] (the words), [`store::projection`] (what a change of
//! metadata does), [`actors`] (who talks to whom), [`http::query`] (a prediction's way in and
//! out), [`rpc`] (a batch's way to a container and back), [`server`] (how it is put together).
//!
//! Architecture invariant: arrows point one way: grpc -> http -> actors -> {children, rpc, store}
//! -> {supervision, metrics}.

pub mod access;
pub mod actors;
pub mod bootstrap;
pub mod children;
pub mod cli;
pub mod dashboard;
pub mod declare;
pub mod deploy;
pub mod grpc;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod priority;
pub mod rpc;
pub mod server;
pub mod store;
pub mod supervision;
pub mod tls;
pub mod traces;
