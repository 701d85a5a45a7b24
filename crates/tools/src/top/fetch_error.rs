//! What could not be asked, and why.

use crate::admin::{Client, ClientError};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {why}")]
pub struct FetchError {
    pub url: String,
    pub why: String,
}

impl FetchError {
    pub(super) fn of(client: &Client, path: &str, error: ClientError) -> Self {
        let why = match error {
            ClientError::Unreachable { why, .. } | ClientError::Broken { why, .. } => why,
            ClientError::Refused { status, why } => format!("status {status}: {why}"),
        };
        Self { url: format!("{}{path}", client.shown()), why }
    }
}
