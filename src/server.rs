//! Puts the parts together and runs them until SIGTERM.

use crate::config::Loaded;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Why the server could not start or had to stop.
pub fn run(loaded: Loaded) -> Result<(), String> {
    drop(loaded);
    Err("the server is not built in yet".to_owned())
}
