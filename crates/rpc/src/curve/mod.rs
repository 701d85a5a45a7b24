//! CURVE, the security mechanism of `ZeroMQ` (RFC 26): the connection is encrypted, and each side
//! knows the other by its key. Pure: random bytes and the time are its owner's.
//!
//! The boxes are those of `NaCl` (X25519, `XSalsa20`, Poly1305), by the crate `crypto_box` and, for
//! messages, those that it is made of; here is only which of them a command holds.

mod boxes;
mod client;
mod direction;
mod keys;
mod server;
mod session;

pub use self::client::ClientHandshake;
pub use self::keys::{InvalidKey, Key, SecretKey};
pub use self::server::{COOKIE_BYTES, Initiated, Offer, ServerHandshake};
pub use self::session::{OVERHEAD_BYTES, Opener, Sealer, Session};
