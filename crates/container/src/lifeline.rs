//! The lifeline: a supervised container's stdin is a pipe from the server, so its end tells that
//! the server is gone, even when the server was killed and could tell nobody.

use std::io::{ErrorKind, Read as _};
use std::thread;

/// The environment variable that turns the lifeline on; its only value is [`STDIN`].
pub const VARIABLE: &str = "CLIPPER_LIFELINE";

/// Watch stdin.
pub const STDIN: &str = "stdin";

/// Whether whoever started this process holds the other end of its stdin.
#[must_use]
pub fn is_requested() -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == STDIN)
}

/// Calls `on_end` from a thread of its own once stdin has ended.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(on_end: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("lifeline".to_owned()).stack_size(64 << 10).spawn(move || {
        let mut ignored = [0; 256];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        on_end();
    })?;
    Ok(())
}

/// Ends this process at once when stdin ends, even while a model is stuck in a call.
///
/// # Errors
/// When the thread cannot be started.
pub fn exit_with_server() -> std::io::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "a model stuck in a call must end as well")]
    watch(|| std::process::exit(0))
}
