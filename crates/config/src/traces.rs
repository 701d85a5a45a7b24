//! `[traces]`: requests as spans of OpenTelemetry.

use std::path::PathBuf;

use super::rule::Rule;
use super::section::section;

section! {
    /// `[traces]`: requests as spans of OpenTelemetry, sent to a collector by OTLP over HTTP.
    pub struct TracesConfig {
        /// Where spans are sent: the http:// or https:// URL of a collector, such as
        /// http://127.0.0.1:4318; without a path of its own it gets that of OTLP, /v1/traces. Empty
        /// (the default): nowhere, and none are made.
        endpoint: String = String::new(), Rule::AnyText;

        /// A file of headers that are sent along, a line NAME: VALUE for each, by which a collector
        /// knows this server; relative to the working directory. Read again for each message.
        /// Empty (the default): none.
        headers_file: PathBuf = PathBuf::new(), Rule::AnyText;

        /// What this server is called there: service.name.
        service_name: String = "clipper".to_owned(), Rule::Text;

        /// Of requests that no caller's trace comes with, one in so many is recorded: 1 (the
        /// default) all of them, 100 one percent, 0 none. Where one comes, its flag decides.
        sample_one_in: u32 = 1, Rule::int(0, 1_000_000_000, "requests");

        /// Requests of one second that are recorded because their callers' flag says so, which
        /// anybody can send; of those beyond it one in sample_one_in is. It matters where that is
        /// not 1.
        forced_per_second_max: u32 = 100, Rule::int(0, 1_000_000_000, "requests");

        /// Queries of one request that have spans; of further ones only their number is told.
        request_queries_max: usize = 16, Rule::count("queries");

        /// Queries that the span of a batch is linked with; of further ones only their number is
        /// told.
        batch_links_max: usize = 128, Rule::count("queries");

        /// Spans that wait to be exported; beyond it new ones are lost and counted. Nobody waits
        /// for room.
        queue_spans_max: usize = 16_384, Rule::count("spans");

        /// What those may take, bytes; most take less than 1 KiB.
        queue_max_bytes: usize = 16 << 20, Rule::bytes();

        /// Spans of one message to the collector.
        export_spans_max: usize = 512, Rule::count("spans");

        /// A message of fewer spans is sent after so long, milliseconds.
        interval_ms: u64 = 1_000, Rule::millis();

        /// For the collector to answer a message, milliseconds.
        timeout_ms: u64 = 10_000, Rule::millis();

        /// First pause before a message is sent again that the collector could not take, doubling
        /// up to retry_max_ms, milliseconds.
        retry_initial_ms: u64 = 500, Rule::millis();

        /// Longest such pause, milliseconds.
        retry_max_ms: u64 = 5_000, Rule::millis();

        /// After so long a message is given up: its spans are lost and counted, milliseconds.
        retry_for_ms: u64 = 30_000, Rule::millis();
    }
}
