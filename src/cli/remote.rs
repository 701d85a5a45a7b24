//! What the verbs that ask a running server share: where it is, and how they fail.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::{UNREACHABLE, exit};
use clipper_tools::admin::deployment::NotDeployable;
use clipper_tools::admin::{Client, ClientError, UrlError};

/// Which server.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The management frontend.
    #[arg(
        long,
        global = true,
        value_name = "http://HOST:PORT",
        default_value = "http://127.0.0.1:1338",
        env = "CLIPPER_MANAGEMENT_URL"
    )]
    url: String,
    /// The longest wait for an answer, s.
    #[arg(long, global = true, value_name = "S", default_value = "10",
          value_parser = super::value::seconds)]
    request_timeout: Duration,
}

impl ServerArgs {
    pub(super) fn client(&self) -> Result<Client, VerbFailure> {
        Client::new(&self.url, self.request_timeout).map_err(VerbFailure::Url)
    }
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbFailure {
    #[error("--url: {0}")]
    Url(UrlError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Runtime(#[from] NotDeployable),
    /// In words for the operator.
    #[error("{0}")]
    Said(String),
}

impl VerbFailure {
    /// Prints it and gives the exit code.
    pub(super) fn show(self) -> ExitCode {
        let code = exit(Err(&self));
        match self {
            Self::Client(ClientError::Unreachable { .. }) => ExitCode::from(UNREACHABLE),
            _ => code,
        }
    }
}
