//! `[rollouts]`: how rollouts from one version of a model to another are decided.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[rollouts]`: how rollouts from one version of a model to another are decided.
    pub struct RolloutsConfig {
        /// How often the guards of a rollout are looked at, milliseconds. A version that breaks
        /// one answers queries for so long more at most.
        look_interval_ms: u64 = 250, Rule::int(10, 3_600_000, "milliseconds");

        /// With Redis one frontend decides about a rollout. Another takes over when it has not
        /// said for so long, milliseconds by the clock of Redis, that it lives.
        lease_ms: u64 = 3_000, Rule::int(100, 86_400_000, "milliseconds");

        /// Copies of requests that may be under way at once, of all rollouts, to compare two
        /// versions. Beyond it, and while a version has anything else to do, requests are not
        /// copied.
        copies_max: usize = 64, Rule::int(0, 1_000_000, "requests");
    }
}
