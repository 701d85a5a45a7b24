//! What one replica has been sent and has not answered: the batch that it computes, and at most one
//! behind that. Pure: generic over what a batch carries.
//!
//! A replica that gets its next batch only after its answer was read stands still meanwhile, a
//! twentieth of the time with a model of 5 ms. So a full batch goes out shortly before the one
//! under way is expected to end, and waits in the socket. Not earlier: until it begins, a query
//! with a tighter deadline or a faster replica may turn up.

use std::time::Duration;

use super::latency::LatencyCurve;
use clipper_clock::Instant;

/// A batch under way is suspected of hanging after this many times its learned p99 latency ...
const SUSPICION: u32 = 3;
/// ... but not before this, because a busy machine stalls everybody for some milliseconds.
const SUSPICION_MIN: Duration = Duration::from_millis(10);

/// A batch follows at most so long before the expected end of the one under way: two ticks of the
/// timer that says so. So long after that end the replica is not trusted with another one.
const AHEAD: Duration = Duration::from_millis(2);

/// A batch and what is expected of it once it has begun.
#[derive(Debug)]
pub struct Batch<T> {
    /// What it carries.
    pub content: T,
    /// Its expected time, if anything is known of it.
    pub expected: Option<Duration>,
    /// The time after which it is suspected of hanging.
    pub patience: Duration,
}

impl<T> Batch<T> {
    /// What `curve` lets expect of a batch of so many queries, the tightest of which has this
    /// latency objective.
    pub fn new(content: T, queries: usize, curve: &LatencyCurve, objective: Duration) -> Self {
        if curve.is_known() {
            let patience = (curve.p99(queries) * SUSPICION).max(SUSPICION_MIN);
            Self { content, expected: Some(curve.mean(queries)), patience }
        } else {
            Self { content, expected: None, patience: objective / 2 }
        }
    }
}

#[derive(Debug)]
struct Running<T> {
    batch: Batch<T>,
    began: Instant,
    suspected: bool,
}

/// What came of an answer.
#[derive(Debug)]
pub struct Answered<'a, T> {
    /// What the answered batch carried.
    pub content: T,
    /// What has begun by it.
    pub begun: Option<&'a T>,
}

/// The batches of one replica, in the order in which they were sent.
#[derive(Debug)]
pub struct Lane<T> {
    running: Option<Running<T>>,
    following: Option<Batch<T>>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { running: None, following: None }
    }
}

impl<T> Lane<T> {
    /// When a batch that is sent at `now` would begin: now, or at the expected end of the one under
    /// way. `None` while no other may be sent.
    #[must_use]
    pub fn begins(&self, now: Instant) -> Option<Instant> {
        let Some(running) = &self.running else { return Some(now) };
        let end = self.ends()?;
        let due = now + AHEAD >= end && now <= end + AHEAD;
        (due && !running.suspected && self.following.is_none()).then(|| end.max(now))
    }

