//! `[journal]`: the journal and what is derived from it.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[journal]`: the journal and what is derived from it.
    pub struct JournalConfig {
        /// A snapshot every so many events, or half as many as there are applications, models and
        /// links, if that is more: a start replays at most these, in milliseconds.
        snapshot_every_events: u64 = 1_000, Rule::int(1, 1_000_000_000, "events");

        /// Events older than the newest snapshot that are kept: what `clipper journal log`,
        /// `blame`, `diff` and `state` can tell. Each takes some 400 bytes of the disk, 30 of
        /// memory, and 5 us of a start.
        keep_events: u64 = 10_000, Rule::int(0, 1_000_000_000, "events");

        /// Events of the last so many days are kept too, however many they are; 0: the number
        /// alone counts.
        keep_days: u64 = 0, Rule::int(0, 36_500, "days");

        /// Snapshots that are kept, so that the state at any event is told soon: it takes a
        /// snapshot and the events after it. Where they are too many, those close to each other go.
        checkpoints_max: usize = 16, Rule::int(3, 1_000, "snapshots");

        /// Entries in one answer of /admin/journal/log.
        log_entries_max: usize = 1_000, Rule::count("entries");

        /// Bytes in one, about; the rest is asked for again.
        log_bytes_max: usize = 4 << 20, Rule::count("bytes");

        /// Events that are read for one answer of log, or of blame about one application.
        log_examined_max: usize = 20_000, Rule::count("events");

        /// Entries in one answer of /admin/journal/diff; of more, their number.
        diff_entries_max: usize = 1_000, Rule::count("entries");

        /// Questions about the past at once, those among them that wait for one of the two threads
        /// of low priority that answer them; above it 503.
        looks_max: usize = 16, Rule::count("questions");

        /// Followers of /admin/journal/stream at once; above it 503.
        followers_max: usize = 64, Rule::count("followers");

        /// A follower that leaves what it was sent unread is cut off after this, ms, and may come
        /// back to where it was.
        follower_stall_ms: u64 = 20_000, Rule::millis();

        /// Changes waiting to be written; above it 503.
        queue_max: usize = 1_024, Rule::count("commands");

        /// From a change's acceptance to its answer, ms. Then 503: it may still be written, and
        /// the answer says so. A disk that hangs must not hold callers for ever.
        commit_timeout_ms: u64 = 10_000, Rule::int(1, 3_600_000, "ms");

        /// A change is answered when every actor has applied it, or after this, ms, with a
        /// warning in the log.
        publish_timeout_ms: u64 = 1_000, Rule::int(1, 3_600_000, "ms");

        /// Events waiting for one actor that does not apply them; above it, it is cut off, with
        /// an error.
        subscriber_queue_max: usize = 4_096, Rule::count("events");

        /// Entries of policy state that are kept on the disk, one for each user of an application;
        /// further users have none of their own.
        policy_state_max_entries: usize = 500_000, Rule::count("entries");

        /// Bytes of one, as JSON; a longer one is not saved, and the log and
        /// clipper_policy_states_unsaved_total say so. Enough for 64 models with a window.
        policy_state_max_bytes: usize = 65_536, Rule::int(1, 131_072, "bytes");

        /// Policy state is soft: not flushed by each call, but at the latest after this, ms. A
        /// kill of the process or the machine loses no feedback acknowledged before. Where the
        /// disk is too slow for that, feedback is acknowledged when it is flushed.
        policy_state_flush_ms: u64 = 1_000, Rule::int(1, 3_600_000, "ms");

        /// Page cache of the store, bytes. Metadata is small, and the server should be too.
        page_cache_bytes: u64 = 8 << 20, Rule::int(1 << 16, 1 << 40, "bytes");
    }
}
