//! The table: name, kind, unit, labels and meaning of every metric, in one place.
//!
//! A test compares it with `docs/metrics.md` and with what the server says of itself.

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

impl MetricKind {
    /// As in a `TYPE` line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The declaration of one Prometheus metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: MetricKind,
    /// What one unit of its value is.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence; the `HELP` line.
    pub help: &'static str,
    /// When somebody should look; `-` if never by this metric alone.
    pub alert: &'static str,
}

/// Bounds of every duration histogram, microseconds; shown in seconds.
pub const DURATION_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Bounds of the batch size histogram, queries.
pub const BATCH_BOUNDS: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];

/// Bounds of the confidence histogram, hundredths; shown as shares.
pub const CONFIDENCE_BOUNDS: &[u64] = &[10, 20, 30, 40, 50, 60, 70, 80, 90, 100];

const APP: &[&str] = &["app"];
const KEY: &[&str] = &["key"];
const MODEL: &[&str] = &["model", "version"];
const REPLICA: &[&str] = &["model", "version", "replica"];

macro_rules! rows {
    ($(
        $id:ident = $kind:ident $name:literal, $unit:literal, $labels:expr, $help:literal,
        $alert:literal;
    )+) => {
        $(
            #[doc = $help]
            pub const $id: Row = Row {
                name: $name,
                kind: MetricKind::$kind,
                unit: $unit,
                labels: $labels,
                help: $help,
                alert: $alert,
            };
        )+
        /// Every Prometheus metric with a fixed name, in the order of the exposition.
        pub const TABLE: &[&Row] = &[$(&$id),+];
    };
}

