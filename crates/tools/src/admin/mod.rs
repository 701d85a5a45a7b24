//! The operator's side of the management frontend: a client, the shapes of its answers, tables.
//!
//! Knows the server only through `/admin/*`, as any other client does.

pub mod client;
pub mod deployment;
pub mod rows;
pub mod table;

pub use client::{Client, ClientError};
