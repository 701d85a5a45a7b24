//! `clipper` serves machine-learning predictions before each application's latency objective.
//!
//! Reading order: [`domain`] (the words), [`store::projection`] (what a change of metadata does),
//! [`actors`] (who talks to whom), [`http::query`] (a prediction's way in and out), [`rpc`] (a
//! batch's way to a container and back), [`server`] (how it is put together).
//!
//! Architecture invariant: arrows point one way: http -> actors -> {serving, store, rpc} ->
//! domain.

pub mod actors;
pub mod admin;
pub mod bench;
pub mod bootstrap;

pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod rpc;
pub mod runtime;
pub mod server;
pub mod serving;
pub mod store;
pub mod top;
