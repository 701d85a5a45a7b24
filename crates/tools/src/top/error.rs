//! Why nothing can be shown.

use std::io;

use super::fetch_error::FetchError;
use crate::admin::{KeyError, UrlError};

#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("--key: {0}")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("the terminal cannot be used: {0}")]
    Terminal(io::Error),
}
