//! Tests of [`super`]: places are used again and never mistaken for those before them.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::share::AppId;

#[derive(Debug, Clone)]
struct Noted(Rc<Cell<u32>>);

fn noted() -> Noted {
    Noted(Rc::new(Cell::new(0)))
}

impl Query for Noted {
    fn awaited_until(&self, now: Instant) -> Option<Instant> {
        Some(now)
    }
    fn take(&self, now: Instant) -> Option<Instant> {
        Some(now)
    }
    fn put_back(&self) {}
    fn has_ended(&self) -> bool {
        false
    }
    fn has_begun(&self) -> bool {
        false
    }
    fn arrived(&self) -> Instant {
        clipper_clock::now()
    }
    fn objective(&self) -> Duration {
        Duration::from_millis(20)
    }
    fn fingerprint(&self) -> u64 {
        0
    }
    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
    fn note(&self) -> u32 {
        self.0.get()
    }
    fn set_note(&self, note: u32) {
        self.0.set(note);
    }
}

fn share() -> Share {
    Share::equal(AppId(1))
}

#[test]
fn a_query_is_found_by_its_note_and_its_key() {
    let mut table = QueryTable::new();
    let queries = [noted(), noted(), noted()];
    let keys = queries.each_ref().map(|query| table.add(query.clone(), share()));
    assert_eq!(table.len(), 3);
    for (query, key) in queries.iter().zip(keys) {
        assert_eq!(table.find(query), Some(key));
        assert!(table.get(key).is_some_and(|state| state.query.is(query)));
        assert_eq!(table.get(key).map(|state| state.objective), Some(Duration::from_millis(20)));
        assert!(!table.is_waiting(key));
    }
    assert_eq!(table.find(&noted()), None, "its note is another one's place");
    table.get_mut(keys[1]).expect("it is there").is_waiting = true;
    assert!(table.is_waiting(keys[1]) && !table.is_waiting(keys[0]));
}

#[test]
fn a_place_that_is_used_again_is_not_its_former_query() {
    let mut table = QueryTable::new();
    let (first, second) = (noted(), noted());
    let old = table.add(first.clone(), share());
    assert!(table.remove(old).is_some() && table.remove(old).is_none());
    assert_eq!((table.len(), table.find(&first)), (0, None));
    let new = table.add(second.clone(), share());
    assert_eq!(new.index, old.index, "the place is used again");
    assert!(
        table.get(old).is_none() && table.get_mut(old).is_none() && table.remove(old).is_none()
    );
    assert!(!table.is_waiting(old));
    assert_eq!((table.find(&second), table.find(&first)), (Some(new), None));
    assert!(table.get(QueryKey::NONE).is_none());
}

#[test]
fn memory_of_a_burst_is_given_back_when_it_is_over() {
    let mut table = QueryTable::new();
    let many = KEPT_PLACES + 1;
    let mut keys: Vec<_> = (0..many).map(|_| table.add(noted(), share())).collect();
    let last = keys.pop().expect("there are many");
    for key in keys {
        table.remove(key);
    }
    assert_eq!((table.len(), table.places.len()), (1, many), "one is left");
    table.remove(last);
    assert_eq!((table.len(), table.places.len(), table.free.len()), (0, 0, 0));
    let keys: Vec<_> = (0..KEPT_PLACES).map(|_| table.add(noted(), share())).collect();
    for key in keys {
        table.remove(key);
    }
    assert_eq!(table.places.len(), KEPT_PLACES, "so many are kept");
}

#[test]
fn all_are_taken_out_at_the_end() {
    let mut table = QueryTable::new();
    let key = table.add(noted(), share());
    table.add(noted(), share());
    table.remove(key);
    assert_eq!(table.drain().count(), 1);
}
