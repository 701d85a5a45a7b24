//! What the verbs that ask a running server share: where it is, and how they fail.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{UNREACHABLE, exit};
use clipper_tools::admin::{Client, ClientError};

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
    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(&self.url, self.request_timeout).map_err(|error| format!("--url: {error}"))
    }
}

/// Why a verb failed.
#[derive(Debug)]
pub(super) enum Failure {
    Client(ClientError),
    /// In words for the operator.
    Said(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// Prints it and gives the exit code.
    pub(super) fn show(self) -> ExitCode {
        match self {
            Self::Client(error @ ClientError::Unreachable { .. }) => {
                let _ = exit(Err(error.to_string()));
                ExitCode::from(UNREACHABLE)
            }
            Self::Client(error) => exit(Err(error.to_string())),
            Self::Said(text) => exit(Err(text)),
        }
    }
}
