//! So many processes start at a time.
//!
//! A start costs a core for as long as the program loads. Replicas that died together and all
//! start at once would take every core from the threads that answer queries and from the replicas
//! that are left.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::seat::Seat;
use clipper_config::ContainersConfig;

/// Who may start. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    longest: Duration,
}

/// The right to start a process; over when it is dropped.
pub(super) struct StartTurn {
    permit: OwnedSemaphorePermit,
    longest: Duration,
}

impl Turns {
    pub(super) fn new(config: &ContainersConfig) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let at_once = match config.starts_at_once {
            0 => (cores / 2).max(1),
            set => set,
        };
        Self {
            free: Arc::new(Semaphore::new(at_once)),
            longest: Duration::from_millis(config.start_turn_ms),
        }
    }

    /// In the order of asking. `None`: the server ends.
    pub(super) async fn wait(&self) -> Option<StartTurn> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(StartTurn { permit, longest: self.longest })
    }
}

impl StartTurn {
    /// Lets the next one start once this process has connected or ended, and at the latest after
    /// `containers.start_turn_ms`: who loads for a minute must not keep all others waiting.
    pub(super) fn last_until_served(self, seat: &Seat) {
        let mut state = seat.watch();
        actix::spawn(async move {
            let _permit = self.permit;
            let settled = state
                .wait_for(|state| state.has_served || state.pid.is_none() || state.is_stopping());
            let _ = tokio::time::timeout(self.longest, settled).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;
    use crate::supervision::paused::on_paused_time;

    fn turns(at_once: usize) -> Turns {
        Turns { free: Arc::new(Semaphore::new(at_once)), longest: Duration::from_millis(500) }
    }

    /// So many start that the next one has to wait.
    async fn started(turns: &Turns) -> Arc<Seat> {
        let seat = Seat::new();
        seat.started(Some(Pid::from_raw(1)));
        turns.wait().await.unwrap().last_until_served(&seat);
        seat
    }

    async fn is_next_within(turns: &Turns, ms: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(ms), turns.wait()).await.is_ok()
    }

    #[test]
    fn the_next_starts_once_the_first_has_connected() {
        on_paused_time(async {
            let turns = turns(1);
            let first = started(&turns).await;
            assert!(!is_next_within(&turns, 400).await, "two at once");
            let _connection = first.connected(1);
            assert!(is_next_within(&turns, 1).await, "nobody starts though the first serves");
        });
    }

    #[test]
    fn the_next_starts_once_the_first_has_ended() {
        on_paused_time(async {
            let turns = turns(1);
            let first = started(&turns).await;
            first.ended();
            assert!(is_next_within(&turns, 1).await);
        });
    }

    #[test]
    fn who_loads_for_long_keeps_others_for_a_turn_only() {
        on_paused_time(async {
            let turns = turns(2);
            let (_first, _second) = (started(&turns).await, started(&turns).await);
            assert!(!is_next_within(&turns, 400).await);
            assert!(is_next_within(&turns, 200).await);
        });
    }
}
