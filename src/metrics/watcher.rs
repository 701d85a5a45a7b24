//! What the Redis watcher counts.

use std::sync::atomic::AtomicU64;

/// What the Redis watcher counts.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    /// 1 while the tables are followed, else 0.
    pub connected: AtomicU64,
    /// Connections that ended or were not made.
    pub failures: AtomicU64,
    /// Entries of the tables that mean nothing.
    pub malformed: AtomicU64,
    /// Changes decided again because another frontend was first.
    pub conflicts: AtomicU64,
    /// Events read from the tables.
    pub events: AtomicU64,
    /// 1 if Redis may evict entries to save memory, else 0.
    pub evicts: AtomicU64,
    /// Entries written back that Redis had evicted or let expire.
    pub restored: AtomicU64,
}
