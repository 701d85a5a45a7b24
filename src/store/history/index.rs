//! Where in the journal the events of an application, of a model or of a time are. Pure; about 30
//! bytes for each event that is kept.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::ops::RangeInclusive;

use crate::store::event::Envelope;
use clipper_domain::{AppName, ModelName};

/// What the index knows of one event.
#[derive(Debug, Clone)]
pub struct Mark {
    at_ms: u64,
    app: Option<AppName>,
    model: Option<ModelName>,
}

impl Mark {
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        let event = &envelope.event;
        let (app, model) = (event.app().cloned(), event.model().cloned());
        Self { at_ms: envelope.recorded_at_ms, app, model }
    }
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// The number of the event before the first one that is kept.
    forgotten: u64,
    /// When each was recorded. Clocks go back now and then: none is earlier than one before it.
    times: VecDeque<u64>,
    apps: HashMap<AppName, Vec<u64>>,
    models: HashMap<ModelName, Vec<u64>>,
}

impl Index {
    /// Of all events that are kept, those after `forgotten`.
    pub fn of<'e>(forgotten: u64, events: impl IntoIterator<Item = &'e Envelope>) -> Self {
        let mut index = Self { forgotten, ..Self::default() };
        index.extend(events.into_iter().map(Mark::of));
        index
    }

    /// Further events, in order.
    pub fn extend(&mut self, marks: impl IntoIterator<Item = Mark>) {
        for mark in marks {
            let latest = self.times.back().copied().unwrap_or_default();
            self.times.push_back(mark.at_ms.max(latest));
            let seq = self.last();
            if let Some(app) = mark.app {
                self.apps.entry(app).or_default().push(seq);
            }
            if let Some(model) = mark.model {
                self.models.entry(model).or_default().push(seq);
            }
        }
    }

    /// The number of the event before the first one that is kept.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    #[must_use]
    pub fn last(&self) -> u64 {
        self.forgotten + self.times.len() as u64
    }

    /// Events up to this one are not kept any more.
    pub fn forget(&mut self, up_to: u64) {
        let gone = up_to.min(self.last()).saturating_sub(self.forgotten);
        self.times.drain(..usize::try_from(gone).unwrap_or(usize::MAX).min(self.times.len()));
        self.forgotten += gone;
        forget(&mut self.apps, self.forgotten);
        forget(&mut self.models, self.forgotten);
    }

    /// The last event that was recorded by then; none of those that are kept: the one before them.
    #[must_use]
    pub fn by(&self, unix_ms: u64) -> u64 {
        self.forgotten + self.times.partition_point(|at| *at <= unix_ms) as u64
    }

    /// When an event that is kept was recorded.
    #[must_use]
    pub fn time_of(&self, seq: u64) -> Option<u64> {
        let at = seq.checked_sub(self.forgotten + 1)?;
        self.times.get(usize::try_from(at).ok()?).copied()
    }

    /// The events of an application and a model; of everything where there is neither.
    #[must_use]
    pub fn find(
        &self,
        app: Option<&str>,
        model: Option<&str>,
        seqs: &RangeInclusive<u64>,
    ) -> Found {
        let app = app.map(|name| within(&self.apps, name, seqs));
        let model = model.map(|name| within(&self.models, name, seqs));
        match (app, model) {
            (None, None) => Found::All(seqs.clone()),
            (Some(some), None) | (None, Some(some)) => Found::Some(some.to_vec()),
            (Some(app), Some(model)) => {
                let both = app.iter().filter(|seq| model.binary_search(seq).is_ok());
                Found::Some(both.copied().collect())
            }
        }
    }
}

/// Numbers of events, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    All(RangeInclusive<u64>),
    Some(Vec<u64>),
}

impl Found {
    /// Takes up to so many from the end, or from the beginning.
    pub fn take(&mut self, max: usize, from_end: bool) -> Vec<u64> {
        match self {
            Self::All(seqs) => {
                let seqs: Vec<u64> =
                    if from_end { take_back(seqs, max) } else { seqs.take(max).collect() };
                seqs
            }
            Self::Some(seqs) if from_end => seqs.split_off(seqs.len().saturating_sub(max)),
            Self::Some(seqs) => {
                let rest = seqs.split_off(max.min(seqs.len()));
                std::mem::replace(seqs, rest)
            }
        }
    }
}

