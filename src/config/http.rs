//! `[http]`: the HTTP frontends.

use std::net::SocketAddr;

use super::rule::Rule;
use super::section::section;

section! {
    /// `[http]`: the HTTP frontends.
    pub struct HttpConfig {
        /// Where applications are queried, IP:PORT. Loopback, so that opening it up is a
        /// decision.
        #[flag("query-addr", "IP:PORT")]
        query_addr: SocketAddr = loopback(1337), Rule::Address;

        /// Where the server is managed, IP:PORT. It has no passwords: keep it away from
        /// strangers.
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

        /// Open connections of each frontend; further ones wait in the backlog. More than a
        /// machine's usual clients, less than its usual limit of file descriptors once that is
        /// raised.
        connections_max: usize = 25_000, Rule::count("connections");

        /// Connections that the kernel keeps waiting, for bursts of new clients.
        backlog: u32 = 2048, Rule::int(1, 65_535, "connections");

        /// Time for a client to send the head of its request, milliseconds; then 408. Slow
        /// clients must not hold connections for ever.
        client_request_timeout_ms: u64 = 10_000, Rule::millis();

        /// An idle connection is closed after this, milliseconds; 0 closes after each answer.
        /// Longer than the 60 s of common load balancers, so that they close first.
        keep_alive_ms: u64 = 75_000, Rule::int(0, 86_400_000, "milliseconds");

        /// After SIGTERM, /readyz says 503 while everything is served as before, for so long,
        /// milliseconds: a load balancer has to see it and send no more. Longer than the time
        /// between two of its looks.
        drain_delay_ms: u64 = 1_000, Rule::int(0, 86_400_000, "milliseconds");

        /// Then queries on their way get this long, milliseconds. The usual grace of
        /// orchestrators is 30 s.
        shutdown_timeout_ms: u64 = 30_000, Rule::int(0, 86_400_000, "milliseconds");
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