rows! {
    PREDICTIONS = Counter "clipper_predictions_total", "queries", &["app", "outcome"],
        "Answered queries: outcome is prediction, or why the default output was sent.",
        "share of outcomes other than prediction above 1 % for 5 min";
    PREDICTION_DURATION = Histogram "clipper_prediction_duration_seconds", "seconds", APP,
        "Time from a query's arrival to its answer.",
        "0.99 quantile above the application's objective for 5 min";
    APPLICATION_OBJECTIVE = Gauge "clipper_application_objective_seconds", "seconds", APP,
        "The latency objective of an application.", "-";
    REQUESTS_REJECTED = Counter "clipper_requests_rejected_total", "requests", APP,
        "Requests refused: malformed, too large, above a limit, or not parsed in time.",
        "a rise above its usual rate";
    FEEDBACK = Counter "clipper_feedback_total", "messages", &["app", "result"],
        "Feedback for a policy that learns: result is learned, late, double or unknown.",
        "late above 1 % for 5 min: serving.feedback_window_max is too small";
    POLICY_ASKED = Counter "clipper_policy_asked_total", "queries", &["app", "model"],
        "Queries of an application that its policy asked a model.", "-";
    POLICY_LEFT_OUT = Counter "clipper_policy_left_out_total", "queries", &["app", "model"],
        "Of those, queries that were answered without the model: it gave no output in time.",
        "above 1 % of the model's for 5 min";
    POLICY_WEIGHT = Gauge "clipper_policy_weight", "share", &["app", "model"],
        "How much a model counts now: the share of queries it is asked, or of the vote it has.",
        "-";
    POLICY_COMPARED = Counter "clipper_policy_compared_total", "outputs", &["app", "model"],
        "Outputs of a model where several models gave one and one of them was the answer.", "-";
    POLICY_AGREED = Counter "clipper_policy_agreed_total", "outputs", &["app", "model"],
        "Of those, outputs that were the same as the answer.",
        "its ratio to the compared outputs far below that of the other models";
    POLICY_CONFIDENCE = Histogram "clipper_policy_confidence", "ratio", APP,
        "How sure the policy was of its answers, 0 to 1, also of those that were too doubtful.",
        "the share up to 0.5 above twice its usual one for 10 min";
    POLICY_JUDGED = Counter "clipper_policy_judged_total", "outputs", &["app", "model"],
        "Outputs of a model that feedback has judged.", "-";
    POLICY_LOSS = Counter "clipper_policy_loss_total", "losses", &["app", "model"],
        "The sum of their losses, 0 to 1 each: over the outputs judged, how wrong the model is.",
        "its ratio to the judged outputs above twice its usual one for 10 min";
    ROLLOUT_STEP = Gauge "clipper_rollout_step", "steps", APP,
        "The step that the application's rollout is at, from 1; 0 while none runs.", "-";
    ROLLOUT_ALARM = Gauge "clipper_rollout_alarm", "ratio", APP,
        "How near the evidence against the version under rollout is to a rollback, 0 to 1: by the \
         guard that is nearest.",
        "above 0.5: `clipper rollout status` names the guard";
    ROLLOUT_EXPOSED = Counter "clipper_rollout_exposed_total", "queries", APP,
        "Queries that a version under rollout has answered, or copies that it got.", "-";
    ROLLOUT_ROLLED_BACK = Counter "clipper_rollout_rolled_back_total", "rollouts", APP,
        "Rollouts that a guard has ended; the log and `clipper rollout status` have the evidence.",
        "any increase";
    APP_QUERIES = Counter "clipper_app_limits_queries_total", "queries", APP,
        "Queries of an application with limits that were within them.", "-";
    APP_UNDER_WAY = Gauge "clipper_app_limits_concurrent", "queries", APP,
        "Queries of an application with limits that are being answered.",
        "near its limit `concurrent` for 5 min";
    APP_LIMITED = Counter "clipper_app_limits_refused_total", "requests", &["app", "limit"],
        "Requests that an application's limits refused, by limit: rate, concurrent or bodies.",
        "a rise above its usual rate";
    KEY_QUERIES = Counter "clipper_key_limits_queries_total", "queries", KEY,
        "Queries with a key with limits that were within them.", "-";
    KEY_UNDER_WAY = Gauge "clipper_key_limits_concurrent", "queries", KEY,
        "Queries with a key with limits that are being answered.",
        "near its limit `concurrent` for 5 min";
    KEY_LIMITED = Counter "clipper_key_limits_refused_total", "requests", &["key", "limit"],
        "Requests that the limits of a key refused, by limit: rate, concurrent or bodies.",
        "a rise above its usual rate: its holder wants more than it may";
    MODEL_PREDICTIONS = Counter "clipper_model_predictions_total", "queries", MODEL,
        "Queries answered by the replicas of a model version.",
        "no increase for 5 min while clipper_queue_depth is above 0";
    MODEL_ERRORS = Counter "clipper_model_errors_total", "queries", MODEL,
        "Queries that a replica answered with an error of its model.",
        "above 1 % of the version's queries for 5 min";
    MODEL_BATCH_SIZE = Histogram "clipper_model_batch_size", "queries", MODEL,
        "Queries in a batch that a replica answered.", "-";
    MODEL_BATCH_DURATION = Histogram "clipper_model_batch_duration_seconds", "seconds", MODEL,
        "Time from sending a batch to a replica to its answer.",
        "0.99 quantile above the objective of a linked application";
    REPLICA_BATCHES = Counter "clipper_replica_batches_total", "batches", REPLICA,
        "Batches that one replica answered; gone when the replica is.", "-";
    REPLICA_PREDICTIONS = Counter "clipper_replica_predictions_total", "queries", REPLICA,
        "Queries that one replica answered; gone when the replica is.",
        "one replica far below the others of its version";
    REPLICA_BUSY = Counter "clipper_replica_busy_seconds_total", "seconds", REPLICA,
        "Time one replica spent on batches; its rate is the share of time it is busy.",
        "rate above 0.9 for 10 min: add replicas";
    REPLICAS = Gauge "clipper_replicas", "replicas", MODEL,
        "Replicas of a model version that get queries.", "0 for 1 min while the version is current";
    CACHE_LOOKUPS = Counter "clipper_cache_lookups_total", "queries",
        &["model", "version", "result"],
        "Queries that reached a model version: result is hit (the cache answered) or miss.",
        "-";
    QUEUE_DEPTH = Gauge "clipper_queue_depth", "queries", MODEL,
        "Queries that wait for a replica of a model version.", "growing for 5 min";
    QUEUE_WAIT = Histogram "clipper_queue_wait_seconds", "seconds", MODEL,
        "Time a query waited before it was sent to a replica.",
        "0.99 quantile above half of the objective for 5 min";
    QUEUE_SKIPPED = Counter "clipper_queue_skipped_total", "queries", MODEL,
        "Queries skipped at dequeue: their deadline had passed, or nobody waited any more.",
        "above 1 % of the version's queries for 5 min";
    QUEUE_RETRIED = Counter "clipper_queue_retried_total", "queries", MODEL,
        "Queries put back into the queue after their replica died or hung.",
        "any lasting increase: replicas die";
    QUEUE_HEDGED = Counter "clipper_queue_hedged_total", "queries", MODEL,
        "Queries given to a second replica because their first one was slow.",
        "above 5 % of the version's queries for 5 min: replicas stall";
    QUEUE_POISONOUS = Counter "clipper_queue_poisonous_total", "queries", MODEL,
        "Queries refused because their input had killed replicas.",
        "any increase: the log names the replicas that died";
    STRAY_ANSWERS = Counter "clipper_stray_answers_total", "messages", MODEL,
        "Answers of a replica with an unknown or repeated message id; they were ignored.",
        "any increase: a faulty container";
    CONTAINER_STARTS = Counter "clipper_container_starts_total", "processes", MODEL,
        "Starts of a model version's supervised container processes, restarts included.",
        "more than 3 in 10 min: the container dies at its start";
    RPC_CONNECTIONS = Gauge "clipper_rpc_connections", "connections", &[],
        "Open connections of containers.", "near rpc.connections_max";
    RPC_ENDED = Counter "clipper_rpc_ended_total", "connections", &["reason"],
        "Connections of containers that ended or were refused, by reason.",
        "any reason but closed, retired and shutdown increases";
    HTTP_CONNECTIONS = Gauge "clipper_http_connections", "connections", &["frontend"],
        "Open connections of clients: frontend is query, management or metrics.",
        "near http.connections_max";
    HTTP_ENDED = Counter "clipper_http_connections_ended_total", "connections",
        &["frontend", "reason"],
        "Connections of clients that ended or were refused, by reason.",
        "any reason but closed, idle and shutdown increases";
    HTTP_ERRORS = Counter "clipper_http_errors_total", "requests", &["frontend", "error"],
        "Requests answered by an error, by its kind; also those of no application.",
        "a rise above its usual rate";
    HTTP_BODY_BYTES = Gauge "clipper_http_body_bytes", "bytes", &[],
        "Large request bodies under way, or the inputs made of them, in sum.",
        "near http.bodies_max_bytes";
    HTTP_ANSWER_BYTES = Gauge "clipper_http_answer_bytes", "bytes", &[],
        "Long answers under way, outputs that wait for the rest of their request included, in sum.",
        "near http.answers_max_bytes";
    TLS_HANDSHAKES = Counter "clipper_tls_handshakes_total", "connections", &["frontend"],
        "TLS handshakes of clients that succeeded; those that did not are connections that ended.",
        "-";
    TLS_EXPIRY = Gauge "clipper_tls_certificate_expiry_timestamp_seconds", "seconds", &[],
        "When the certificate of the ports expires, seconds since the Unix epoch.",
        "less than 7 days away";
    TLS_RELOADS = Counter "clipper_tls_reloads_total", "reloads", &["result"],
        "Changes of the certificate's files that were seen: result is loaded or failed.",
        "any increase of failed: the log says why";
    ACTOR_RESTARTS = Counter "clipper_actor_restarts_total", "restarts", &["actor"],
        "Actors restarted by their parent after a panic or a stop.", "any increase";
    THREAD_STALLS = Counter "clipper_thread_stalls_total", "stalls", &["thread"],
        "Times a thread did not answer within half a second: thread is data, rpc or http.",
        "any increase";
    LOG_LINES_LOST = Counter "clipper_log_lines_lost_total", "lines", &[],
        "Log lines that could not be written: standard error was full, closed or not read.",
        "any increase";
    ACCESS_LINES_LOST = Counter "clipper_access_log_lines_lost_total", "lines", &[],
        "Lines of the access log that could not be written: its file or standard error takes none.",
        "any increase";
    EXPLAIN_LOST = Counter "clipper_explain_lost_total", "requests", &[],
        "Requests of which nothing could be kept for `clipper explain`: somebody was reading.",
        "-";
    TRACE_SPANS = Counter "clipper_trace_spans_total", "spans", &["outcome"],
        "Spans of traces that were exported, or why they were lost: see docs/traces.md.",
        "any increase of an outcome other than exported: the log says why";
    TRACE_QUEUE = Gauge "clipper_trace_queue_spans", "spans", &[],
        "Spans that wait to be exported.", "near traces.queue_spans_max";
    TRACE_PASSED_OVER = Counter "clipper_trace_passed_over_total", "requests", &[],
        "Requests that were not recorded although their callers' flag says so.",
        "any increase: traces.forced_per_second_max is too small, or somebody floods";
    ADMIN_COMMANDS = Counter "clipper_admin_commands_total", "commands", &["result"],
        "Commands of operators: result is acknowledged or refused.", "-";
    FEEDBACK_REFUSED = Counter "clipper_feedback_refused_total", "requests", &[],
        "Feedback that was refused with 429 because too much of it waited to be kept.",
        "any increase: the disk is slow, or serving.feedback_queue_max too small";
    POLICY_USERS = Gauge "clipper_policy_users", "users", &[],
        "Users whose policy state is in memory.",
        "near serving.policy_users_in_sum_max";
    POLICY_EVICTED = Counter "clipper_policy_users_evicted_total", "users", &[],
        "Users whose policy state left memory for the disk, the least recently used first.",
        "a rise above its usual rate: serving.policy_users_max is too small";
    POLICY_SAVED = Counter "clipper_policy_states_saved_total", "states", &[],
        "Policy state that was written to the disk, of each user after feedback has changed it.",
        "-";
    POLICY_UNSAVED = Counter "clipper_policy_states_unsaved_total", "states", &["reason"],
        "Policy state that was not saved: reason is full, long or failed.",
        "any increase";
    REDIS_CONNECTED = Gauge "clipper_redis_connected", "constant 1", &[],
        "1 while the tables in Redis are followed, 0 while Redis is away.", "0 for 1 min";
    REDIS_FAILURES = Counter "clipper_redis_failures_total", "connections", &[],
        "Connections to Redis that ended or could not be made.", "a rise above its usual rate";
    REDIS_MALFORMED = Gauge "clipper_redis_malformed_entries", "entries", &[],
        "Entries of the tables in Redis that are passed over; the log names some of them.",
        "above 0";
    REDIS_CONFLICTS = Counter "clipper_redis_conflicts_total", "changes", &[],
        "Changes decided again because somebody else changed the same entries first.", "-";
    REDIS_EVENTS = Counter "clipper_redis_events_total", "events", &[],
        "Changes by others that were read from the tables in Redis.", "-";
    REDIS_EVICTS = Gauge "clipper_redis_may_evict", "constant 1", &[],
        "1 if maxmemory-policy of Redis is not noeviction, so that it may evict entries.", "1";
    REDIS_RESTORED = Counter "clipper_redis_restored_total", "entries", &[],
        "Entries written back that Redis had evicted or let expire.", "any increase";
    BUILD_INFO = Gauge "clipper_build_info", "constant 1", &["version"],
        "The version of this server; always 1.", "more than one version for longer than an upgrade";
    FLAT_NAMES_DROPPED = Gauge "clipper_flat_names_dropped", "series", &[],
        "Series left out of the original exporter's flat names because two names became equal.",
        "above 0: rename an application or model, or use the labelled metrics";
    PROCESS_CPU = Counter "process_cpu_seconds_total", "seconds", &[],
        "Total user and system CPU time spent in seconds.", "-";
    PROCESS_MAX_FDS = Gauge "process_max_fds", "descriptors", &[],
        "Maximum number of open file descriptors.", "-";
    PROCESS_OPEN_FDS = Gauge "process_open_fds", "descriptors", &[],
        "Number of open file descriptors.", "above 80 % of process_max_fds";
    PROCESS_RSS = Gauge "process_resident_memory_bytes", "bytes", &[],
        "Resident memory size in bytes.", "growing for days";
    PROCESS_START = Gauge "process_start_time_seconds", "seconds", &[],
        "Start time of the process since unix epoch in seconds.", "changes without an upgrade";
    PROCESS_THREADS = Gauge "process_threads", "threads", &[],
        "Number of OS threads in the process.", "-";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes", "bytes", &[],
        "Virtual memory size in bytes.", "-";
}

