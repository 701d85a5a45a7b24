//! `[log]`: log lines.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;

section! {
    /// `[log]`: log lines.
    pub struct LogConfig {
        /// "text" for people or "json", one object a line.
        #[flag("log-format", "FORMAT")]
        format: LogFormat = LogFormat::Text, Rule::Choice(&["text", "json"]);

        /// What is logged: off, error, warn, info, debug, trace, also by module as in
        /// "info,clipper::rpc=debug".
        filter: String = "info".to_owned(), Rule::Filter;

        /// Bytes of lines that wait to be written. Where standard error takes none (a full disk, a
        /// pipe that nobody reads), further ones are lost and counted: nobody waits for the log.
        queue_max_bytes: usize = 1 << 20, Rule::bytes();

        /// Lines of one cause, such as a request that is not HTTP, that one address can make the
        /// server write in one window; all addresses together ten times as many. How many were
        /// left out is told.
        outsider_lines_max: u32 = 5, Rule::count("lines");

        /// Length of that window, milliseconds.
        outsider_window_ms: u64 = 10_000, Rule::millis();

        /// Pairs of cause and address that are told apart in one window; further addresses share
        /// one allowance. Bounds the memory.
        outsider_sources_max: usize = 1_024, Rule::count("sources");
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
