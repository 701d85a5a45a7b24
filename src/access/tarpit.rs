//! Whoever comes without a good key again and again waits for each refusal: what they ask for is
//! read as slowly as that, and takes nothing from those who have one.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clipper_clock as clock;
use tokio::sync::Semaphore;

use super::failures::Failures;
use super::refused::Refused;

/// How long a refusal is held back.
const HELD: Duration = Duration::from_secs(1);
/// Refusals that are held back at the same time, of all addresses and ports; further ones are
/// answered at once.
const HELD_MAX: usize = 1_024;
/// For each wrong key that an address may come with before it waits, it may come so often without
/// any.
const WITHOUT_KEY_FACTOR: u32 = 10;

#[derive(Debug)]
pub(super) struct Tarpit {
    without_key: Failures,
    places: Arc<Semaphore>,
}

impl Tarpit {
    pub(super) fn new(failures_per_minute: u32) -> Self {
        Self {
            without_key: Failures::new(failures_per_minute.saturating_mul(WITHOUT_KEY_FACTOR)),
            places: Arc::new(Semaphore::new(HELD_MAX)),
        }
    }

    /// Ends when that may be answered, where its address comes too often and there is a place.
    pub(super) fn hold(
        &self,
        refused: &Refused,
        from: Option<IpAddr>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let comes_too_often = match refused {
            Refused::TooOften { .. } => true,
            Refused::Missing | Refused::Certificate => {
                let count = |from| self.without_key.count(from, clock::unix_millis());
                from.is_some_and(|from| count(from).is_err())
            }
            _ => false,
        };
        if !comes_too_often {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(async move {
            tokio::time::sleep(HELD).await;
            drop(place);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Refused = Refused::TooOften { retry_after_s: 1 };

    #[tokio::test(start_paused = true)]
    async fn a_refusal_waits_and_those_over_the_limit_do_not() {
        let tarpit = Tarpit::new(60);
        let start = clock::now();
        let held: Vec<_> = (0..HELD_MAX).filter_map(|_| tarpit.hold(&FLOOD, None)).collect();
        assert_eq!(held.len(), HELD_MAX);
        assert!(tarpit.hold(&FLOOD, None).is_none());
        for held in held {
            held.await;
        }
        assert!(start.elapsed() >= HELD);
        assert!(tarpit.hold(&FLOOD, None).is_some());
    }

    #[tokio::test]
    async fn whoever_comes_without_a_key_waits_after_many_times() {
        let tarpit = Tarpit::new(60);
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let hold = |refused, from| tarpit.hold(refused, Some(from)).is_some();
        let at_once = (0..1_000).take_while(|_| !hold(&Refused::Missing, one)).count();
        assert!(at_once >= 600, "{at_once}");
        assert!(!hold(&Refused::Missing, other));
        assert!(!hold(&Refused::Unknown, one), "wrong keys are counted elsewhere");
    }
}
