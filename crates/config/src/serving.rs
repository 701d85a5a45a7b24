//! `[serving]`: the way of a query.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[serving]`: the way of a query.
    pub struct ServingConfig {
        /// Threads that run the models' queues and replica connections, 1 to 1024. One keeps up
        /// with tens of thousands of queries a second.
        data_threads: usize = 1, Rule::int(1, 1_024, "threads");

        /// Queries being answered in the whole process; above it 429. At 50,000 queries a second
        /// these are two seconds, longer than a useful objective.
        inflight_queries_max: usize = 100_000, Rule::count("queries");

        /// Queries waiting for one model version; above it they get the default output. Half of
        /// inflight_queries_max, so that one stuck model leaves room for the others.
        model_queue_max: usize = 50_000, Rule::count("queries");

        /// Inputs in one request; above it 413.
        request_inputs_max: usize = 10_000, Rule::count("inputs");

        /// Latency objective of a model that is queried by itself over /v2, without an application
        /// of its name, microseconds. Long, since nobody has said how long its callers wait; they
        /// can, with the request's `timeout`.
        direct_slo_micros: u32 = 1_000_000, Rule::int(1, 2_147_483_647, "microseconds");

        /// Queries in one message to a replica, whatever the model's batch size says. Larger
        /// batches gain nothing and delay the first answer.
        batch_max: usize = 4_096, Rule::count("queries");

        /// Prediction cache, bytes of keys and values; 0 switches it off. As in the original.
        cache_max_bytes: u64 = 32 << 20, Rule::int(0, 1 << 40, "bytes");

        /// How often replicas may begin with one query, the first time included. Two survive the
        /// death of one replica; more let a poisonous query kill more of them. A query that was
        /// always in company when replicas died is tried once more, alone.
        attempts_max: u32 = 2, Rule::int(1, 100, "attempts");

        /// Share of the replicas' time that may go into computing queries a second time because
        /// their first replica is slow, percent. 0: never.
        hedge_percent: u32 = 5, Rule::int(0, 100, "percent");

        /// So much of that time may be saved up and used at once, milliseconds. Enough for the
        /// batches of a replica that hangs.
        hedge_burst_ms: u64 = 1_000, Rule::int(0, 3_600_000, "milliseconds");

        /// An input that has killed replicas gets the default output, with the reason, for this
        /// long, milliseconds; then it may try again. Batches whose answer was too large stay
        /// smaller for this long, too, and longer each time.
        poison_keep_ms: u64 = 60_000, Rule::int(0, 86_400_000, "milliseconds");

        /// Such inputs that are remembered for each model version, the latest ones.
        poison_max: usize = 1_024, Rule::int(0, 1_000_000, "inputs");

        /// A lone caller of a quick model waits for sleeping cores more than for the server.
        /// While its messages follow each other within this time, microseconds, the model's
        /// thread stays awake between them, on a core that others may take, and not where others
        /// do take it. 0: never.
        stay_awake_us: u64 = 300, Rule::int(0, 10_000, "microseconds");

        /// What replicas have learned of their latency is saved this often, milliseconds, if it
        /// has changed, and at the end. After a restart, batches have their size from the first
        /// one on.
        learned_save_ms: u64 = 10_000, Rule::int(10, 86_400_000, "milliseconds");

        /// Feedback (/update) that waits to be kept; above it 429. A disk keeps up with thousands
        /// a second.
        feedback_queue_max: usize = 10_000, Rule::count("messages");

        /// Answers of one application with a policy that feedback may still be about, the latest
        /// ones; feedback about others is counted as late. 0: only what the cache has.
        feedback_window_max: usize = 20_000, Rule::int(0, 10_000_000, "answers");

        /// What has not been answered so long before the objective, microseconds, is answered by
        /// default then, so that the answer arrives in time: timers and threads have their delays.
        /// At most a twenty-fifth of the objective. 0: at the objective.
        answer_margin_us: u64 = 10_000, Rule::int(0, 1_000_000, "microseconds");

        /// An answer made of several models' outputs is made so long before it is due,
        /// microseconds, of those that have come; at most a tenth of the objective. If nothing has
        /// come it waits on. 0: when it is due.
        ensemble_margin_us: u64 = 2_000, Rule::int(0, 1_000_000, "microseconds");

        /// Feedback about inputs whose answers nobody remembers, and that the models are asked
        /// about again, at the same time; what is beyond it is counted as unknown. 0: never.
        feedback_asks_max: usize = 64, Rule::int(0, 1_000_000, "messages");

        /// Users of one application whose policy state is in memory. Above it the least recently
        /// used leave memory once they are saved; they come back from the disk when they are asked
        /// about.
        policy_users_max: usize = 100_000, Rule::count("users");

        /// The same of all applications in sum.
        policy_users_in_sum_max: usize = 200_000, Rule::count("users");

        /// From a request to the end of its answer where that comes in pieces, milliseconds; then
        /// it is cut. Its first piece is due at the application's objective.
        stream_max_ms: u64 = 600_000, Rule::millis();

        /// Pieces of one answer that wait for a caller who reads slowly; then its container waits,
        /// too. Enough that one who reads at once never waits for the way back.
        stream_pieces_max: u32 = 16, Rule::int(1, 65_536, "pieces");

        /// Longest piece of an answer, bytes. Containers are told; one that sends a longer one is
        /// dropped. Many times a token, and a picture of a preview.
        stream_piece_max_bytes: u32 = 256 << 10, Rule::int(64, 64 << 20, "bytes");

        /// Bytes of all such pieces that wait for their callers; an answer whose next piece has no
        /// room is cut.
        streams_max_bytes: usize = 64 << 20, Rule::bytes();

        /// Messages waiting for one actor. Bounds control messages; queries have the limits
        /// above.
        mailbox_max: usize = 1_024, Rule::count("messages");
    }
}
