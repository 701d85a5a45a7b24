//! Changes of metadata: what a user is told, and what changes by it.
