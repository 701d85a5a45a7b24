//! One replica: its connection, and the answers that come by it.

mod batch_span;
pub mod container;
pub mod dispatch;
mod landing;
pub mod messages;
