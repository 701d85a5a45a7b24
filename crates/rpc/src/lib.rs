//! Model RPC, version 3: how a batch gets to a model container and its answer back.
//!
//! # Layers
//! A container is a stock `ZeroMQ` DEALER that connects over TCP. [`zmtp`] speaks the wire protocol
//! of `ZeroMQ` (ZMTP 3.0 and 3.1, NULL mechanism) in the role of a ROUTER with one peer per
//! connection;
//! [`wire`] holds what waits to be written; [`codec`] gives the frames of a message their meaning.
//! All three are pure: no IO, no clock. They are total: any bytes give a value or an error.
//!
//! # Connection
//! 1. Both sides send a 64-byte greeting: `FF`, 8 bytes of padding, `7F`, major version, minor
//!    version, the mechanism in 20 bytes, as-server, 31 zero bytes. libzmq sends the first 10 or 11
//!    bytes, then waits for ours, so the server sends its greeting without waiting.
//! 2. Both sides send a READY command with their `Socket-Type`. The identity in a container's may
//!    say where its metrics are (`file_sd` of the server's metrics).
//! 3. Messages follow. A message is a list of frames; a frame is a flag byte (1 more, 2 long,
//!    4 command), its length in 1 byte or 8 bytes big-endian, and its body.
//! 4. PING commands may come at any time, also between two frames of a message; each is answered
//!    with PONG. These are heartbeats of `ZeroMQ`; Clipper's own are messages, below.
//!
//! # Messages
//! Numbers are little-endian; each item of a list is one frame; `""` is an empty frame.
//!
//! Container to server:
//!
//! | message | frames |
//! |---|---|
//! | heartbeat | `""`, `u32` 2 |
//! | new container | `""`, `u32` 0, model name, model version, input type, `u32` 3 |
//! | answer | `""`, `u32` 1, `u32` id, `u64` header bytes, header, outputs |
//!
//! The id is that of the predict message. The header of an answer is `u64` n, then n times the
//! `u64` length of an output.
//!
//! Server to container:
//!
//! | message | frames |
//! |---|---|
//! | heartbeat | `""`, `u32` 3, `u32` 2, `u32` kind: 0 keep-alive, 1 send your metadata |
//! | predict | `""`, `u32` 3, `u32` 1, `u32` id, `u32` 0, `u64` header bytes, header, inputs |
//!
//! The header of a predict message is `u64` input type, `u64` n, then n times the `u64` length of
//! an input. The `u32` 3 is the RPC version. Input types are 0 bytes, 1 integers, 2 floats, 3
//! doubles, 4 strings, 5 tensors; a new-container message says it as decimal text. One for tensors
//! has a seventh frame, the signature, and its batches and answers are those of [`tensors`].
//!
//! # Extensions
//! A container that knows extensions announces them in the frame of its RPC version, which then has
//! 8 bytes: `u32` 3, `u32` bits ([`codec::Extensions`]). The original server reads the first four.
//! This server answers the announcement, and only that, with a message of its own:
//!
//! | message | frames |
//! |---|---|
//! | extensions | `""`, `u32` 3, `u32` 2, `u32` 2, `u32` accepted bits, `u32` longest error |
//!
//! From here on an answer may hold errors of the model: bit 63 of an output's length says that the
//! output is the text of an error. With joined items those of a message may be in one frame; with
//! computing times the header of an answer has one number more, microseconds.
//! Answers in pieces are [`streams`], the traces of items [`traces`]. `docs/container-protocol.md`
//! has the bytes.
//!
//! # Life of a container
//! It connects and sends a heartbeat. The server answers with kind 1, and the container sends
//! new-container: from here on it is a replica and gets predict messages, one at a time. When it
//! has heard nothing for 5 s it sends a heartbeat, answered with kind 0; after 30 s of silence each
//! side gives the other up, and the container connects again as a new replica.
//!
//! # Limits
//! Frames of a message, bytes of a frame and bytes of a message come from `[rpc]` of the config
//! ([`zmtp::Limits`]). Commands, and READY above all, have a fixed limit
//! ([`zmtp::COMMAND_MAX_BYTES`]). A length is compared with its limit before memory is reserved for
//! it, and memory grows with what has arrived, not with what is announced. The number of outputs in
//! an answer is limited by the caller of [`codec::decode_from_container`].

mod answer;
pub mod client;
pub mod codec;
pub mod curve;
mod decode_error;
mod fields;
mod frame;
mod handshake;
mod introduction;
mod joined;
mod limits;
pub mod protocol;
pub mod receive;
pub mod streams;
pub mod tensors;
pub mod traces;
pub mod unasked;
pub mod wire;
pub mod zmtp;
mod zmtp_error;
