//! Log lines: to stderr, as text for people or one JSON object a line.
//!
//! Logging never blocks and never panics, whatever stderr is: lines go through a bounded queue
//! ([`sink`]), and what cannot be written is lost and counted (`clipper_log_lines_lost_total`).

pub mod access;
mod output;
pub mod outsiders;
pub mod sink;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use clipper_domain::printable::printable;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format;

use self::sink::{JsonLines, Sink};
use clipper_config::{LogConfig, LogFormat};

/// Where lines go, from [`init`] on.
static SINK: OnceLock<Sink> = OnceLock::new();

/// The last lines are waited for so long at the end: a reader that is gone must not keep the
/// process.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.filter {0:?}: {1}")]
    Filter(String, ParseError),
    #[error("stderr: {0}")]
    Stderr(io::Error),
    #[error("logs: {0}")]
    Writer(io::Error),
    /// There is one already.
    #[error("logs: {0}")]
    Subscriber(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends every event that passes the filter to stderr, from now to the end of the process.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| LogError::Filter(config.filter.clone(), error))?;
    // Its own lines about what clients send have no limit; ours do.
    let own = "actix_http::h1::dispatcher=off";
    let filter = match own.parse() {
        Ok(silence) if !config.filter.contains("actix_http") => filter.add_directive(silence),
        _ => filter,
    };
    outsiders::configure(config);
    let sink = SINK.get_or_init(|| Sink::new(config.queue_max_bytes));
    let output = output::stderr().map_err(LogError::Stderr)?;
    sink.write_to(output, tell_lost).map_err(LogError::Writer)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink.clone())
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => {
            // What comes from outside cannot change how a line looks.
            let fields = format::debug_fn(|writer, field, value| {
                let text = match field.name() {
                    "message" => format!("{value:?}"),
                    name => format!("{name}={value:?}"),
                };
                writer.write_str(&printable(&text))
            });
            lines.fmt_fields(fields.delimited(" ")).try_init()
        }
        LogFormat::Json => {
            lines.json().flatten_event(true).with_writer(JsonLines(sink.clone())).try_init()
        }
    }
    .map_err(LogError::Subscriber)?;
    log_panics();
    Ok(())
}

/// How many lines could not be written so far; counted on.
#[must_use]
pub fn lost_lines() -> Arc<AtomicU64> {
    SINK.get().map_or_else(Arc::default, Sink::lost)
}

fn tell_lost(lines: u64) {
    tracing::warn!(lines, "log lines were lost: they could not be written");
}

/// The standard library writes of a panic to stderr itself, and waits where nobody reads.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let text = panic.to_string().replace('\n', " ");
        let trace = Backtrace::capture();
        let trace = matches!(trace.status(), BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(thread, trace, "{text}");
    }));
}

/// Says something to whoever started the server, by the way of the log lines once there is one.
pub fn say(text: &str) {
    if let Some(sink) = SINK.get() {
        sink.push(format!("{text}\n").as_bytes());
        flush();
    } else {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Gives the last lines a moment to be written. To be called at the end.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(FLUSH_PATIENCE);
    }
    access::flush(FLUSH_PATIENCE);
}
