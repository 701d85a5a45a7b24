//! Rollouts: which version a query goes to, what guards make of the outcomes, and when to go on,
//! back, or wait.
//!
//! - [`split`]: which queries are for the new version.
//! - [`sums`]: what is counted, as sums that several servers merge by adding.
//! - [`pairs`]: losses of both versions, compared in the order in which they come.
//! - [`odds`]: the tests behind the guards, which hold however often they are looked at.
//! - [`agree`]: whether two versions say the same.
//! - [`machine`]: the one that decides.

pub mod agree;
pub mod machine;
pub mod odds;
pub mod pairs;
pub mod split;
pub mod sums;
