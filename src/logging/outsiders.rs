//! The allowance of lines that whoever connects can cause; one for the whole process.
//!
//! Every line about a stranger's connection or message asks [`line()`] first:
//!
//! ```text
//! if let Some(left_out) = outsiders::line("http_parse", peer.ip()) {
//!     warn!(%peer, left_out, "not HTTP");
//! }
//! ```

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use clipper_clock::{self as clock, Instant};
use clipper_config::LogConfig;
use clipper_domain::line_limit::{LeftOut, LineLimiter, LineLimits};

struct Outsiders {
    start: Instant,
    limiter: Mutex<LineLimiter>,
}

static OUTSIDERS: OnceLock<Outsiders> = OnceLock::new();

impl Outsiders {
    fn new(config: &LogConfig) -> Self {
        let limits = LineLimits {
            lines_max: config.outsider_lines_max,
            window_ms: config.outsider_window_ms,
            sources_max: config.outsider_sources_max,
        };
        Self { start: clock::now(), limiter: Mutex::new(LineLimiter::new(limits)) }
    }

    fn of_process() -> &'static Self {
        OUTSIDERS.get_or_init(|| Self::new(&LogConfig::default()))
    }

    fn now_ms(&self) -> u64 {
        let elapsed = clock::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Sets the limits; the first call of the process counts.
pub fn configure(config: &LogConfig) {
    OUTSIDERS.get_or_init(|| Outsiders::new(config));
}

/// Whether a line of this cause from this address may be written: `Some` with the number of lines
/// like it that were left out before. `cause` is a short name that does not depend on the message.
#[must_use]
pub fn line(cause: &'static str, from: IpAddr) -> Option<u64> {
    let outsiders = Outsiders::of_process();
    outsiders.limiter.lock().admit(cause, from, outsiders.now_ms())
}

/// Tells once a window what was left out, for ever.
pub async fn keep_telling(config: LogConfig) {
    let outsiders = Outsiders::of_process();
    let window = Duration::from_millis(config.outsider_window_ms.max(1));
    loop {
        tokio::time::sleep(window).await;
        let told = outsiders.limiter.lock().sweep(outsiders.now_ms());
        for LeftOut { cause, lines, addresses } in told {
            warn!(cause, lines, addresses, "log lines about outsiders were left out");
        }
    }
}
