//! What whoever tries a version out hears of its processes.

/// Whoever tries a version out hears of its processes.
pub trait Probation: Send + Sync {
    /// A process has written a line.
    fn heard(&self, line: &str);

    /// A process has ended, and none takes its place.
    fn exited(&self, why: String);

    /// The version is registered: its processes are replicas like any other.
    fn is_adopted(&self) -> bool;
}
