//! `[rpc]`: the port for model containers.

use std::path::PathBuf;
use std::time::Duration;

use super::network::Network;
use super::rule::Rule;
use super::section::section;
use clipper_rpc::receive::ReceiveLimits;
use clipper_rpc::unasked::UnaskedLimits;

section! {
    /// `[rpc]`: the port for model containers.
    pub struct RpcConfig {
        /// Where model containers connect, tcp://IP:PORT; tcp://*:7000 is every interface.
        #[flag("rpc-addr", "tcp://IP:PORT")]
        addr: String = "tcp://127.0.0.1:7000".to_owned(), Rule::RpcAddress;

        /// A file of further keys for containers, for orchestrators that hold secrets: a line NAME
        /// container SECRET [MODEL] for each (docs/security-wire.md); relative to the working
        /// directory. Read again when it changes. Empty (the default): none beside those of
        /// `clipper key add` and access.keys_file.
        keys: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Once there are keys: addresses and networks from which containers may come without one,
        /// as those of the original do. [] asks everybody for a key; the server's own replicas
        /// have one.
        null_from: Vec<Network> = loopback(), Rule::Networks;

        /// With a curve_key: addresses and networks from which containers may nevertheless send
        /// their secret in clear (PLAIN), beside this machine.
        plain_from: Vec<Network> = Vec::new(), Rule::Networks;

        /// A file with the server's secret key of CURVE, by which containers can encrypt their
        /// connections; relative to the working directory. Empty (the default): they cannot.
        /// `clipper cert curve DIR` makes one.
        curve_key: PathBuf = PathBuf::new(), Rule::AnyText;

        /// Open container connections; further ones are refused. Each takes a file descriptor and
        /// buffers. The replicas of all models in this file must fit.
        connections_max: usize = 4096, Rule::count("connections");

        /// Connections that have not said which model they serve; for a further one the oldest of
        /// them is closed, so that strangers who say nothing cannot keep containers out. Room for
        /// all containers of a busy host at a restart.
        pending_handshakes_max: usize = 512, Rule::count("connections");

        /// Containers that wait for their model to be registered; for a further one the oldest of
        /// them is closed. Anybody can claim a name: those who serve must not miss the places.
        unknown_connections_max: usize = 256, Rule::count("connections");

        /// A container that has waited this long for its model to be registered is closed,
        /// milliseconds. It may come back; whoever only holds a place has to make the effort.
        unknown_timeout_ms: u64 = 300_000, Rule::millis();

        /// From the connection to the name of its model, milliseconds. A container does it in
        /// one.
        handshake_timeout_ms: u64 = 5_000, Rule::millis();

        /// A replica that has been silent this long is dropped, milliseconds. Containers of the
        /// original speak every 5 s and give up after 30 s.
        silence_timeout_ms: u64 = 30_000, Rule::millis();

        /// One that computes is not silent but busy: at least for silence_timeout_ms and as long
        /// as a query of its batch is awaited, but no longer than this, milliseconds. Then it hangs
        /// and is dropped. Longer than the longest objective.
        busy_max_ms: u64 = 3_600_000, Rule::millis();

        /// Messages of one replica in one second that are not the answer to its batch; above it,
        /// it is dropped, so that it cannot take the others' time. Heartbeats are far below one a
        /// second, libzmq's PINGs at most a hundred.
        unasked_messages_per_second_max: u32 = 1_000, Rule::count("messages");

        /// The same of all connections in one second, beyond ten messages of each. Above it, those
        /// are dropped that sent more than twice their share: a crowd of talkers must not take
        /// the time of the models' threads, and a quiet replica must not suffer for them. Handled
        /// in about 30 ms.
        unasked_messages_per_second_sum_max: u32 = 4_000, Rule::count("messages");

        /// Bytes of such messages of all connections in one second. Handled in about 10 ms.
        unasked_bytes_per_second_sum_max: u64 = 8 << 20, Rule::bytes();

        /// Connections from an address in flood_window_ms, once one from there was cut for
        /// flooding; further ones are refused at once. A container that is cut comes back a few
        /// times, a stranger as often as he can. 127.0.0.1 is spared, where this server's own
        /// replicas come from.
        flood_reconnects_max: u32 = 10, Rule::count("connections");

        /// Such an address is forgotten after this, milliseconds.
        flood_window_ms: u64 = 10_000, Rule::millis();

        /// Such addresses that are remembered; for one more the oldest is forgotten.
        flood_addresses_max: usize = 1_024, Rule::count("addresses");

        /// Frames of one message. A batch takes 7 and one for each query, so this is above
        /// serving.batch_max.
        frames_max: usize = 8_192, Rule::count("frames");

        /// Bytes of one frame, which holds one input or one output.
        frame_max_bytes: usize = 64 << 20, Rule::bytes();

        /// Bytes of one message with all its frames. Bounds the memory that one connection can
        /// take.
        message_max_bytes: usize = 64 << 20, Rule::bytes();

        /// Bytes of all messages that are arriving or being read, beyond 64 KiB of each
        /// connection. A replica for whose answer there is no room is not read for a while. One
        /// message alone is always received.
        receive_max_bytes: usize = 128 << 20, Rule::bytes();

        /// When room is needed, a connection whose message has not grown for this long is
        /// dropped, the largest message first, milliseconds.
        receive_stall_ms: u64 = 500, Rule::millis();

        /// Answers of more bytes are checked and copied aside, off the thread that their model
        /// shares with others: this many take about a millisecond.
        large_answer_bytes: usize = 256 << 10, Rule::bytes();

        /// So many of them at once, each on a thread of its own.
        large_answers_at_once: usize = 2, Rule::int(1, 64, "answers");

        /// Bytes waiting for a replica that does not read; above it, the replica is dropped. Two
        /// messages.
        write_queue_max_bytes: usize = 128 << 20, Rule::bytes();

        /// Queries that one container answers in pieces at the same time, if it offers more.
        lanes_max: u32 = 256, Rule::int(1, 4_096, "queries");

        /// Longest text of a model's error that a replica may answer in place of an output,
        /// bytes, 64 to 1048576. Replicas are told and cut theirs; one that sends more is
        /// dropped. A sentence and a piece of a traceback.
        model_error_max_bytes: u32 = 4 << 10, Rule::int(64, 1 << 20, "bytes");
    }
}

fn loopback() -> Vec<Network> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect()
}

impl RpcConfig {
    /// What containers may send unasked.
    #[must_use]
    pub fn unasked_limits(&self) -> UnaskedLimits {
        UnaskedLimits {
            per_connection_max: self.unasked_messages_per_second_max,
            sum_max: self.unasked_messages_per_second_sum_max,
            sum_max_bytes: self.unasked_bytes_per_second_sum_max,
        }
    }

    /// Memory for messages that arrive.
    #[must_use]
    pub fn receive_limits(&self) -> ReceiveLimits {
        ReceiveLimits {
            max_bytes: self.receive_max_bytes,
            stall: Duration::from_millis(self.receive_stall_ms),
        }
    }
}
