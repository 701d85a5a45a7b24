//! The `clipper` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// No thread waits for another's lock in it: under the C library's, a thread of low priority that
/// lost its core as it gave back a large body kept a worker, whose arena that was, from answering
/// for 200 ms.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    clipper::cli::run(std::env::args_os())
}
