//! What tests of several areas share.

pub mod container_server;
pub mod served;

/// The size of a test: that which the variable says, the full one where `CLIPPER_TEST_FULL` is set,
/// else a quick one.
pub fn size(variable: &str, quick: usize, full: usize) -> usize {
    let size = match std::env::var(variable) {
        Ok(text) => text.parse().unwrap(),
        Err(_) if std::env::var_os("CLIPPER_TEST_FULL").is_some() => full,
        Err(_) => quick,
    };
    println!("size {variable}={size}");
    size
}
