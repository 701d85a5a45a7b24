//! The server's end of the model RPC port. The protocol itself is in [`clipper_rpc`].

pub mod listener;
pub mod reader;
