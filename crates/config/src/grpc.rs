//! `[grpc]`: the gRPC frontend.

use std::net::SocketAddr;

use super::rule::Rule;
use super::section::section;

section! {
    /// `[grpc]`: the gRPC frontend.
    pub struct GrpcConfig {
        /// Whether there is one. false: the port is not opened.
        enabled: bool = true, Rule::Bool;

        /// Where the Open Inference Protocol is spoken over gRPC, IP:PORT; [tls] encrypts it.
        /// Triton's port.
        #[flag("grpc-addr", "IP:PORT")]
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8001)), Rule::Address;

        /// Open connections. At the limit it is as with http.connections_max. Each carries many
        /// calls, so that a client needs one.
        connections_max: usize = 5_000, Rule::count("connections");

        /// Calls of one connection at the same time; a client keeps further ones back. As many as
        /// other servers of gRPC allow.
        streams_max: u32 = 100, Rule::int(1, 1_000_000, "calls");

        /// Requests of one streaming call that are answered at the same time; further ones are
        /// not read until one has its answer.
        stream_requests_max: usize = 16, Rule::count("requests");

        /// Largest message, bytes, also after it has been decompressed; a larger one gets
        /// RESOURCE_EXHAUSTED. Counted within http.bodies_max_bytes like bodies, from 1 KiB on, and
        /// like them never above rpc.frame_max_bytes.
        message_max_bytes: usize = 16 << 20, Rule::bytes();

        /// Names and values of the headers of one call, bytes. Of most calls a few hundred.
        headers_max_bytes: u32 = 16 << 10, Rule::int(1_024, 16 << 20, "bytes");

        /// What a client may send of one call before the server has read it, bytes.
        stream_window_bytes: u32 = 256 << 10, Rule::int(65_535, 1 << 30, "bytes");

        /// The same of all calls of a connection together, bytes.
        connection_window_bytes: u32 = 1 << 20, Rule::int(65_535, 1 << 30, "bytes");

        /// Every so often, milliseconds, a client is asked whether it is there (a ping of HTTP/2).
        keep_alive_ms: u64 = 60_000, Rule::millis();

        /// For its answer, milliseconds; then the connection is closed.
        keep_alive_timeout_ms: u64 = 20_000, Rule::millis();

        /// A connection without a call is closed after this, milliseconds; a client opens another
        /// when it needs one.
        idle_timeout_ms: u64 = 300_000, Rule::millis();
    }
}
