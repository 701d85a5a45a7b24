//! What tests on paused time run on.

use std::future::Future;

/// Runs a test, its actors and its containers on one thread whose clock is paused: it stands still,
/// except while everybody waits for time to pass.
pub(crate) fn on_paused_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(test)
}
