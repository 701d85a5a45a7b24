//! What there is to see of child processes, readable from any thread: state, starts, why the last
//! one ended, and what it wrote last.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use clipper_clock as clock;
use clipper_domain::ModelId;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::seat::{SeatPhase, SeatState};

/// Longest line that is kept, bytes.
const LINE_BYTES_MAX: usize = 400;

/// How it is with a place for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// Runs and has a connection.
    Serving,
    /// Runs and has none.
    Starting,
    /// There is none at the moment; another is started.
    Waiting,
    /// None is wanted any more.
    Stopping,
}

impl ChildState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Starting => "starting",
            Self::Waiting => "waiting to be started again",
            Self::Stopping => "stopping",
        }
    }

    fn of(state: &SeatState) -> Self {
        match (state.phase, state.pid) {
            (SeatPhase::Stopping | SeatPhase::Over, _) => Self::Stopping,
            (SeatPhase::Kept, None) => Self::Waiting,
            (SeatPhase::Kept, Some(_)) if state.connections > 0 => Self::Serving,
            (SeatPhase::Kept, Some(_)) => Self::Starting,
        }
    }
}

/// A line that a process has written, and when, Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    pub at_ms: u64,
    pub text: String,
}

/// How a process has ended, and when, Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEnd {
    pub at_ms: u64,
    pub why: String,
}

/// A place for one replica's process, as it is now.
#[derive(Debug, Clone)]
pub struct SeenChild {
    pub model: ModelId,
    pub number: u32,
    pub state: ChildState,
    /// Processes so far.
    pub starts: u64,
    pub pid: Option<i32>,
    /// How often in a row one has ended before it had served.
    pub failures: u32,
    pub last_end: Option<ChildEnd>,
    pub lines: Vec<Arc<OutputLine>>,
}

#[derive(Debug, Default)]
struct PlaceHistory {
    failures: u32,
    last_end: Option<ChildEnd>,
    /// Shared with whoever looks, mostly for the rest of it.
    lines: VecDeque<Arc<OutputLine>>,
}

/// One place, as its keeper and its capture tell of it.
#[derive(Debug)]
pub(super) struct Child {
    model: ModelId,
    number: u32,
    seat: watch::Receiver<SeatState>,
    lines_max: usize,
    told: Mutex<PlaceHistory>,
}

impl Child {
    pub(super) fn wrote(&self, line: &str) {
        if self.lines_max == 0 {
            return;
        }
        let end = line.floor_char_boundary(LINE_BYTES_MAX);
        let line = OutputLine { at_ms: clock::unix_millis(), text: line[..end].to_owned() };
        let lines = &mut self.told.lock().lines;
        if lines.len() >= self.lines_max {
            lines.pop_front();
        }
        lines.push_back(Arc::new(line));
    }

    pub(super) fn ended(&self, why: &str, has_served: bool) {
        let mut told = self.told.lock();
        told.failures = if has_served { 0 } else { told.failures.saturating_add(1) };
        told.last_end = Some(ChildEnd { at_ms: clock::unix_millis(), why: why.to_owned() });
    }

    fn seen(&self) -> SeenChild {
        let (seat, told) = (self.seat.borrow().clone(), self.told.lock());
        let state = ChildState::of(&seat);
        SeenChild {
            model: self.model.clone(),
            number: self.number,
            state,
            starts: seat.process,
            pid: seat.pid.map(i32::from),
            failures: if state == ChildState::Serving { 0 } else { told.failures },
            last_end: told.last_end.clone(),
            lines: told.lines.iter().cloned().collect(),
        }
    }
}

/// All children that there are. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SeenChildren {
    children: Arc<Mutex<Vec<Weak<Child>>>>,
    lines_max: usize,
}

impl SeenChildren {
    /// Keeps so many lines of each.
    #[must_use]
    pub fn new(lines_max: usize) -> Self {
        Self { children: Arc::default(), lines_max }
    }

    /// Shows a place as long as somebody tells of it.
    pub(super) fn show(
        &self,
        model: &ModelId,
        number: u32,
        seat: watch::Receiver<SeatState>,
    ) -> Arc<Child> {
        let (model, lines_max) = (model.clone(), self.lines_max);
        let child = Arc::new(Child { model, number, seat, lines_max, told: Mutex::default() });
        let mut children = self.children.lock();
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child));
        child
    }

    /// Those whose keeper is there, by model and number.
    #[must_use]
    pub fn all(&self) -> Vec<SeenChild> {
        let children: Vec<Arc<Child>> =
            self.children.lock().iter().filter_map(Weak::upgrade).collect();
        let alive = children.iter().filter(|child| !child.seat.borrow().is_over());
        let mut seen: Vec<SeenChild> = alive.map(|child| child.seen()).collect();
        seen.sort_by(|a, b| (&a.model, a.number).cmp(&(&b.model, b.number)));
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::super::seat::Seat;
    use super::*;
    use nix::unistd::Pid;

    #[test]
    fn a_process_is_seen_with_its_last_lines_and_its_last_end() {
        let all = SeenChildren::new(2);
        let seat = Seat::new();
        let model = ModelId::parse("m:1").unwrap();
        let child = all.show(&model, 0, seat.watch());
        assert_eq!(all.all()[0].state, ChildState::Waiting);
        seat.started(Some(Pid::from_raw(7)));
        for line in ["one", "two", &"\u{e4}".repeat(300)] {
            child.wrote(line);
        }
        let seen = all.all().remove(0);
        assert_eq!((seen.state, seen.starts, seen.pid), (ChildState::Starting, 1, Some(7)));
        assert_eq!((seen.lines[0].text.as_str(), seen.lines[1].text.len()), ("two", 400));
        seat.ended();
        child.ended("exit status: 3", false);
        child.ended("exit status: 3", false);
        let seen = all.all().remove(0);
        assert_eq!((seen.state, seen.failures), (ChildState::Waiting, 2));
        assert_eq!(seen.last_end.unwrap().why, "exit status: 3");
        seat.started(Some(Pid::from_raw(8)));
        let connection = seat.connected(2);
        let seen = all.all().remove(0);
        assert_eq!((seen.state, seen.failures), (ChildState::Serving, 0));
        connection.connection_ended(None);
        seat.over();
        assert!(all.all().is_empty());
    }
}
