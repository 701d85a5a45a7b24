//! The server's end of the model RPC port. The protocol itself is in [`clipper_rpc`].

pub mod access;
mod connection;
mod flooders;
pub mod listener;
pub mod places;
pub mod reader;
pub mod registration;
mod waiting;
