//! `[metrics]`: where Prometheus learns of containers with metrics of their own.

use std::path::PathBuf;

use super::rule::Rule;
use super::section::section;

section! {
    /// `[metrics]`: where Prometheus learns of containers with metrics of their own.
    pub struct MetricsConfig {
        /// A file that tells Prometheus which containers have metrics of their own
        /// (file_sd_configs). The server writes it whenever a container joins or leaves; relative
        /// to the working directory. Empty (the default): no file. A container of the Python
        /// package announces where its metrics are.
        file_sd_path: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Shortest time between two versions of the file, milliseconds.
        file_sd_pause_ms: u64 = 100, Rule::int(0, 86_400_000, "milliseconds");

        /// A container that announces nothing, as those of the original, is asked for its metrics
        /// on this port of its address; 0: it is not asked. The original's containers have them
        /// on 1390.
        container_port: u16 = 1390, Rule::int(0, 65_535, "port");

        /// Containers that are asked at the same time.
        probes_max: usize = 32, Rule::count("containers");

        /// For the whole answer of a container, milliseconds.
        probe_timeout_ms: u64 = 1_000, Rule::millis();

        /// Bytes that are read of the answer.
        probe_max_bytes: u64 = 1 << 20, Rule::bytes();

        /// How often a container is asked before it counts as one without metrics.
        probe_attempts_max: u32 = 10, Rule::int(0, 1_000_000, "attempts");

        /// Time between two attempts, milliseconds: a container may open its port after it has
        /// joined.
        probe_interval_ms: u64 = 1_000, Rule::millis();
    }
}
