//! `[containers]`: replicas and child processes.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[containers]`: replicas and child processes.
    pub struct ContainersConfig {
        /// First pause before a dead child is started again, milliseconds; each further one is
        /// twice as long. Short, since most deaths are single.
        restart_backoff_initial_ms: u64 = 100, Rule::millis();

        /// Longest such pause, milliseconds.
        restart_backoff_max_ms: u64 = 10_000, Rule::millis();

        /// Quick deaths in a row after which a child is given up; with the pauses above about two
        /// minutes.
        restart_budget: u32 = 20, Rule::int(0, 1_000_000, "restarts");

        /// A child that lived this long, milliseconds, has its budget back.
        restart_window_ms: u64 = 30_000, Rule::millis();

        /// After SIGTERM a child gets this long, milliseconds; then SIGKILL.
        stop_grace_ms: u64 = 2_000, Rule::millis();

        /// Bytes of one captured line of a child's output; the rest of the line is cut.
        output_line_max_bytes: usize = 8 << 10, Rule::bytes();
    }
}