fn take_back(seqs: &mut RangeInclusive<u64>, max: usize) -> Vec<u64> {
    let mut taken: Vec<u64> = seqs.rev().take(max).collect();
    taken.reverse();
    taken
}

fn within<'l, K: Borrow<str> + Eq + Hash>(
    lists: &'l HashMap<K, Vec<u64>>,
    name: &str,
    seqs: &RangeInclusive<u64>,
) -> &'l [u64] {
    let list = lists.get(name).map(Vec::as_slice).unwrap_or_default();
    let from = list.partition_point(|seq| seq < seqs.start());
    let to = list.partition_point(|seq| seq <= seqs.end());
    list.get(from..to).unwrap_or_default()
}

fn forget<K: Eq + Hash>(lists: &mut HashMap<K, Vec<u64>>, up_to: u64) {
    lists.retain(|_, seqs| {
        seqs.drain(..seqs.partition_point(|seq| *seq <= up_to));
        !seqs.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{add_app, add_model, app_name, changes, model_name};
    use clipper_domain::Command;

    /// a: 1 and 5; b: 2; m: 3 to 5.
    fn index() -> Index {
        let link = Command::AddModelLinks { app: app_name("a"), models: vec![model_name("m")] };
        let (all, _) = changes(&[add_app("a"), add_app("b"), add_model("m", "1"), link]);
        Index::of(0, &all.concat())
    }

    #[test]
    fn events_are_found_by_name_and_place() {
        let index = index();
        assert_eq!((index.forgotten(), index.last()), (0, 5));
        let found = |app, model, seqs| index.find(app, model, &seqs);
        assert_eq!(found(Some("a"), None, 1..=5), Found::Some(vec![1, 5]));
        assert_eq!(found(None, Some("m"), 4..=9), Found::Some(vec![4, 5]));
        assert_eq!(found(Some("a"), Some("m"), 1..=5), Found::Some(vec![5]));
        assert_eq!(found(Some("x"), None, 1..=5), Found::Some(vec![]));
        assert_eq!(found(None, None, 2..=4).take(2, true), [3, 4]);
        let mut some = found(None, Some("m"), 1..=5);
        assert_eq!((some.take(2, false), some.take(2, false)), (vec![3, 4], vec![5]));
        let mut some = found(None, Some("m"), 1..=5);
        assert_eq!((some.take(2, true), some.take(2, true)), (vec![4, 5], vec![3]));
    }

    #[test]
    fn what_is_forgotten_is_not_found_and_the_rest_is() {
        let mut index = index();
        index.forget(2);
        assert_eq!((index.forgotten(), index.last()), (2, 5));
        assert_eq!(index.find(Some("b"), None, &(1..=5)), Found::Some(vec![]));
        assert_eq!(index.find(Some("a"), None, &(1..=5)), Found::Some(vec![5]));
        index.forget(1);
        index.forget(99);
        assert_eq!((index.forgotten(), index.last()), (5, 5));
        let next = changes(&[add_app("c")]).0.concat();
        index.extend(next.iter().map(Mark::of));
        assert_eq!(index.find(Some("c"), None, &(1..=9)), Found::Some(vec![6]));
    }

    #[test]
    fn times_never_go_back() {
        let mut all = changes(&[add_app("a"), add_app("b"), add_app("c")]).0.concat();
        for (envelope, at) in all.iter_mut().zip([100, 50, 200]) {
            envelope.recorded_at_ms = at;
        }
        let index = Index::of(0, &all);
        assert_eq!([99, 100, 150, 200, 900].map(|at| index.by(at)), [0, 2, 2, 3, 3]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|seq| index.time_of(seq)),
            [None, Some(100), Some(100), Some(200), None]
        );
    }
}
