//! The `clipper` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    clipper::cli::run(std::env::args_os())
}
