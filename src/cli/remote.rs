//! What the verbs that ask a running server share: where it is, and how they end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::output::{UNREACHABLE, answer, answer_json, exit};
use super::value::Expected;
use clipper_domain::asker::NOTE_MAX_BYTES;
use clipper_tools::admin::deployment::NotDeployable;
use clipper_tools::admin::{Client, ClientError, KeyError, UrlError};
use clipper_tools::tls::Trust;

/// Whose requests these are.
#[derive(Args)]
pub(super) struct KeyArg {
    /// The key, for a server that asks for one. Other users of this machine see it among the
    /// processes: the variable is for scripts.
    #[arg(
        id = "key",
        long = "key",
        global = true,
        value_name = "KEY",
        env = "CLIPPER_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
}

impl KeyArg {
    pub(super) fn get(&self) -> Option<&str> {
        self.key.as_deref().filter(|key| !key.is_empty())
    }
}

/// Without the key.
impl std::fmt::Debug for KeyArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.key.is_some() { "a key" } else { "no key" })
    }
}

/// Where a server of this machine is managed, unless it is told otherwise.
const USUAL_URL: &str = "http://127.0.0.1:1338";

/// Which server.
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The management frontend [default: http://127.0.0.1:1338].
    #[arg(long, global = true, value_name = "http://HOST:PORT", env = "CLIPPER_MANAGEMENT_URL")]
    url: Option<String>,
    #[command(flatten)]
    key: KeyArg,
    /// The longest wait for an answer, s.
    #[arg(long, global = true, value_name = "S", default_value = "10",
          value_parser = super::value::seconds)]
    request_timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
    /// Why, for the journal: it is kept with what the command changes.
    #[arg(long, global = true, value_name = "TEXT", value_parser = one_line)]
    reason: Option<String>,
}

/// What a header takes.
fn one_line(text: &str) -> Result<String, Expected> {
    let fits = text.len() <= NOTE_MAX_BYTES && !text.chars().any(char::is_control);
    let expected = || Expected::new(format!("one line of at most {NOTE_MAX_BYTES} bytes"));
    if fits { Ok(text.to_owned()) } else { Err(expected()) }
}

/// What the system calls the user of this process.
fn user() -> String {
    let uid = nix::unistd::getuid();
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Of addresses that begin with https://.
#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Authorities to trust over https://, PEM [default: the system's].
    #[arg(
        id = "tls_ca",
        long = "tls-ca",
        global = true,
        value_name = "FILE",
        env = "CLIPPER_TLS_CA"
    )]
    ca: Option<PathBuf>,
    /// A certificate to show over https://, PEM.
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        global = true,
        value_name = "FILE",
        env = "CLIPPER_TLS_CERT",
        requires = "tls_key"
    )]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(
        id = "tls_key",
        long = "tls-key",
        global = true,
        value_name = "FILE",
        env = "CLIPPER_TLS_KEY",
        requires = "tls_cert"
    )]
    key: Option<PathBuf>,
}

impl TlsArgs {
    pub(super) fn trust(&self) -> Trust {
        let identity = self.cert.clone().zip(self.key.clone());
        Trust { ca: self.ca.clone(), identity }
    }
}

impl ServerArgs {
    /// Whether somebody says which server is meant.
    pub(super) fn is_named(&self) -> bool {
        self.url.is_some()
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn client(&self) -> Result<Client, VerbFailure> {
        let url = self.url.as_deref().unwrap_or(USUAL_URL);
        let client = Client::new(url, self.request_timeout, &self.tls.trust());
        let client = client.map_err(VerbFailure::Url)?.with_key(self.key.get());
        let client = client.map_err(VerbFailure::Key)?;
        Ok(client.with_notes(Some(&user()), self.reason.as_deref()))
    }
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbFailure {
    #[error("--url: {0}")]
    Url(UrlError),
    #[error("--key: {0}")]
    Key(KeyError),
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

/// What a verb prints: for people and for programs.
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) json: Value,
}

pub(super) type Outcome = Result<Shown, VerbFailure>;

impl Shown {
    /// What the server says of a change.
    pub(super) fn done(done: String) -> Self {
        Self { json: json!({"done": done}), text: done }
    }

    pub(super) fn print(&self, as_json: bool) {
        if as_json { answer_json(&self.json) } else { answer(&self.text) }
    }
}

/// Prints what a verb came to and gives the exit code.
pub(super) fn ended(outcome: Outcome, as_json: bool) -> ExitCode {
    match outcome {
        Ok(shown) => {
            shown.print(as_json);
            ExitCode::SUCCESS
        }
        Err(failure) => failure.show(),
    }
}

/// The answer of an endpoint as a value.
pub(super) fn understood<T: DeserializeOwned>(
    client: &Client,
    endpoint: &str,
    json: &Value,
) -> Result<T, VerbFailure> {
    T::deserialize(json).map_err(|error| {
        VerbFailure::Said(format!("{endpoint} of {} is not understood: {error}", client.shown()))
    })
}

/// Everything that a `get_all_...` endpoint lists: as it is, and read.
pub(super) fn list<T: DeserializeOwned>(
    client: &Client,
    endpoint: &str,
) -> Result<(Value, Vec<T>), VerbFailure> {
    let json = client.ask(endpoint, &json!({"verbose": true}))?;
    let rows = understood(client, endpoint, &json)?;
    Ok((json, rows))
}
