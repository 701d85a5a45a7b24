//! The `clipper` binary.

fn main() {}
