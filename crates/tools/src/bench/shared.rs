//! What the threads of one measurement share.

use std::sync::Barrier;
use std::sync::atomic::AtomicU64;

use super::inputs::InputSource;

/// Counts for the progress display and the source of input numbers.
#[derive(Debug)]
pub(super) struct SharedCounts {
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    pub source: InputSource,
    /// All threads have their connections when they pass it.
    pub connected: Barrier,
}
