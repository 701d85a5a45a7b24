//! What the command line needs besides the server: the load generator, the live view, the client of
//! the management frontend.

pub mod admin;
pub mod bench;
pub mod tls;
pub mod top;
