//! Where a connection stands, and until when it may stand there. Pure.

use std::time::Duration;

use clipper_clock::Instant;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// For its client to send a request.
    Idle,
    /// For the rest of a request's head.
    Head,
    /// For the rest of a request's body.
    Body,
    /// For the answer: the request is complete.
    Answering,
}

/// How long each of it may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowances {
    pub idle: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// From the first byte of a request to its last.
    pub request: Duration,
    /// For a client to take what has been written for it: one buffer of the connection.
    pub write: Duration,
}

/// Whoever reads a body answers 408 at the deadline of the request; this much later the connection
/// ends without it.
const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// Which allowance was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Idle,
    /// A request's head did not end.
    Head,
    /// The next piece of a request's body did not come: its reader is woken, and says so.
    Piece,
    /// A request's body did not end.
    Request,
    /// The client does not read.
    Write,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    phase: Phase,
    /// When it became idle; from its first byte on, when the request began.
    since: Instant,
    /// Since when a write waits for the client.
    blocked: Option<Instant>,
    /// When whoever reads the body wants to be woken, whatever has come.
    reader_wake: Option<Instant>,
}

impl Progress {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { phase: Phase::Idle, since: now, blocked: None, reader_wake: None }
    }

    /// What it waits for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when it waits for its client, while it does.
    #[must_use]
    pub fn waits_since(&self) -> Option<Instant> {
        (self.phase != Phase::Answering).then_some(self.since)
    }

    /// Whether the client leaves what is written unread. More of its requests are not read then:
    /// their answers would have nowhere to go.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether nothing is under way: the next byte is the first of a request, and all answers have
    /// been taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.blocked.is_none()
    }

    /// The first byte of a request came.
    pub fn begin(&mut self, now: Instant) {
        self.phase = Phase::Head;
        self.since = now;
    }

    /// A request's head is complete, and its handler runs.
    pub fn start(&mut self, has_body: bool) {
        self.phase = if has_body { Phase::Body } else { Phase::Answering };
        self.reader_wake = None;
    }

    /// Whoever reads the body waits for a piece of it, until then.
    pub fn wake_reader_at(&mut self, due: Instant) {
        self.reader_wake = Some(due);
    }

    /// Whoever reads the body was woken.
    pub fn reader_woken(&mut self) {
        self.reader_wake = None;
    }

    /// The request's body is complete.
    pub fn complete(&mut self) {
        if self.phase == Phase::Body {
            self.phase = Phase::Answering;
        }
    }

    /// The answer is complete, if perhaps not yet taken.
    pub fn answer(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        self.since = now;
    }

    /// A write has to wait for the client.
    pub fn block(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }

    /// All that was to be written has been. A client that has just taken a long answer has its
    /// whole time for the next request.
    pub fn unblock(&mut self, now: Instant) {
        self.blocked = None;
        if self.phase == Phase::Idle {
            self.since = now;
        }
    }

    /// By when a request under way has to be complete.
    #[must_use]
    pub fn request_deadline(&self, allowances: &Allowances) -> Instant {
        self.since + allowances.request
    }

    /// What happens to the connection if nothing else does until then.
    #[must_use]
    pub fn deadline(&self, allowances: &Allowances) -> Option<(Instant, Overdue)> {
        if let Some(since) = self.blocked {
            return Some((since + allowances.write, Overdue::Write));
        }
        match self.phase {
            Phase::Idle => Some((self.since + allowances.idle, Overdue::Idle)),
            Phase::Head => Some((self.since + allowances.head, Overdue::Head)),
            Phase::Body => {
                let end = (self.since + allowances.request + REQUEST_GRACE, Overdue::Request);
                let wake = self.reader_wake.map(|wake| (wake, Overdue::Piece));
                Some(wake.filter(|wake| wake.0 < end.0).unwrap_or(end))
            }
            // Bounded by the objective of the application, or the operation's own limit.
            Phase::Answering => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    const ALLOWANCES: Allowances = Allowances {
        idle: Duration::from_secs(75),
        head: Duration::from_secs(10),
        request: Duration::from_secs(60),
        write: Duration::from_secs(30),
    };

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_phase_has_its_deadline_and_answering_has_none() {
        let start = clock::now();
        let mut progress = Progress::new(start);
        let deadline =
            |progress: &Progress| progress.deadline(&ALLOWANCES).map(|(at, why)| (at - start, why));
        assert_eq!(deadline(&progress), Some((second(75), Overdue::Idle)));
        progress.begin(start + second(5));
        assert_eq!(deadline(&progress), Some((second(15), Overdue::Head)));
        progress.start(true);
        assert_eq!(deadline(&progress), Some((second(65) + REQUEST_GRACE, Overdue::Request)));
        assert_eq!(progress.request_deadline(&ALLOWANCES), start + second(65));
        progress.wake_reader_at(start + second(30));
        assert_eq!(deadline(&progress), Some((second(30), Overdue::Piece)));
        progress.wake_reader_at(start + second(300));
        assert_eq!(deadline(&progress), Some((second(65) + REQUEST_GRACE, Overdue::Request)));
        progress.wake_reader_at(start + second(40));
        progress.reader_woken();
        assert_eq!(deadline(&progress), Some((second(65) + REQUEST_GRACE, Overdue::Request)));
        progress.complete();
        assert_eq!(deadline(&progress), None);
        assert_eq!(progress.waits_since(), None);
        progress.answer(start + second(7));
        assert_eq!(deadline(&progress), Some((second(82), Overdue::Idle)));
    }

    #[test]
    fn a_client_that_does_not_read_has_one_allowance_whatever_it_sends_meanwhile() {
        let start = clock::now();
        let mut progress = Progress::new(start);
        progress.begin(start);
        progress.start(false);
        progress.block(start + second(1));
        progress.answer(start + second(2));
        progress.block(start + second(20));
        let expected = Some((start + second(31), Overdue::Write));
        assert_eq!(progress.deadline(&ALLOWANCES), expected);
        progress.unblock(start + second(30));
        let expected = Some((start + second(105), Overdue::Idle));
        assert_eq!(progress.deadline(&ALLOWANCES), expected);
    }
}
