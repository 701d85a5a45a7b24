//! (soon)
pub mod ports;
