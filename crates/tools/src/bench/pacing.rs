//! When requests of an open loop start, and waiting for it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::plan::Arrivals;

/// Start times, as offsets from the start of the run. Ends after `length`.
#[derive(Debug)]
pub(super) struct Schedule {
    next_s: f64,
    mean_gap_s: f64,
    arrivals: Arrivals,
    rng: SmallRng,
    length: Duration,
}

impl Schedule {
    /// `rate` requests a second, the first after `phase` of a gap.
    pub(super) fn new(
        rate: f64,
        arrivals: Arrivals,
        phase: f64,
        length: Duration,
        seed: u64,
    ) -> Self {
        let mean_gap_s = rate.recip();
        let rng = SmallRng::seed_from_u64(seed);
        Self { next_s: mean_gap_s * phase, mean_gap_s, arrivals, rng, length }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let offset = Duration::try_from_secs_f64(self.next_s).ok()?;
        let gap = match self.arrivals {
            Arrivals::Constant => 1.0,
            // Inversion of the exponential distribution; 1 - u is never 0.
            Arrivals::Poisson => -(1.0 - self.rng.random::<f64>()).ln(),
        };
        self.next_s += gap * self.mean_gap_s;
        (offset < self.length).then_some(offset)
    }
}

/// A timer of the kernel. Tokio's own wakes at whole milliseconds, which is longer than many
/// answers take.
#[derive(Debug)]
pub(super) struct Timer(AsyncFd<Fd>);

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // Its successor is unsafe; what that asks for holds, since the timer owns its descriptor.
        #[allow(deprecated, reason = "see above")]
        AsyncFd::with_interest(Fd(timer), Interest::READABLE).map(Self)
    }

    pub(super) async fn sleep(&self, pause: Duration) -> io::Result<()> {
        // A timer set to 0 never fires.
        let at = Expiration::OneShot(TimeSpec::from(pause.max(Duration::from_nanos(1))));
        self.0.get_ref().0.set(at, TimerSetTimeFlags::empty())?;
        loop {
            let mut ready = self.0.readable().await?;
            // `wait` reads the timer, which clears it.
            match ready.try_io(|timer| timer.get_ref().0.wait().map_err(io::Error::from)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    #[test]
    fn schedules_keep_their_rate_and_their_seed() {
        let second = Duration::from_secs(1);
        let even: Vec<_> = Schedule::new(1_000.0, Arrivals::Constant, 0.5, second, 1).collect();
        assert_eq!(even.len(), 1_000);
        assert_eq!(even[0], Duration::from_micros(500));
        let poisson = |seed| Schedule::new(10_000.0, Arrivals::Poisson, 0.0, second, seed);
        let count = poisson(7).count();
        // Four standard deviations are 400.
        assert!((9_600..10_400).contains(&count), "{count}");
        assert!(poisson(7).eq(poisson(7)));
        assert!(!poisson(7).eq(poisson(8)));
    }

    #[tokio::test]
    async fn the_timer_does_not_wake_early() {
        let timer = Timer::new().unwrap();
        for micros in [0, 50, 300, 2_500] {
            let pause = Duration::from_micros(micros);
            let before = clock::now();
            timer.sleep(pause).await.unwrap();
            assert!(clock::now() - before >= pause);
        }
    }
}
