//! Why keys of the catalog are missing in Redis: somebody has deleted them, or Redis gave them up
//! by itself. Pure.
//!
//! A missing key counts as deleted unless there is a reason to think otherwise: Redis has told that
//! it evicted the key or let it expire, or the key had a time to live when the notices broke off.
//! Of several things that were told of a key the last one counts. So each notice is to be passed on
//! once, in the order of its arrival, and before anything is decided that was read after it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::store::redis::client::Happened;
use crate::store::redis::tables::Key;

/// What is known of missing keys; it outlives connections, as a key does not become deleted by
/// their end. Clones share it.
pub(super) type SharedAbsences = Rc<RefCell<Absences>>;

/// See the module's text. Only keys of the catalog are in it.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Redis has removed these by itself, and they are not written back yet.
    given_up: BTreeSet<Key>,
    /// Somebody has given these a time to live.
    mortal: BTreeSet<Key>,
}

impl Absences {
    /// Redis has told of a key of the catalog.
    pub(super) fn told(&mut self, key: &Key, happened: Happened) {
        match happened {
            Happened::GivenUp => {
                self.mortal.remove(key);
                self.given_up.insert(key.clone());
            }
            Happened::Expires => {
                self.mortal.insert(key.clone());
            }
            Happened::Removed => self.forget(key),
            Happened::Lasts => {
                self.mortal.remove(key);
                self.given_up.remove(key);
            }
            Happened::Written | Happened::Other => {
                self.given_up.remove(key);
            }
        }
    }

    /// A key was read and is there; what was told before the reading is past.
    pub(super) fn saw(&mut self, key: &Key) {
        self.given_up.remove(key);
    }

    /// Redis has removed a key by itself, as something else than a notice tells.
    pub(super) fn give_up(&mut self, key: Key) {
        self.given_up.insert(key);
    }

    /// Notices were missed, and these keys are missing: the time of those that had one has run out.
    pub(super) fn missed_notices<'k>(&mut self, missing: impl IntoIterator<Item = &'k Key>) {
        let expired = missing.into_iter().filter(|key| self.mortal.contains(*key)).cloned();
        self.given_up.extend(expired.collect::<Vec<_>>());
    }

    /// A missing key was taken for a deleted one, or the tables' emptiness for the truth.
    pub(super) fn forget(&mut self, key: &Key) {
        self.mortal.remove(key);
        self.given_up.remove(key);
    }

    /// Whether a missing key was deleted by nobody and counts as being there.
    pub(super) fn is_given_up(&self, key: &Key) -> bool {
        self.given_up.contains(key)
    }

    /// Keys to write back.
    pub(super) fn given_up(&self) -> impl Iterator<Item = &Key> {
        self.given_up.iter()
    }

    /// Everything that was given up is there again.
    pub(super) fn written_back(&mut self) {
        self.given_up.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::tables::Table;

    fn key() -> Key {
        Key::new(Table::Application, "a")
    }

    /// Whether a missing key counts as deleted after these notices.
    fn is_deleted(notices: &[Happened]) -> bool {
        let mut absences = Absences::default();
        for happened in notices {
            absences.told(&key(), *happened);
        }
        !absences.is_given_up(&key())
    }

    #[test]
    fn the_last_notice_tells_whether_a_missing_key_was_deleted() {
        use Happened::{Expires, GivenUp, Lasts, Other, Removed, Written};
        let cases: [(&[Happened], bool); 9] = [
            (&[], true),
            (&[Expires, GivenUp], false),
            // It was read between these two: missing, and its end is told of only now.
            (&[GivenUp], false),
            (&[GivenUp, Written], true),
            (&[GivenUp, Written, Removed], true),
            (&[GivenUp, Written, GivenUp], false),
            (&[Expires, Removed], true),
            (&[Expires, Lasts, Removed], true),
            (&[GivenUp, Other, Removed], true),
        ];
        for (notices, deleted) in cases {
            assert_eq!(is_deleted(notices), deleted, "{notices:?}");
        }
    }

    /// The look that the notice of a time to live asks for finds nothing, and Redis is too slow to
    /// tell why before the connection is given up.
    #[test]
    fn an_expiry_between_two_connections_is_nobodys_deletion() {
        let (mut absences, other) = (Absences::default(), Key::new(Table::Application, "b"));
        absences.told(&key(), Happened::Expires);
        absences.missed_notices([&key(), &other]);
        assert!(absences.is_given_up(&key()), "its time has run out");
        assert!(!absences.is_given_up(&other), "somebody has deleted it");
        absences.written_back();
        absences.told(&key(), Happened::Removed);
        absences.missed_notices([&key()]);
        assert!(!absences.is_given_up(&key()), "it was deleted as long as it was told of");
    }

    #[test]
    fn what_was_given_up_before_the_connection_ended_is_still_to_be_written_back() {
        let mut absences = Absences::default();
        absences.told(&key(), Happened::GivenUp);
        absences.missed_notices([&key()]);
        assert_eq!(absences.given_up().collect::<Vec<_>>(), [&key()]);
        absences.saw(&key());
        assert!(!absences.is_given_up(&key()), "another frontend was first");
    }

    /// The reading is older than the notice.
    #[test]
    fn a_key_that_was_still_read_can_be_given_up_a_moment_later() {
        let mut absences = Absences::default();
        absences.saw(&key());
        absences.told(&key(), Happened::GivenUp);
        assert!(absences.is_given_up(&key()));
    }
}
