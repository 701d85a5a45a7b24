//! `[explain]`: which queries the server can still say of why they were answered so.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[explain]`: which queries the server can still say of why they were answered so.
    pub struct ExplainConfig {
        /// Queries that are kept: of those that were slow or got the default output the latest, as
        /// many of each application where there are too many, and a sample of the others, which
        /// give way first. 0: none, and `clipper explain` knows of nothing.
        queries_max: usize = 2_048, Rule::int(0, 1_000_000, "queries");

        /// What they may take together, bytes. Most take less than 1 KiB.
        max_bytes: usize = 4 << 20, Rule::bytes();

        /// A query is slow that takes so much of its objective, percent.
        slow_percent: u32 = 50, Rule::int(1, 100, "percent");

        /// Queries taken into the sample in a second.
        samples_per_second: u32 = 16, Rule::int(0, 1_000_000, "queries");

        /// Slow queries and defaults taken in a second; further ones are left out, so that a flood
        /// of them costs nothing more. With queries_max this is at least two seconds of it. A few
        /// of each application are taken in any case.
        records_per_second: u32 = 1_000, Rule::int(1, 1_000_000, "queries");

        /// Queries of one request that are kept, defaults first.
        request_queries_max: usize = 16, Rule::count("queries");

        /// Queries of one request that are explained in its answer, where the client asks for it.
        answer_queries_max: usize = 100, Rule::count("queries");
    }
}
