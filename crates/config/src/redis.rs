//! `[redis]`: how Redis is used, if `redis_url` names one.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::section::section;

section! {
    /// `[redis]`: how Redis is used, if `redis_url` names one.
    pub struct RedisConfig {
        /// Tables that come back without their data, as after a restart of a Redis that keeps
        /// none: "restore" writes them back from the journal, "adopt" takes their emptiness as
        /// the truth. Deletions while Redis runs are always the truth.
        on_data_loss: OnDataLoss = OnDataLoss::Restore, Rule::Choice(&["restore", "adopt"]);

        /// From the first packet to a usable connection, milliseconds.
        connect_timeout_ms: u64 = 1_000, Rule::millis();

        /// For each answer of Redis, milliseconds; a slower Redis counts as away. Predictions
        /// never wait for it.
        command_timeout_ms: u64 = 1_000, Rule::millis();

        /// From a change by the management frontend to its answer, milliseconds; then 503. Below
        /// the 2 s after which people try again.
        change_timeout_ms: u64 = 1_500, Rule::millis();

        /// How often a change is decided again after another frontend was first.
        conflict_retries_max: u32 = 50, Rule::int(0, 1_000_000, "retries");

        /// First pause between attempts to connect, milliseconds; each further one is twice as
        /// long, give or take a random part.
        backoff_initial_ms: u64 = 20, Rule::millis();

        /// Longest such pause, milliseconds. Short: the tables are to be followed within a second
        /// of their return.
        backoff_max_ms: u64 = 500, Rule::millis();

        /// Every so often, milliseconds, some keys of the tables and the server's role are looked
        /// at: FLUSHDB gives no notice, and a changed role or a dead connection none either.
        pulse_interval_ms: u64 = 500, Rule::millis();

        /// Every so often, milliseconds, the whole tables are read again if Redis counts any
        /// change, in case a notice was lost.
        reconcile_interval_ms: u64 = 60_000, Rule::millis();

        /// Rows of a frontend that is gone disappear from the table of containers after this,
        /// milliseconds, 1000 to a day. As long as the original waits for a silent container.
        lease_ms: u64 = 30_000, Rule::int(1_000, 86_400_000, "milliseconds");

        /// Every so often, milliseconds, what feedback has taught policies here is shared with the
        /// other frontends, once it is on the disk.
        share_interval_ms: u64 = 250, Rule::millis();

        /// Users whose policy state is shared at once; the rest waits for the next time. Each
        /// makes a notice for every frontend: far below notices_max.
        share_rows_max: usize = 4_096, Rule::count("rows");

        /// Notices of Redis that wait to be looked at; above it the whole tables are read
        /// instead.
        notices_max: usize = 65_536, Rule::count("notices");

        /// Changes that wait to be carried out; above it 503.
        queue_max: usize = 1_024, Rule::count("commands");
    }
}

/// What to do with tables that came back without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Write them back from the journal.
    Restore,
    /// Take their emptiness as the truth.
    Adopt,
}
