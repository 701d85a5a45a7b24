//! The metadata: its one writer, and how everybody else follows it.

pub mod follower;
pub mod keys;
pub mod writer;
