//! What did not hold, where and when.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub what: &'static str,
    pub at: Duration,
    pub detail: String,
}

pub type Checked = Result<(), Violation>;
