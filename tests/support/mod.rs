//! What tests of several areas share.

pub mod container_server;
pub mod served;
