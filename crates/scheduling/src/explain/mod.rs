//! Why a query was answered so, and where its time went: facts of its way into words. Pure.
//!
//! - [`record`]: the facts. [`times`]: where the time went. [`causes`]: what took it.
//! - [`words`]: all of it, as `explain` tells it.

mod causes;
mod record;
mod times;
mod words;

pub use self::record::{ModelRecord, QueryRecord};

#[cfg(test)]
mod tests;