    /// Expected end of the batch under way.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        running.batch.expected.map(|expected| running.began + expected)
    }

    /// From when on [`Self::begins`] lets another batch follow, if none does yet.
    #[must_use]
    pub fn takes_more_from(&self) -> Option<Instant> {
        let end = self.ends().filter(|_| self.following.is_none());
        end.and_then(|end| end.checked_sub(AHEAD))
    }

    /// Adds a sent batch, for which [`Self::begins`] must have said when.
    pub fn push(&mut self, batch: Batch<T>, now: Instant) {
        if self.running.is_none() {
            self.running = Some(Running { batch, began: now, suspected: false });
        } else {
            self.following = Some(batch);
        }
    }

    /// Whether nothing is unanswered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// The batch that `is` names was answered; the one behind it has begun. `None`: there is no
    /// such batch.
    pub fn answered(&mut self, is: impl Fn(&T) -> bool, now: Instant) -> Option<Answered<'_, T>> {
        if let Some(done) = self.running.take_if(|running| is(&running.batch.content)) {
            let next = self.following.take();
            self.running = next.map(|batch| Running { batch, began: now, suspected: false });
            let begun = self.running.as_ref().map(|running| &running.batch.content);
            return Some(Answered { content: done.batch.content, begun });
        }
        // It may answer in another order.
        let done = self.following.take_if(|batch| is(&batch.content))?;
        Some(Answered { content: done.content, begun: None })
    }

    /// When to ask [`Self::suspects`].
    #[must_use]
    pub fn suspicious_from(&self) -> Option<Instant> {
        let running = self.running.as_ref().filter(|running| !running.suspected)?;
        Some(running.began + running.batch.patience)
    }

    /// All batches, if the one under way takes suspiciously long and was not reported yet.
    pub fn suspects(&mut self, now: Instant) -> impl Iterator<Item = &T> {
        let due = self.suspicious_from().is_some_and(|from| from <= now);
        if let Some(running) = self.running.as_mut().filter(|_| due) {
            running.suspected = true;
        }
        let running = self.running.as_ref().map(|running| &running.batch.content);
        let following = self.following.as_ref().map(|batch| &batch.content);
        running.into_iter().chain(following).filter(move |_| due)
    }

    /// What runs, and what was to follow.
    #[must_use]
    pub fn end(self) -> (Option<T>, Option<T>) {
        let running = self.running.map(|running| running.batch.content);
        (running, self.following.map(|batch| batch.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;

    const EXPECTED: Duration = Duration::from_millis(5);

    fn batch(content: char) -> Batch<char> {
        Batch { content, expected: Some(EXPECTED), patience: 3 * EXPECTED }
    }

    fn running(start: Instant) -> Lane<char> {
        let mut lane = Lane::default();
        lane.push(batch('a'), start);
        lane
    }

    #[test]
    fn a_batch_follows_shortly_before_the_end_and_begins_with_the_answer() {
        let start = clock::now();
        assert_eq!(Lane::<char>::default().begins(start), Some(start));
        let mut lane = running(start);
        let end = start + EXPECTED;
        assert_eq!(lane.begins(start), None);
        assert_eq!(lane.takes_more_from(), Some(end - AHEAD));
        assert_eq!(lane.begins(end - AHEAD), Some(end));
        lane.push(batch('b'), end - AHEAD);
        assert_eq!((lane.begins(end), lane.takes_more_from()), (None, None), "one is enough");
        let answered = lane.answered(|c| *c == 'a', end).expect("known");
        assert_eq!((answered.content, answered.begun), ('a', Some(&'b')));
        assert_eq!(lane.suspicious_from(), Some(end + 3 * EXPECTED));
        assert!(lane.answered(|c| *c == 'a', end).is_none());
        assert_eq!(lane.answered(|c| *c == 'b', end).expect("known").begun, None);
        assert!(lane.is_idle());
    }

    #[test]
    fn a_replica_that_is_late_gets_no_more() {
        let start = clock::now();
        let lane = running(start);
        assert_eq!(lane.begins(start + EXPECTED + AHEAD), Some(start + EXPECTED + AHEAD));
        assert_eq!(lane.begins(start + EXPECTED + 2 * AHEAD), None);
    }

    #[test]
    fn nothing_follows_the_first_batch_of_which_nothing_is_known() {
        let start = clock::now();
        let mut lane = Lane::default();
        lane.push(Batch { expected: None, ..batch('a') }, start);
        assert_eq!((lane.begins(start), lane.takes_more_from()), (None, None));
    }

    #[test]
    fn a_hanging_batch_and_the_one_behind_it_are_reported_once() {
        let start = clock::now();
        let mut lane = running(start);
        lane.push(batch('b'), start + EXPECTED);
        let when = lane.suspicious_from().expect("under way");
        assert_eq!(lane.suspects(start).count(), 0);
        assert_eq!(lane.suspects(when).collect::<String>(), "ab");
        assert_eq!(lane.suspects(when).count(), 0);
        assert_eq!(lane.suspicious_from(), None);
        assert_eq!(lane.end(), (Some('a'), Some('b')));
    }

    #[test]
    fn answers_may_come_in_another_order() {
        let start = clock::now();
        let mut lane = running(start);
        lane.push(batch('b'), start + EXPECTED);
        let answered = lane.answered(|c| *c == 'b', start).expect("known");
        assert_eq!((answered.content, answered.begun), ('b', None));
        assert!(!lane.is_idle());
    }
}
