//! The `clipper` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    clipper_allocator::set_up();
    clipper::cli::run(std::env::args_os())
}
