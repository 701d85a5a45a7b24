//! `[dashboard]`: the pages at / of the management port.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[dashboard]`: the pages at / of the management port, and what is kept for them.
    pub struct DashboardConfig {
        /// Whether there are any. The pages themselves tell nothing and need no key; what they
        /// show needs one of the role observe where keys are asked for.
        enabled: bool = true, Rule::Bool;

        /// Open pages that are told what happens; above it 503. All that show the same get the same
        /// bytes, worked out once; a slow one skips some.
        viewers_max: usize = 64, Rule::count("pages");

        /// Pages are told so often, milliseconds. While none is open, nothing is worked out.
        tick_ms: u64 = 1_000, Rule::int(250, 60_000, "milliseconds");

        /// Applications, and model versions, in the lists of the first page: those that need
        /// attention first, then the busiest. Others are found by their name.
        rows_max: usize = 100, Rule::int(1, 10_000, "rows");

        /// Time between two points of an application's history, seconds.
        history_step_s: u64 = 30, Rule::int(1, 3_600, "seconds");

        /// Points of it: with 360, one every 30 s, three hours. It is in memory only, 40 bytes a
        /// point, from an application's first query on.
        history_points: usize = 360, Rule::int(2, 100_000, "points");

        /// Applications that have a history, in the order of their first queries: with 360 points,
        /// 14.4 MB in sum. Further ones are shown as they are now.
        history_applications_max: usize = 1_000, Rule::int(0, 1_000_000, "applications");

        /// Last lines of a container process that are kept to be shown, 400 bytes each at most.
        output_lines: usize = 20, Rule::int(0, 1_000, "lines");

        /// Predictions by the form under way; above it 429.
        predictions_max: usize = 16, Rule::count("predictions");

        /// Where Prometheus is, if anywhere: the pages have a link to it.
        prometheus_url: String = String::new(), Rule::AnyText;
    }
}
