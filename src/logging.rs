//! Log lines: to stderr, as text for people or one JSON object a line.

pub mod outsiders;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sends every event that passes the filter to stderr, from now to the end of the process.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| format!("log.filter {:?}: {error}", config.filter))?;
    outsiders::configure(config);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| format!("logs: {error}"))
}
