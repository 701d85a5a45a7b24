//! All integration tests: one binary, because linking the server costs more than compiling a test.
//!
//! `cargo test --test all e2e::` runs one folder. `CLIPPER_TEST_BINARY` names another `clipper` to
//! test than the one built along; `CLIPPER_TEST_PYTHON` a Python with the packages that
//! `scripts/test.sh` installs. A test that waits polls a condition, with a deadline far above what
//! a healthy server needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::disallowed_methods, reason = "tests look from outside, at the real time")]
#![allow(clippy::print_stdout, reason = "figures")]

mod admin_crash;
mod bench;
mod cache_hits;
mod check_config;
mod config_docs;
mod e2e;
mod history;
mod journal_cli;
mod journal_crash;
mod metrics_exposition;
mod prometheus;
mod real_use;
mod redis;
mod robust;
#[cfg(feature = "onnx")]
mod runtime;
mod runtime_processes;
mod support;
mod tidy;
mod wire;

/// The `clipper` under test.
fn binary() -> &'static str {
    static BINARY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BINARY.get_or_init(|| {
        std::env::var("CLIPPER_TEST_BINARY")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_clipper").to_owned())
    })
}
