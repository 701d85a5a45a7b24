//! `[access_log]`: a line for each request.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::log::LogFormat;
use super::network::Network;
use super::rule::Rule;
use super::section::section;

section! {
    /// `[access_log]`: a line for each request, over HTTP and gRPC, once it has been answered.
    pub struct AccessLogConfig {
        /// "off" writes none, "all" one for each request, "sampled" one for each that was refused
        /// or got a default output and for a part of the others.
        mode: AccessLogMode = AccessLogMode::Off, Rule::Choice(&["off", "sampled", "all"]);

        /// With "sampled": one of so many of the others.
        one_in: u32 = 100, Rule::int(1, 1_000_000_000, "requests");

        /// A file to add the lines to; relative to the working directory. One that was moved or
        /// deleted is made anew within a second or two. Empty (the default): standard error.
        file: PathBuf = PathBuf::new(), Rule::AnyText;

        /// "text" for people or "json", one object a line.
        format: LogFormat = LogFormat::Json, Rule::Choice(&["text", "json"]);

        /// Bytes of lines that wait to be written. Where none can be (a full disk, a pipe that
        /// nobody reads), further ones are lost and counted: no request waits for them.
        queue_max_bytes: usize = 4 << 20, Rule::bytes();

        /// Proxies in front, as addresses and networks such as 10.0.0.0/8: of what comes from one,
        /// the line has the last address in X-Forwarded-For that is no such proxy. Nobody else is
        /// believed.
        trusted_proxies: Vec<Network> = Vec::new(), Rule::Networks;
    }
}

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogMode {
    Off,
    /// Those that did not go well, and some of the others.
    Sampled,
    All,
}
