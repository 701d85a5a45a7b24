//! Replaces the processes of one model version without a moment in which none serves, where more
//! than one does.
//!
//! Each process is replaced once, however often that is asked for while it waits for its turn: one
//! that has come up since is what was asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::seat::{Seat, SeatState};
use clipper_config::ContainersConfig;

/// Why, for the log.
const ASKED: &str = "an operator asked for it";

/// Wants those replaced that are there now: who serves nobody at once, the others by [`spawn`].
pub(super) fn outdate(seats: &[Arc<Seat>]) {
    for seat in seats {
        seat.outdate();
        if seat.state().connections == 0 {
            seat.replace(ASKED);
        }
    }
}

/// Replaces what is outdated, one after the other, once `before` is done.
pub(super) fn spawn(
    seats: &[Arc<Seat>],
    config: &ContainersConfig,
    before: Option<JoinHandle<()>>,
) -> JoinHandle<()> {
    let (seats, patience) = (seats.to_vec(), Duration::from_millis(config.connect_timeout_ms));
    actix::spawn(async move {
        if let Some(before) = before {
            let _ = before.await;
        }
        // Others may be outdated by the time that the last one is back.
        loop {
            let is_outdated = |seat: &&Arc<Seat>| seat.state().is_outdated();
            let mut round: Vec<_> = seats.iter().filter(is_outdated).collect();
            if round.is_empty() {
                return;
            }
            // Who serves nobody was told at once and may never come back: it keeps nobody waiting.
            round.sort_by_key(|seat| seat.state().connections == 0);
            for seat in round {
                replace(seat, patience).await;
            }
        }
    })
}

async fn replace(seat: &Seat, patience: Duration) {
    if !seat.state().is_outdated() {
        return;
    }
    seat.replace(ASKED);
    let is_back =
        |state: &SeatState| state.is_stopping() || !state.is_outdated() && state.connections > 0;
    // One that does not come back must not keep the others from theirs.
    let _ = tokio::time::timeout(patience, seat.watch().wait_for(is_back)).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use nix::unistd::Pid;

    use super::*;
    use crate::supervision::paused::on_paused_time;

    /// How long a process takes to start.
    const START: Duration = Duration::from_secs(1);

    /// A seat whose process serves, and ends and comes back when it is to be replaced.
    fn served(away: &Rc<Cell<usize>>, most_away: &Rc<Cell<usize>>) -> Arc<Seat> {
        let seat = Seat::new();
        let (kept, away, most) = (Arc::clone(&seat), Rc::clone(away), Rc::clone(most_away));
        let mut state = seat.watch();
        seat.started(Some(Pid::from_raw(1)));
        let _connection = seat.connected(1);
        actix::spawn(async move {
            loop {
                let is_replaced = |state: &SeatState| {
                    state.replace.as_ref().is_some_and(|r| r.0 == state.process)
                };
                let Ok(process) = state.wait_for(is_replaced).await.map(|s| s.process) else {
                    return;
                };
                kept.ended();
                away.set(away.get() + 1);
                most.set(most.get().max(away.get()));
                kept.started(Some(Pid::from_raw(1)));
                tokio::time::sleep(START).await;
                let _connection = kept.connected(process + 1);
                away.set(away.get() - 1);
            }
        });
        seat
    }

    fn processes(seats: &[Arc<Seat>]) -> Vec<u64> {
        seats.iter().map(|seat| seat.state().process).collect()
    }

    #[test]
    fn who_waits_for_its_turn_is_replaced_once_however_often_that_is_asked_for() {
        on_paused_time(async {
            let (away, most_away) = (Rc::default(), Rc::default());
            let seats: Vec<_> = (0..3).map(|_| served(&away, &most_away)).collect();
            let config = ContainersConfig::default();
            outdate(&seats);
            let task = spawn(&seats, &config, None);
            tokio::time::sleep(START * 3 / 2).await;
            assert_eq!(processes(&seats), [2, 2, 1], "the second one is about to come back");
            // Twice within one turn: the first serves again and is outdated; the second is just
            // starting, with what was there before the request, and starts again at once.
            outdate(&seats);
            outdate(&seats);
            task.await.unwrap();
            assert_eq!(processes(&seats), [3, 3, 2]);
            assert_eq!(away.get(), 0);
        });
    }

    #[test]
    fn one_that_never_connects_keeps_nobody_from_its_turn() {
        on_paused_time(async {
            let broken = Seat::new();
            broken.started(Some(Pid::from_raw(1)));
            let seats = [broken, served(&Rc::default(), &Rc::default())];
            outdate(&seats);
            let _task = spawn(&seats, &ContainersConfig::default(), None);
            tokio::time::sleep(START * 2).await;
            assert_eq!(processes(&seats), [1, 2]);
        });
    }

    #[test]
    fn one_at_a_time_is_away() {
        on_paused_time(async {
            let (away, most_away) = (Rc::default(), Rc::default());
            let seats: Vec<_> = (0..3).map(|_| served(&away, &most_away)).collect();
            outdate(&seats);
            let first = spawn(&seats, &ContainersConfig::default(), None);
            spawn(&seats, &ContainersConfig::default(), Some(first)).await.unwrap();
            assert_eq!((processes(&seats), most_away.get()), (vec![2, 2, 2], 1));
        });
    }
}
