//! One replica: its connection, and the answers that come by it.

pub mod container;
pub mod dispatch;
mod landing;
pub mod messages;
