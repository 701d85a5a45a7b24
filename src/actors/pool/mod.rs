//! Who is connected: replicas, their list, those that are tried out, and where their metrics are.

pub mod container_pool;
pub mod file_sd;
pub mod list;
pub mod messages;
mod replica;
pub mod trial;
