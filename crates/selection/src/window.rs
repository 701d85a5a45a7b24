//! The latest answers of an application, for feedback that comes later.
//!
//! Feedback names a query, or an input: then the last answer to it is meant. Each answer is judged
//! once; what has left the window is late.
//!
//! Answers are found by hash maps, and each query would pay for them, whether or not there is ever
//! feedback. So an answer is only put in a row, and feedback puts what has come since the last one
//! into the maps.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::given::GivenAnswer;

/// What feedback is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The query with this id.
    Query(u64),
    /// The latest query with this input.
    Input(u64),
}

/// Why no answer goes with feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// There never was such an answer, or one that no policy had chosen.
    Unknown,
    /// The answer has left the window.
    Late,
    /// The answer was judged before.
    Double,
}

#[derive(Debug)]
struct GivenEntry {
    query_id: u64,
    input: u64,
    /// Until it is judged.
    answer: Option<GivenAnswer>,
}

#[derive(Debug)]
pub struct FeedbackWindow {
    max: usize,
    /// In the order in which they came: memory is touched from end to end, since each query adds
    /// one and drops one.
    entries: VecDeque<GivenEntry>,
    /// Entries that have left: those that are there are numbered from here.
    left: u64,
    /// Entries before this number can be found.
    findable: u64,
    // Query ids are given by the server, and inputs stand for themselves by a keyed hash.
    by_query: FxHashMap<u64, u64>,
    latest_of: FxHashMap<u64, u64>,
    /// The newest id that has left.
    gone: Option<u64>,
}

impl FeedbackWindow {
    /// For at most `max` answers.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            entries: VecDeque::new(),
            left: 0,
            findable: 0,
            by_query: FxHashMap::default(),
            latest_of: FxHashMap::default(),
            gone: None,
        }
    }

    /// Answers that it holds, judged ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A query was answered. Ids are not given twice.
    pub fn add(&mut self, query_id: u64, answer: GivenAnswer) {
        while self.entries.len() >= self.max {
            let Some(oldest) = self.entries.pop_front() else { return };
            let number = self.left;
            self.left += 1;
            self.gone = self.gone.max(Some(oldest.query_id));
            if number < self.findable {
                self.by_query.remove(&oldest.query_id);
                if self.latest_of.get(&oldest.input) == Some(&number) {
                    self.latest_of.remove(&oldest.input);
                }
            }
        }
        self.entries.push_back(GivenEntry { query_id, input: answer.input, answer: Some(answer) });
    }

    /// Lets at most `count` answers more be found that were added since. False: there are others
    /// yet, so that somebody else may have the window between two calls.
    pub fn find_more(&mut self, count: usize) -> bool {
        let end = self.left + self.entries.len() as u64;
        let from = self.findable.max(self.left);
        let until = end.min(from.saturating_add(count as u64));
        let first = usize::try_from(from - self.left).unwrap_or(usize::MAX);
        for (entry, number) in self.entries.range(first..).zip(from..until) {
            self.by_query.insert(entry.query_id, number);
            self.latest_of.insert(entry.input, number);
        }
        self.findable = until;
        until == end
    }

    /// The answer that feedback is about; it is judged now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn judge(&mut self, subject: Subject) -> Result<GivenAnswer, Unmatched> {
        self.find_more(usize::MAX);
        let number = match subject {
            Subject::Query(id) => match self.by_query.get(&id) {
                Some(number) => *number,
                None if self.gone.is_some_and(|gone| id <= gone) => return Err(Unmatched::Late),
                None => return Err(Unmatched::Unknown),
            },
            Subject::Input(input) => *self.latest_of.get(&input).ok_or(Unmatched::Unknown)?,
        };
        let place = usize::try_from(number - self.left).unwrap_or(usize::MAX);
        let entry = self.entries.get_mut(place).ok_or(Unmatched::Unknown)?;
        entry.answer.take().ok_or(Unmatched::Double)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::AnswerOf;
    use crate::policy::{Members, Picks};

    fn answer(input: u64) -> GivenAnswer {
        let (models, picks, members) = (Vec::new().into(), Picks::new(), Members::new());
        let answer = AnswerOf::Several;
        GivenAnswer { uid: 0, input, models, picks, members, answer, by: None }
    }

    #[test]
    fn each_answer_is_judged_once_while_it_is_in_the_window() {
        let mut window = FeedbackWindow::new(2);
        window.add(10, answer(1));
        window.add(11, answer(1));
        // By the input: the latest.
        assert_eq!(window.judge(Subject::Input(1)), Ok(answer(1)));
        assert_eq!(window.judge(Subject::Query(11)), Err(Unmatched::Double));
        assert_eq!(window.judge(Subject::Query(10)), Ok(answer(1)));
        assert_eq!(window.judge(Subject::Query(12)), Err(Unmatched::Unknown));
        window.add(12, answer(2));
        assert_eq!(window.judge(Subject::Query(10)), Err(Unmatched::Late));
        assert_eq!(window.judge(Subject::Input(3)), Err(Unmatched::Unknown));
        window.add(13, answer(3));
        assert_eq!(window.judge(Subject::Input(1)), Err(Unmatched::Unknown));
        assert_eq!(window.len(), 2);
        assert_eq!((window.latest_of.len(), window.by_query.len()), (2, 2));
    }

    #[test]
    fn answers_are_found_some_at_a_time_and_those_that_left_before_never() {
        let mut window = FeedbackWindow::new(3);
        for id in 0..5 {
            window.add(id, answer(id));
        }
        assert!(window.by_query.is_empty());
        assert!(!window.find_more(2));
        assert_eq!((window.by_query.len(), window.latest_of.len()), (2, 2));
        // One of those that were found leaves, and one that was not is found by the next.
        window.add(5, answer(5));
        assert_eq!(window.judge(Subject::Query(1)), Err(Unmatched::Late));
        assert_eq!(window.judge(Subject::Query(2)), Err(Unmatched::Late));
        assert_eq!(window.judge(Subject::Input(4)), Ok(answer(4)));
        assert_eq!(window.judge(Subject::Query(5)), Ok(answer(5)));
        assert!(window.find_more(1));
        assert_eq!((window.by_query.len(), window.latest_of.len()), (3, 3));
        // All that could be found leave before anybody looks again.
        for id in 6..20 {
            window.add(id, answer(id));
        }
        assert_eq!((window.by_query.len(), window.latest_of.len()), (0, 0));
        assert_eq!(window.judge(Subject::Query(19)), Ok(answer(19)));
        assert_eq!(window.by_query.len(), 3);
    }

    #[test]
    fn a_window_without_room_holds_nothing() {
        let mut window = FeedbackWindow::new(0);
        window.add(1, answer(1));
        assert!(window.is_empty());
        assert_eq!(window.judge(Subject::Query(1)), Err(Unmatched::Unknown));
    }
}