/// The declaration of one metric under the original's name.
#[derive(Debug, PartialEq, Eq)]
pub struct ClipperRow {
    /// Its name; `{...}` stands for the name of an application or model, or a version.
    pub name: &'static str,
    /// The category it is listed under.
    pub category: &'static str,
    /// What one unit of its value is.
    pub unit: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

const fn clipper(
    name: &'static str,
    category: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> ClipperRow {
    ClipperRow { name, category, unit, meaning }
}

/// Every metric of the Clipper JSON, in the order of one report.
pub const CLIPPER_TABLE: &[ClipperRow] = &[
    clipper(
        "internal:prediction_cache_lookups",
        "counters",
        "queries",
        "Queries that reached a model, all versions.",
    ),
    clipper(
        "internal:aggregate_num_predictions",
        "counters",
        "queries",
        "Queries given to models, from the cache or not, all versions.",
    ),
    clipper(
        "app:{app}:num_predictions",
        "counters",
        "queries",
        "Answered queries, default outputs included.",
    ),
    clipper(
        "model:{model}:{version}:num_predictions",
        "counters",
        "queries",
        "Queries answered by replicas.",
    ),
    clipper(
        "internal:prediction_cache_hit_ratio",
        "ratio_counters",
        "ratio",
        "Share of look-ups that the cache answered, all versions.",
    ),
    clipper(
        "app:{app}:default_prediction_ratio",
        "ratio_counters",
        "ratio",
        "Share of answers that were the default output.",
    ),
    clipper(
        "model:{model}:{version}:cache_hit_ratio",
        "ratio_counters",
        "ratio",
        "Share of look-ups that the cache answered.",
    ),
    clipper(
        "internal:aggregate_model_throughput",
        "meters",
        "events per second",
        "Rate of queries answered by replicas, all versions.",
    ),
    clipper(
        "app:{app}:prediction_throughput",
        "meters",
        "events per second",
        "Rate of answered queries.",
    ),
    clipper(
        "model:{model}:{version}:prediction_throughput",
        "meters",
        "events per second",
        "Rate of queries answered by replicas.",
    ),
    clipper(
        "internal:rpc_request_queueing_delay",
        "histograms",
        "microseconds",
        "Time queries waited before they were sent to a replica, all versions.",
    ),
    clipper(
        "app:{app}:prediction_latency",
        "histograms",
        "microseconds",
        "Time from a query's arrival to its answer.",
    ),
    clipper(
        "model:{model}:{version}:prediction_latency",
        "histograms",
        "microseconds",
        "Time from sending a query to a replica to its answer.",
    ),
    clipper(
        "model:{model}:{version}:batch_size",
        "histograms",
        "queries",
        "Queries in an answered batch.",
    ),
];
