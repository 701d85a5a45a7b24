//! One replica: its connection, and the answers that come by it.

pub mod container;
mod landing;
