//! gRPC over HTTP/2, as far as it is not about any one service: connections and calls with limits,
//! messages in their frames, statuses and deadlines; the standard services for health and
//! reflection as values. Plain requests over HTTP/2 come the same way ([`Exchange`]). Only this
//! crate names `h2`.
//!
//! Everything runs on the thread it is started on: the futures of a connection and of its calls
//! need not be `Send`. What a call does is the server's business.

mod call;
pub mod client;
mod connection;
mod details;
mod exchange;
mod frame;
pub mod health;
mod limits;
mod messages;
mod patient;
pub mod reflection;
mod reply;
mod status;
mod timeout;

pub use call::Call;
pub use connection::{Connection, Next, Violation};
pub use exchange::{Answer, Cut, Exchange, Pieces};
pub use http::{self, HeaderMap};

pub use frame::{HEAD_BYTES as FRAME_HEAD_BYTES, Packed, Part, TooLong, framed};
pub use limits::Limits;
pub use messages::{Broken, Messages};
pub use reply::{Gone, Reply};
pub use status::{Code, Status};

/// What every connection of HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
