//! The latest queries that may be asked about: the slow ones and those that got the default output,
//! and a sample of the others. Bounded, fair between applications, and pure.
//!
//! Samples give way first. Then the slow queries and the defaults of each application have a part
//! each, as large as every other: one that has more than it gives way, so that no flood of one kind
//! or application drives out what others have within theirs.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use clipper_domain::explain::KeptAs;
use clipper_domain::{AppName, RequestId};
use smallvec::SmallVec;

use super::explain::{ModelRecord, QueryRecord};
use super::ticket::DefaultReason;

/// What one worker keeps.
#[derive(Debug, Clone, Copy)]
pub struct RecentLimits {
    /// Queries; 0: none.
    pub queries_max: usize,
    pub max_bytes: usize,
}

/// Some of them, the oldest first.
#[derive(Debug, Default)]
struct RecentGroup {
    records: VecDeque<QueryRecord>,
    bytes: usize,
}

impl RecentGroup {
    fn push(&mut self, record: QueryRecord, bytes: usize) {
        self.bytes += bytes;
        self.records.push_back(record);
    }

    /// What the oldest one took, which is gone now.
    fn pop(&mut self) -> Option<usize> {
        let bytes = bytes(&self.records.pop_front()?);
        self.bytes -= bytes;
        Some(bytes)
    }
}

/// What there is not enough of.
#[derive(Debug, Clone, Copy)]
enum Short {
    Places,
    Bytes,
}

impl Short {
    fn taken(self, group: &RecentGroup) -> usize {
        match self {
            Self::Places => group.records.len(),
            Self::Bytes => group.bytes,
        }
    }
}

/// An application, and what its queries are kept as.
type Whose = (AppName, KeptAs);

/// Those of one worker.
#[derive(Debug)]
pub struct RecentQueries {
    limits: RecentLimits,
    samples: RecentGroup,
    /// Slow ones and defaults; none of them is empty.
    groups: HashMap<Whose, RecentGroup>,
    len: usize,
    bytes: usize,
}

/// Who is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub query_id: Option<u64>,
    /// `None`: whatever it is kept as.
    pub kept_as: Option<KeptAs>,
    pub app: Option<String>,
    /// So many, the newest.
    pub limit: usize,
}

impl Wanted {
    fn is(&self, kept_as: KeptAs, record: &QueryRecord) -> bool {
        self.kept_as.is_none_or(|wanted| wanted == kept_as)
            && self.query_id.is_none_or(|id| id == record.query_id)
            && self.app.as_ref().is_none_or(|app| app == record.app.as_str())
    }
}

/// In which order records are found: the newest first.
#[must_use]
pub fn newest(record: &QueryRecord) -> impl Ord + use<> {
    Reverse((record.arrived, record.query_id))
}

impl RecentQueries {
    #[must_use]
    pub fn new(limits: RecentLimits) -> Self {
        let (samples, groups) = (RecentGroup::default(), HashMap::new());
        Self { limits, samples, groups, len: 0, bytes: 0 }
    }

    /// Keeps one, if others give way for it.
    pub fn keep(&mut self, kind: KeptAs, record: QueryRecord) {
        let bytes = bytes(&record);
        let whose = (record.app.clone(), kind);
        if bytes > self.limits.max_bytes || !self.make_room(&whose, bytes) {
            return;
        }
        self.len += 1;
        self.bytes += bytes;
        match kind {
            KeptAs::Sample => self.samples.push(record, bytes),
            KeptAs::Slow | KeptAs::Default => {
                self.groups.entry(whose).or_default().push(record, bytes);
            }
        }
    }

    fn make_room(&mut self, whose: &Whose, bytes: usize) -> bool {
        loop {
            let short = if self.len >= self.limits.queries_max {
                Short::Places
            } else if self.bytes + bytes > self.limits.max_bytes {
                Short::Bytes
            } else {
                return true;
            };
            let gone = match self.samples.pop() {
                Some(gone) => Some(gone),
                // Nothing gives way for a sample but a sample.
                None if whose.1 == KeptAs::Sample => None,
                None => self.give_way(whose, short, bytes),
            };
            let Some(gone) = gone else { return false };
            self.len -= 1;
            self.bytes -= gone;
        }
    }

    /// What one took that gives way for another of `whose`: its own if it has its part, else one of
    /// who has most.
    fn give_way(&mut self, whose: &Whose, short: Short, bytes: usize) -> Option<usize> {
        let own = self.groups.get(whose).map(|group| short.taken(group));
        let groups = self.groups.len() + usize::from(own.is_none());
        let (part, more) = match short {
            // Where there are more groups than places, the oldest of all gives way.
            Short::Places => ((self.limits.queries_max / groups).max(1), 1),
            Short::Bytes => (self.limits.max_bytes / groups, bytes),
        };
        let from = if own.unwrap_or(0) + more > part {
            whose.clone()
        } else {
            let oldest = |group: &RecentGroup| group.records.front().map(|it| Reverse(it.arrived));
            let most = self.groups.iter().max_by_key(|(_, it)| (short.taken(it), oldest(it)));
            most?.0.clone()
        };
        let group = self.groups.get_mut(&from)?;
        let gone = group.pop();
        if group.records.is_empty() {
            self.groups.remove(&from);
        }
        gone
    }

    /// Those that are wanted, the newest first.
    #[must_use]
    pub fn find(&self, wanted: &Wanted) -> Vec<(KeptAs, QueryRecord)> {
        let samples = self.samples.records.iter().map(|record| (KeptAs::Sample, record));
        let others = self
            .groups
            .iter()
            .flat_map(|((_, kind), group)| group.records.iter().map(move |record| (*kind, record)));
        let all = samples.chain(others).filter(|(kind, record)| wanted.is(*kind, record));
        let mut found: Vec<(KeptAs, &QueryRecord)> = all.collect();
        found.sort_by_key(|(_, record)| newest(record));
        found.truncate(wanted.limit);
        found.into_iter().map(|(kind, record)| (kind, record.clone())).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a record takes, about: itself, and what it does not share with others.
#[must_use]
pub fn bytes(record: &QueryRecord) -> usize {
    let text = |reason: &Option<DefaultReason>| match reason {
        Some(
            DefaultReason::Failed(why) | DefaultReason::Model(why) | DefaultReason::Doubtful(why),
        ) => why.len(),
        _ => 0,
    };
    let of_model = |model: &ModelRecord| {
        let attempts = beyond_one(&model.trace.attempts);
        text(&model.default) + attempts
    };
    let models: usize = record.models.iter().map(of_model).sum();
    let id = record.request_id.as_ref().map_or(0, RequestId::bytes);
    size_of::<QueryRecord>() + beyond_one(&record.models) + models + text(&record.default) + id
}

/// What is not in the record itself.
fn beyond_one<T>(list: &SmallVec<[T; 1]>) -> usize {
    if list.spilled() { list.capacity() * size_of::<T>() } else { 0 }
}

#[cfg(test)]
#[path = "recent_tests.rs"]
mod tests;
