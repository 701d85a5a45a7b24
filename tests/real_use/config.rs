//! Settings and the environment.
