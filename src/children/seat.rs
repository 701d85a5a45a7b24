//! What the keeper of one replica's process and its owner tell each other.

use std::sync::Arc;

use nix::unistd::Pid;
use tokio::sync::watch;

/// The state that both sides see; the latest counts, so that nothing queues up.
#[derive(Debug, Clone, Default)]
pub(super) struct SeatState {
    pub(super) phase: SeatPhase,
    /// The owner wants this process, by its count, replaced by another one, and why.
    pub(super) replace: Option<(u64, Arc<str>)>,
    /// Processes up to this count are to be replaced when it is their turn.
    pub(super) outdated: u64,
    /// Somebody has looked after it: earlier failures do not count.
    pub(super) forgiven: bool,
    /// Processes started so far.
    pub(super) process: u64,
    /// The one that runs.
    pub(super) pid: Option<Pid>,
    /// Connections to the RPC port that it has.
    pub(super) connections: usize,
    /// It has had one.
    pub(super) has_served: bool,
}

/// Whether there is to be a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SeatPhase {
    /// The owner wants one.
    #[default]
    Kept,
    /// The owner wants it ended and none in its place.
    Stopping,
    /// The keeper is gone.
    Over,
}

impl SeatState {
    pub(super) fn is_stopping(&self) -> bool {
        self.phase != SeatPhase::Kept
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == SeatPhase::Over
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.process > 0 && self.process <= self.outdated && !self.is_stopping()
    }
}

/// A place for one replica's process.
#[derive(Debug)]
pub(super) struct Seat(watch::Sender<SeatState>);

/// A connection of a replica's process, as whoever watches connections names it.
#[derive(Debug, Clone)]
pub struct SeatRef {
    seat: Arc<Seat>,
    process: u64,
}

impl SeatRef {
    /// The connection has ended. `given_up`: the server ended it, because the process does not do
    /// what it should; it is replaced. Otherwise it may come back by itself.
    pub fn connection_ended(&self, given_up: Option<&str>) {
        self.seat.change(self.process, |state| {
            state.connections = state.connections.saturating_sub(1);
            if let Some(why) = given_up {
                state.replace = Some((state.process, Arc::from(why)));
            }
        });
    }
}

impl Seat {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(SeatState::default())))
    }

    pub(super) fn watch(&self) -> watch::Receiver<SeatState> {
        self.0.subscribe()
    }

    pub(super) fn state(&self) -> SeatState {
        self.0.borrow().clone()
    }

    pub(super) fn stop(&self) {
        self.0.send_modify(|state| {
            if state.phase == SeatPhase::Kept {
                state.phase = SeatPhase::Stopping;
            }
        });
    }

    /// Wants the process replaced, and another start at once where there is none.
    pub(super) fn replace(&self, why: &str) {
        self.0.send_modify(|state| {
            state.replace = Some((state.process, Arc::from(why)));
            state.forgiven = true;
        });
    }

    /// Wants the process replaced that is there now, but not yet.
    pub(super) fn outdate(&self) {
        self.0.send_modify(|state| state.outdated = state.process);
    }

    /// The process with this number has a connection.
    pub(super) fn connected(self: &Arc<Self>, process: u64) -> SeatRef {
        self.change(process, |state| {
            state.connections += 1;
            state.has_served = true;
        });
        SeatRef { seat: Arc::clone(self), process }
    }

    /// Nothing happens if another process has taken its place meanwhile.
    fn change(&self, process: u64, change: impl FnOnce(&mut SeatState)) {
        self.0.send_if_modified(|state| {
            let is_current = state.process == process && state.pid.is_some();
            if is_current {
                change(state);
            }
            is_current
        });
    }

    pub(super) fn started(&self, pid: Option<Pid>) {
        self.0.send_modify(|state| {
            state.process += 1;
            state.pid = pid;
            state.connections = 0;
            state.has_served = false;
        });
    }

    pub(super) fn ended(&self) {
        self.0.send_modify(|state| {
            state.pid = None;
            state.connections = 0;
        });
    }

    /// Takes note that somebody has looked after it.
    pub(super) fn take_forgiven(&self) -> bool {
        let mut forgiven = false;
        self.0.send_if_modified(|state| {
            forgiven = std::mem::take(&mut state.forgiven);
            false
        });
        forgiven
    }

    pub(super) fn over(&self) {
        self.0.send_modify(|state| {
            state.pid = None;
            state.phase = SeatPhase::Over;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_left_behind_does_not_count_for_the_next() {
        let seat = Seat::new();
        seat.started(Some(Pid::from_raw(7)));
        let connection = seat.connected(1);
        assert_eq!((seat.state().connections, seat.state().has_served), (1, true));
        seat.ended();
        seat.started(Some(Pid::from_raw(8)));
        connection.connection_ended(Some("it hangs"));
        assert!(seat.state().replace.is_none());
        seat.connected(2).connection_ended(Some("it hangs"));
        assert_eq!(seat.state().replace.unwrap().0, 2);
    }
}
