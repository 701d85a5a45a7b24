//! What is spoken on the wire beside plain HTTP and ZMTP: TLS, and who may connect.

mod certificates;
mod client;
mod client_keys;
mod containers;
mod tls;
