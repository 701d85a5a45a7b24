//! `[http]`: the HTTP frontends.

use std::net::SocketAddr;

use super::rule::Rule;
use super::section::section;

impl HttpConfig {
    /// Threads that answer queries.
    #[must_use]
    pub fn workers(&self) -> usize {
        match self.query_workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

section! {
    /// `[http]`: the HTTP frontends.
    pub struct HttpConfig {
        /// Where applications are queried, IP:PORT. Loopback, so that opening it up is a
        /// decision.
        #[flag("query-addr", "IP:PORT")]
        query_addr: SocketAddr = loopback(1337), Rule::Address;

        /// Where the server is managed, IP:PORT. Without a key (see [access])
        /// everybody who reaches it may do everything: keep it away from strangers.
        #[flag("management-addr", "IP:PORT")]
        management_addr: SocketAddr = loopback(1338), Rule::Address;

        /// Where Prometheus reads metrics, IP:PORT.
        #[flag("metrics-addr", "IP:PORT")]
        metrics_addr: SocketAddr = loopback(1390), Rule::Address;

        /// Threads that answer queries, 0 to 1024; 0 is one per core.
        query_workers: usize = 0, Rule::int(0, 1_024, "threads");

        /// Largest request body, bytes; a larger one gets 413. 16 MiB holds a batch of 10,000
        /// inputs of 100 numbers. Not above rpc.frame_max_bytes, since one input travels in one
        /// frame.
        body_max_bytes: usize = 16 << 20, Rule::bytes();

        /// All bodies under way together, bytes, those of 16 KiB and less not counted; beyond it
        /// 503 with Retry-After. A body is under way until its request has been answered; one that
        /// has been parsed takes the bytes of its inputs, a double 8. Four of the largest.
        bodies_max_bytes: usize = 64 << 20, Rule::bytes();

        /// One answer, bytes; a longer one is refused with 413, as soon as the outputs that are
        /// there take more. As long as a message of a container.
        answer_max_bytes: usize = 64 << 20, Rule::bytes();

        /// All answers under way together, bytes, outputs that wait for others of their request
        /// included, those of requests with 64 KiB and less not counted; beyond it 503 with
        /// Retry-After. Equal outputs are in memory once, however often they are sent.
        answers_max_bytes: usize = 256 << 20, Rule::bytes();

        /// A body that takes longer to parse than this, microseconds, is parsed on a thread of its
        /// own: a thread that answers queries must not be away for longer. How long it takes is
        /// measured.
        parse_slice_us: u64 = 1_000, Rule::int(1, 1_000_000, "microseconds");

        /// Threads for such bodies, of low priority, and as many again, of lower priority, for
        /// those that take ten times as long; the management frontend has as many of its own. A
        /// body that waits for one of them for as long as its application's objective gets 503.
        /// Each thread takes at most the memory of a body's text and twice that of its inputs; more
        /// of them are not faster than there are cores.
        parse_threads: usize = 2, Rule::int(1, 1_024, "threads");

        /// Open connections of each frontend. For a further one that connection gives way which
        /// waits longest for its client, of the address that has most of them; where all are being
        /// answered, it gets 503. More than a machine's usual clients, less than its usual limit
        /// of file descriptors once that is raised.
        connections_max: usize = 25_000, Rule::count("connections");

        /// With HTTP/2 (where TLS is on): requests of one connection at the same time; a client
        /// keeps further ones back. One that gives up more requests than it waits for is sent
        /// away.
        http2_streams_max: u32 = 100, Rule::int(1, 1_000_000, "requests");

        /// With HTTP/2: names and values of the headers of one request, bytes; above it 431.
        http2_headers_max_bytes: u32 = 64 << 10, Rule::int(1_024, 16 << 20, "bytes");

        /// With HTTP/2: what a client may send of one body before the server has read it, bytes.
        http2_stream_window_bytes: u32 = 256 << 10, Rule::int(65_535, 1 << 30, "bytes");

        /// The same of all bodies of a connection together, bytes.
        http2_connection_window_bytes: u32 = 1 << 20, Rule::int(65_535, 1 << 30, "bytes");

        /// Sites whose pages may ask this server on the query port (CORS), such as
        /// "https://app.example.com"; their requests need keys as any other. ["*"]: those of all
        /// sites. None (the default): browsers keep the answers from pages of other sites.
        cors_origins: Vec<String> = Vec::new(), Rule::Origins { any: true };

        /// Whether browsers may send such requests with the certificate of their user, and with
        /// cookies, which nothing here reads. Not with ["*"].
        cors_credentials: bool = false, Rule::Bool;

        /// Connections that the kernel keeps waiting, for bursts of new clients.
        backlog: u32 = 2048, Rule::int(1, 65_535, "connections");

        /// Time for a client to send the head of its request, and longest pause between two pieces
        /// of its body, milliseconds; then 408. Slow clients must not hold connections for ever.
        client_request_timeout_ms: u64 = 10_000, Rule::millis();

        /// From the first byte of a request to its last, milliseconds; then 408. 16 MiB at
        /// 2 Mbit/s.
        request_timeout_ms: u64 = 60_000, Rule::millis();

        /// For a client to read some 32 KiB of its answers, milliseconds; then the connection is
        /// reset. While it does not read, none of its further requests is read either.
        write_timeout_ms: u64 = 30_000, Rule::millis();

        /// An idle connection is closed after this, milliseconds; 0 closes after each answer.
        /// Longer than the 60 s of common load balancers, so that they close first.
        keep_alive_ms: u64 = 75_000, Rule::int(0, 86_400_000, "milliseconds");

        /// After SIGTERM the server is not ready (503 from /readyz) and goes on answering for so
        /// long, milliseconds, each answer the last of its connection. With a load balancer in
        /// front: the time it takes to notice. 0: at once.
        drain_delay_ms: u64 = 1_000, Rule::int(0, 86_400_000, "milliseconds");

        /// After that, queries on their way get this long, milliseconds. The usual grace of
        /// orchestrators is 30 s.
        shutdown_timeout_ms: u64 = 30_000, Rule::int(0, 86_400_000, "milliseconds");
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
