//! What the dashboard's pages are told: one picture a second for all that show the same, worked out
//! only while somebody looks, and a history of the last hours in memory.
//!
//! ```text
//! counters, catalog, replicas, children --> Moment --> History (a point now and then)
//!                                              |
//!                                 Topic --> picture --> all its viewers (the latest counts)
//! ```
//!
//! Architecture invariant: it reads what is there and changes nothing; whoever predicts never waits
//! for it (O1).

mod attention;
mod history;
mod moment;
mod picture;
mod rows;
mod ticker;
mod topic;

pub use self::moment::Sources;
pub use self::ticker::{Dashboard, NoPlace, Viewer};
pub use self::topic::Topic;
