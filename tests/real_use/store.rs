//! What is acknowledged survives.
