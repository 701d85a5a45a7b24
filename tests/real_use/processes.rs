//! Child processes, signals, logs.
