//! What tests of several areas share.

pub mod container_server;
pub mod ports;
pub mod random_changes;
pub mod secrets;
pub mod served;
pub mod signals;

use std::sync::atomic::{AtomicBool, Ordering};

/// What says that every test takes its full size: minutes, and figures that are worth something.
const FULL: &str = "CLIPPER_TEST_FULL";

/// Whether tests take their full sizes, and assert what a busy machine cannot keep.
pub fn is_full() -> bool {
    std::env::var_os(FULL).is_some()
}

/// The size that this variable gives, else the full or the quick one. `scripts/full-size.sh` reads
/// what is printed.
pub fn size(variable: &str, quick: usize, full: usize) -> usize {
    let given = std::env::var(variable).ok();
    let size = given.map_or(if is_full() { full } else { quick }, |text| text.parse().unwrap());
    println!("size {variable}={size}");
    size
}

/// Clients stop when their scope ends, however it does.
pub struct StopAtEnd<'s>(pub &'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
