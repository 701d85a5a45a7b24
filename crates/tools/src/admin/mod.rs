//! The operator's side of the management frontend: a client, names close to others, tables.
//!
//! Knows the server only through `/admin/*`, as any other client does.

pub mod client;
pub mod deployment;
mod events;
pub mod hint;
pub mod table;

pub use client::{Client, ClientError, KeyError, UrlError};
pub use events::ServerEvent;
